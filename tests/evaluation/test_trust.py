"""A run's folder from a stranger: nothing that its record names is run, fetched or read."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
from support.runs import make_tiny_run
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.evaluation import load_run as subjects
from convnext_study.evaluation.load_run import TrustError, load_run
from convnext_study.evaluation.trust import allowed_calls, check_data, check_timm_arguments
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.imports import file_digest
from convnext_study.models.builders import FILE_BUILDER, ROADMAP_BUILDER, TIMM_BUILDER
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import ModelRef, Run
from convnext_study.studies.multipath.rows import runs_of
from convnext_study.training.loop import train

BUILDER = """
from pathlib import Path
Path({marker!r}).touch()
from convnext_study.models.builders import roadmap_net
def net(args, **kwargs):
    return roadmap_net(args, **kwargs)
class Task:
    def __init__(self, run, machine):
        self.run = run
    def build(self):
        return net(self.run.model.args, num_classes=10, drop_path=0.0, init="kaiming")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest folder: one finished row of the nano road."""
    folder = tmp_path_factory.mktemp("study")
    (run,) = roadmap_runs(
        get_roadmap("nano"),
        [get_roadmap("nano").variant("layer_norm")],
        data="digits",
        seeds=[0],
        changes={"epochs": 1, "global_batch_size": 512},
    )
    train(run, folder / "runs" / run.id)
    return folder


class Stranger:
    """A copy of that folder whose record was changed, with a Python file in it."""

    def __init__(self, trained: Path, root: Path) -> None:
        self.study = root / "study"
        shutil.copytree(trained, self.study)
        (self.folder,) = (self.study / "runs").iterdir()
        self.marker = root / "executed"
        self.file = self.folder / "stranger.py"
        self.file.write_text(BUILDER.format(marker=str(self.marker)))

    def change(self, **fields: Any) -> Run:
        path = self.folder / "run.json"
        asked = json.loads(path.read_text())
        asked["run"] |= fields
        run = Run.model_validate(asked["run"])
        path.write_text(json.dumps({**asked, "key": run.key}))  # as the package would
        return run

    def by_file(self, args: dict[str, Any] | None = None) -> Run:
        """The record of a network from a file, as a study's own file makes it."""
        about = {"file": str(self.file), "function": "net", "sha256": file_digest(self.file)}
        return self.change(model={"builder": FILE_BUILDER, "args": {**about, "args": args or {}}})


@pytest.fixture
def stranger(trained: Path, tmp_path: Path) -> Stranger:
    return Stranger(trained, tmp_path)


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def commands_on(stranger: Stranger) -> dict[str, Any]:
    """The commands that read a run and call what it names."""
    folder = str(stranger.folder)
    return {
        "eval": command("eval", folder),
        "eval by data": command("eval", folder, "--data", "digits"),
        "export": command("export", folder),
    }


def refused(done: dict[str, Any], says: str) -> None:
    for name, one in done.items():
        assert isinstance(one.exception, TrustError), (name, one.output)
        assert says in str(one.exception) and "\n" not in str(one.exception)


def test_a_python_file_that_the_record_names_is_not_run(stranger: Stranger) -> None:
    spec = get_roadmap("nano").upto("layer_norm").to_dict()
    stranger.by_file(spec)
    done = commands_on(stranger)
    refused(done, "requests to run the Python file")
    assert command("report", str(stranger.study)).exit_code == 0
    assert not stranger.marker.exists()
    with pytest.raises(TrustError, match="is not the file with which"):
        other = stranger.study / "other.py"
        other.write_text(stranger.file.read_text() + "\n")
        load_run(stranger.folder, code=other)
    assert not stranger.marker.exists()


@pytest.mark.parametrize("how", ["trust", "code", "task"])
def test_a_file_that_the_reader_names_is_run(stranger: Stranger, how: str, tmp_path: Path) -> None:
    if how == "task":
        stranger.change(task={"name": "stranger:Task"})
        loaded = load_run(stranger.folder, code=stranger.file)
    elif how == "trust":
        stranger.by_file(get_roadmap("nano").upto("layer_norm").to_dict())
        loaded = load_run(stranger.folder, trust=True)
    else:
        stranger.by_file(get_roadmap("nano").upto("layer_norm").to_dict())
        mine = shutil.copy(stranger.file, tmp_path / "mine.py")
        stranger.file.unlink()  # it is the reader's file that is run, wherever the record's was
        loaded = load_run(stranger.folder, code=Path(mine))
    assert stranger.marker.exists()
    assert loaded.classes == 10


REFERENCES = (
    "stranger:Task",
    "os:system",
    "convnext_study.imports:load_file",
    "convnext_study.launchers.worker:main",
    "convnext_study.models.builders.file_net:x",
    "timm:create_model",
)


@pytest.mark.parametrize(
    ("part", "reference"),
    [*itertools.product(("builder", "task"), REFERENCES), ("builder", "nothing")],
)
def test_no_module_is_imported(
    stranger: Stranger, part: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(stranger.folder)
    if part == "task":
        run = stranger.change(task={"name": reference})
    else:
        run = stranger.change(model={"builder": reference, "args": {"path": str(stranger.file)}})
    with pytest.raises(
        TrustError, match="requests to import"
    ):  # a file called like a module of ours
        allowed_calls(run, code=stranger.folder / "build.py")
    refused(commands_on(stranger), "requests to import")
    assert not stranger.marker.exists()


@pytest.mark.parametrize(
    "args",
    [
        {"name": "hf-hub:stranger/network"},
        {"name": "hf_hub:stranger/network"},
        {"name": "local-dir:stranger"},
        {"name": "local-dir:/a/stranger"},
        {"name": "no_such_network"},
        {"name": "../resnet18"},
        {"name": "resnet18\n"},
        {"name": ["resnet18"]},
        {},
        {"name": "resnet18", "pretrained": True},
        {"name": "resnet18", "pretrained_cfg": {"file": "a/stranger"}},
        {"name": "resnet18", "pretrained_cfg_overlay": {"file": "a/stranger"}},
        {"name": "resnet18", "pretrained_strict": False},
        {"name": "resnet18", "checkpoint_path": "a/stranger"},
        {"name": "resnet18", "checkpoint_path": 0},
        {"name": "resnet18", "cache_dir": "a/stranger"},
        {"name": "resnet18", "model_name": "hf-hub:stranger/network"},
        {"name": "resnet18", "global_pool": "a/stranger"},
        {"name": "resnet18", "act_layer": {"file": "a"}},
        {"name": "resnet18", "layers": ["a/stranger"]},
        {"name": "resnet18", "layers": "stranger"},
        {"name": "resnet18", "features_only": True},
        {"name": "resnet18", "num_classes": 7},
    ],
)
def test_what_a_record_may_not_ask_of_timm(
    stranger: Stranger, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*_: Any, **__: Any) -> None:
        raise AssertionError("timm was called")

    stranger.change(model={"builder": TIMM_BUILDER, "args": args})
    monkeypatch.setattr(timm, "create_model", called)
    with pytest.raises(TrustError, match="its record"):
        load_run(stranger.folder)


def test_with_trust_timm_gets_it_all(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    def called(name: str, **keywords: Any) -> None:
        raise OSError(f"{name} {keywords['checkpoint_path']}\nand more")

    args = {"name": "resnet18", "checkpoint_path": "stranger"}
    stranger.change(model={"builder": TIMM_BUILDER, "args": args})
    monkeypatch.setattr(timm, "create_model", called)
    with pytest.raises(subjects.EvaluationError, match=r"built \(.*resnet18 stranger\)$"):
        load_run(stranger.folder, trust=True)


def test_a_network_of_timm_by_its_name_and_its_shape(tmp_path: Path) -> None:
    args: dict[str, Any] = {"name": "convnext_atto", "depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
    args |= {"ls_init_value": None, "conv_mlp": True, "act_layer": "relu"}
    model = ModelRef(builder=TIMM_BUILDER, args=args)
    run = make_tiny_run(epochs=1, global_batch_size=512).model_copy(update={"model": model})
    train(run, tmp_path)
    assert type(load_run(tmp_path).net).__name__ == "ConvNeXt"
    for tag in ("resnet50", "resnet50.a1_in1k", "roadmap_nano_gelu", "vit_tiny_patch16_224"):
        check_timm_arguments("here", {"name": tag})


def test_arguments_that_do_not_fit_are_one_line(stranger: Stranger) -> None:
    args = {"name": "resnet18", "embed_dim": 3}
    stranger.change(model={"builder": TIMM_BUILDER, "args": args})
    with pytest.raises(subjects.EvaluationError, match=r"cannot be built \(.*embed_dim") as caught:
        load_run(stranger.folder)
    assert "\n" not in str(caught.value)
    stranger.change(model={"builder": ROADMAP_BUILDER, "args": {"file": "stranger"}})
    with pytest.raises(ValueError, match="no such field"):
        load_run(stranger.folder)


def test_the_builders_of_every_study_need_no_trust() -> None:
    for run in runs_of("cifar10:anywhere", [0], None, {}):
        assert allowed_calls(run).args == run.model.args
    assert allowed_calls(make_tiny_run()).task is None


def test_data_that_may_run_code(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def spy(name: str, *_: Any, **__: Any) -> None:
        opened.append(name)
        raise subjects.EvaluationError("stop here")

    for uri in ("timm:tfds/x", "timm:hfids/x", "timm:torch/imagenet?root=/tmp", "other:x"):
        with pytest.raises(TrustError, match="names the data"):
            check_data("here", uri)
    for uri in ("digits", "folder:/a", "timm:/a/b", "timm:wds//a?train=x", "cityscapes:/a"):
        check_data("here", uri)  # is read as it is
    stranger.change(data="timm:hfds/stranger/data")
    monkeypatch.setattr("convnext_study.data.sources.timm_readers.open_timm", spy)
    done = commands_on(stranger)
    by_data = done.pop("eval by data")
    refused(done, "names the data")
    assert by_data.exit_code == 0, by_data.output
    assert "names the data" in by_data.stdout.replace("\n", " ")
    assert opened == []
    with pytest.raises(subjects.EvaluationError, match="stop here"):
        load_run(stranger.folder, trust=True)
    assert len(opened) == 1


def test_a_report_reads_no_recipe_that_a_record_names(stranger: Stranger, tmp_path: Path) -> None:
    """A file that can be read would be told apart from one that cannot."""
    recipe = tmp_path / "stranger.toml"
    recipe.write_text("epochs = 'STRANGE'\n")
    asked = json.loads((stranger.folder / "run.json").read_text())["run"]
    facts = {**asked["metadata"], "recipe": str(recipe)}
    stranger.change(recipe={**asked["recipe"], "name": str(recipe)}, metadata=facts)
    read: list[str] = []
    whole = Path.read_text

    def spy(path: Path, *args: Any, **kwargs: Any) -> str:
        read.append(str(path))
        return whole(path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", spy)
        done = command("report", str(stranger.study))
    assert done.exit_code == 0, done.exception
    assert str(recipe) not in read


def test_an_honest_folder_needs_no_trust(stranger: Stranger, trains_here: None) -> None:
    road = ("--data", "digits", "--steps", "layer_norm", "--epochs", "1", "--batch-size", "512")
    done = {
        **commands_on(stranger),
        "roadmap": command("roadmap", "--out", str(stranger.study), *road),
    }
    assert {name: one.exit_code for name, one in done.items()} == dict.fromkeys(done, 0), done


NESTED = {
    "a network within": {"parent": {"builder": "os:system", "args": {}}},
    "timm's within": {"parent": {"builder": "timm", "args": {"name": "hf-hub:a/b"}}},
    "a file within": {"parent": {"builder": "file", "args": {"file": "x.py", "sha256": "0"}}},
    "two within": {
        "parent": {
            "builder": "pruning-narrowed",
            "args": {"parent": {"builder": "a:b", "args": {}}},
        }
    },
    "a place to fetch from": {"backbone": "hf-hub:stranger/model"},
    "a folder": {"backbone": "local-dir:/tmp/x"},
    "weights to fetch": {"backbone": "resnet18", "pretrained": True},
    "does not name the inner network": {"parent": {"builder": 3}},
    "a path in a list": {"widths": [8, "/etc/passwd"]},
}


@pytest.mark.parametrize("args", NESTED.values(), ids=NESTED)
def test_what_a_studys_network_names_is_checked_too(args: dict[str, Any]) -> None:
    for builder in ("pruning-narrowed", "anytime"):
        run = make_tiny_run().model_copy(update={"model": ModelRef(builder=builder, args=args)})
        with pytest.raises(TrustError) as caught:
            allowed_calls(run)
        assert "\n" not in str(caught.value)


def test_a_network_within_a_network_of_this_package_needs_no_trust() -> None:
    parent = make_tiny_run().model.model_dump()
    args = {"parent": parent, "kept": {"stages.0.blocks.0.conv1": [0, 2]}, "image_size": [3, 8, 8]}
    model = ModelRef(builder="pruning-narrowed", args=args)
    assert allowed_calls(make_tiny_run().model_copy(update={"model": model})).args == args
