"""A run is known by what its data is: by any name, in any place, and not after a change."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.data_timm import one_tar, shards, tar_a_class
from support.dense import make_cityscapes, make_pairs
from support.fakes import write_run
from support.images import make_cifar, make_folder, picture
from support.mpii import make_split
from support.runs import make_tiny_run
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.data import open_data
from convnext_study.data.dataset import DataError
from convnext_study.errors import UserError
from convnext_study.experiments import data_identity
from convnext_study.experiments.data_identity import clear_cache, identify
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.experiments.study_file import deduplicate, select_records
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import Run, TaskRef, read, scan


@pytest.fixture(autouse=True)
def _look_anew() -> None:
    clear_cache()


def on(data: str, task: str = "classification") -> Run:
    made = make_tiny_run().model_copy(update={"data": data, "task": TaskRef(name=task)})
    return identify([made], required=True)[0]


MAPS = {"pairs": "segmentation", "cityscapes": "segmentation", "mpii": "pose"}
PLACES: dict[str, Callable[[Path], str]] = {
    "folder": lambda root: f"folder:{make_folder(root)}",
    "timm": lambda root: f"timm:{make_folder(root)}",
    "timm, size": lambda root: f"timm:{make_folder(root)}?size=48",
    "torch": lambda root: f"timm:torch/image_folder?root={make_folder(root)}",
    "tar": one_tar,
    "tars": tar_a_class,
    "shards": shards,
    "pairs": lambda root: f"pairs:{make_pairs(root)}",
    "cityscapes": lambda root: f"cityscapes:{make_cityscapes(root)}",
    "mpii": lambda root: f"mpii:{make_split(root)}",
}


@pytest.mark.parametrize("kind", PLACES)
def test_data_that_was_moved_is_the_same_run(tmp_path: Path, kind: str) -> None:
    (tmp_path / "one").mkdir()
    uri = PLACES[kind](tmp_path / "one")
    before = on(uri, MAPS.get(kind, "classification"))
    shutil.move(tmp_path / "one", tmp_path / "two")
    moved = uri.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    after = on(moved, MAPS.get(kind, "classification"))
    assert (before.key, before.id) == (after.key, after.id)
    assert (before.data, after.data) == (uri, moved)
    assert str(tmp_path) not in str(after.data_id)


@pytest.mark.parametrize("name", ["cifar10:{}", "timm:torch/cifar10?root={}"])
def test_cifar_is_the_same_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_cifar(tmp_path, monkeypatch, "cifar10")
    (tmp_path / "link").symlink_to(tmp_path)
    assert on(name.format(tmp_path)).key == on(name.format(tmp_path / "link")).key


def test_a_folder_by_any_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "in" / "cls")
    (tmp_path / "link").symlink_to(tmp_path / "in" / "cls")
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ["cls", "cls/", "./cls", "../in/cls", "~/in/cls", str(tmp_path / "link"), "cls//"]
    assert len({on(f"{kind}:{name}").key for name in names for kind in ("folder", "timm")}) == 2


def test_what_is_other_data_is_another_run(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "cls")
    keys = [on(f"timm:{root}?size={size}").key for size in (32, 48)]
    keys += [on(f"folder:{root}").key, on(f"timm:{root}").key]
    assert on(f"timm:{root}?train=train").key == on(f"timm:{root}?root=ignored").key == keys[-1]
    (root / "train" / "cat" / "0.jpg").unlink()
    clear_cache()
    keys += [on(f"folder:{root}").key]
    assert len(set(keys)) == 5


def test_the_key_of_files_is_frozen(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "0.png").write_bytes(b"no image, and never read")
    frozen = "788564505dcd51bad4fe97d7a529bf57cf505e12e52d502f0723e8c458d47e6e"
    assert on(f"folder:{tmp_path}").data_id == f"folder:#{frozen}"


def test_data_of_the_package_needs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_identity, "inspect_data", None)
    for uri in ("digits", "clutter:hard", "synthetic:4,16,64"):
        run = make_tiny_run().model_copy(update={"data": uri})
        assert identify([run], required=True) == [run]


def test_data_is_listed_once_in_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, opened = f"folder:{make_folder(tmp_path / 'cls')}", list[str]()

    def counted(uri: str, **how: Any) -> object:
        opened.append(uri)
        return open_data(uri, **how)

    monkeypatch.setattr(data_identity, "open_data", counted)
    study = ["study", "leave_one_out", "--data", uri]
    out = ["--out", str(tmp_path / "out"), "--dry-run"]
    done = CliRunner().invoke(app, [*study, *out])
    assert done.exit_code == 0, done.output
    assert opened == [uri]


def test_children_follow_their_parents_in_any_order(tmp_path: Path) -> None:
    first, second = (f"folder:{make_folder(tmp_path / name)}" for name in "ab")
    parent = make_tiny_run().model_copy(update={"data": first})
    child = parent.model_copy(update={"seed": 1, "init_from": parent.key})
    last = child.model_copy(update={"seed": 2, "init_from": child.key})
    apart = parent.model_copy(update={"seed": 3, "init_from": "elsewhere"})

    def lineage(uri: str) -> dict[int, Run]:
        moved = [one.model_copy(update={"data": uri}) for one in (parent, child, last)]
        for older, one in ((0, 1), (1, 2)):
            moved[one] = moved[one].model_copy(update={"init_from": moved[older].key})
        return {run.seed: run for run in identify([*reversed(moved), apart])}

    here, there = lineage(first), lineage(second)
    assert here[1].init_from == here[0].key == there[0].key
    assert here[2].init_from == here[1].key
    assert [here[seed].key for seed in (0, 1, 2)] == [there[seed].key for seed in (0, 1, 2)]
    assert here[3].init_from == "elsewhere"
    assert identify(here.values()) == [*here.values()]


def test_data_that_is_not_here_is_what_runs_of_that_place_recorded(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "cls")
    run = on(f"folder:{root}")
    root.rename(tmp_path / "gone")
    clear_cache()
    asked = run.model_copy(update={"data_id": None, "data": f"folder:{tmp_path}/./cls/"})
    assert identify([asked], [run], required=True)[0].key == run.key
    assert identify([asked]) == [asked]
    with pytest.raises(DataError, match="no such folder"):
        identify([asked], required=True)


# In a study's folder


def row(data: str, seed: int = 0) -> Run:
    road = get_roadmap("nano")
    return identify(roadmap_runs(road, [road.variant("gelu")], data=data, seeds=[seed]))[0]


def test_a_finished_run_is_found_after_a_move_and_notes_the_place(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "cls")
    run = row(f"folder:{root}")
    path = write_run(tmp_path / "out", run)
    root.rename(tmp_path / "cls2")
    moved = f"folder:{tmp_path / 'cls2'}"
    arguments = ["train", "gelu", "--data", moved, "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert "1 runs, 1 done already" in told.output
    assert read(path).run.data == run.data  # a dry run writes nothing
    (again,), done = deduplicate([row(moved)], tmp_path / "out")
    assert (again.id, again.data, done) == (run.id, moved, 1)
    (chosen,) = select_records([read(path)], [row(moved)])
    assert chosen.run.data == moved
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert read(path).run.data == moved
    assert [record.folder for record in scan(tmp_path / "out")] == [path]


@pytest.mark.parametrize("data", ["folder:nowhere", "foldr:x", "digits:some", "synthetic:-1"])
def test_bad_data_is_refused_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["train", "gelu"], ["study", "multipath"], ["bench"]):
        done = CliRunner().invoke(app, [*command, "--data", data, "--out", "out"])
        assert isinstance(done.exception, UserError), done.output
        assert list(tmp_path.iterdir()) == []


def test_other_data_of_one_kind_is_another_run_of_one_study(tmp_path: Path) -> None:
    one, other = make_folder(tmp_path / "one"), make_folder(tmp_path / "two")
    picture(99).save(other / "train" / "cat" / "9.jpg")
    study = ["study", "pruning", "--data", f"folder:{one}"]
    study += ["--target", f"transferred@folder:{other}", "--target", f"guided@folder:{one}/."]
    done = CliRunner().invoke(app, [*study, "--out", str(tmp_path / "out"), "--dry-run"])
    assert done.exit_code == 0, done.output
    steps = {line.split()[0] for line in done.output.splitlines() if line.startswith("vgg16_")}
    assert "vgg16_eighth-transferred_from_folder-dense" in steps
    assert "vgg16_eighth-guided-scratch_e" in steps  # its data is the study's own
