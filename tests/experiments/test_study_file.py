"""Studies from files: what they may ask, networks trained once, equal MACs, and the command."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hatchling.builders.wheel import WheelBuilder
from support.fakes import write_run
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.errors import UserError
from convnext_study.evaluation.trust import allowed_calls
from convnext_study.experiments.context import Context
from convnext_study.experiments.equal_macs import counter, match_macs, nearest_width, parse_target
from convnext_study.experiments.study_file import (
    deduplicate,
    find_study,
    load_study,
    make_context,
    named_studies,
    recorded,
    select_records,
)
from convnext_study.models.builders import FILE_BUILDER, file_net
from convnext_study.roadmap import StepError, get_roadmap
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.records import ModelRef, Run, Status, scan

NANO = get_roadmap("nano")
ROOT = Path(__file__).parents[2]
MACS = counter(32, 10)
OWN = """
from convnext_study.roadmap import Step

STEPS = (
    Step(name="narrow", label="<script>narrow", section="Ours", rationale="", overrides={"width":
4}), )


def build(args, *, num_classes, drop_path, init):
    from torch import nn

    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, num_classes))


def runs(context):
    pooled = context.network("pooled", "pooled pixels", f"{__file__}:build")
    again = context.with_steps().subsets([context.steps], "mine")
    return [*context.runs(["narrow"]), *pooled, *again]


def report(records, context):
    return f"{len(records)} records on {context.road.regime}"
"""


def write(folder: Path, text: str, name: str = "own.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


RUNS = "def runs(context):\n    return "


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", r"own\.py: defines no runs"),
        ("def runs(context:\n", r"own\.py: line 1: SyntaxError"),
        ("import nothing_of_that_name\n", r"own\.py: line 1: ModuleNotFoundError"),
        ("\n\nx = 1 / 0\n", r"own\.py: line 3: ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", r"own\.py: line 2: SystemExit: 3"),
        (f"{RUNS}[]", "returned no run"),
        (f"{RUNS}None", r"runs\(\) must return a list of runs"),
        (f"{RUNS}['gelu']", r"runs\(\) must return a list of runs"),
        (f"{RUNS}context.runs(['gellu'])", "did you mean gelu"),
        (f"{RUNS}context.nothing", r"runs\(\): line 2: AttributeError"),
        (f"{RUNS}context.network('x', 'x', 'build')", "use FILE.py:function, module:function or"),
        (f"{RUNS}exit(3)", r"runs\(\): line 2: SystemExit: 3"),
        (f"{RUNS}context.network('x', 'x', 'timm', {{'k': float('nan')}})", "x: its record would"),
        (f"{RUNS}context.network('x', 'x', 'timm', {{'k': 2**70}})", "x: its record would not be"),
        (f"{RUNS}context.network('x', 'x', 'timm', {{'k': {{1, 2}}}})", "x: its record would not"),
        (f"{RUNS}context.network('x', 'x', 'no.py:build')", r"no\.py: cannot be read"),
    ],
)
def test_a_file_that_gives_no_runs_is_refused_in_one_line(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        file = load_study(write(tmp_path, text))
        file.runs(make_context(file, None))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="must end in"):
        load_study(write(tmp_path, text, "notes.txt"))


def test_regime_and_folder_are_the_files_unless_others_are_asked_for(tmp_path: Path) -> None:
    file = load_study(write(tmp_path, "REGIME = 'b'\ndef runs(context): return context.runs()\n"))
    assert make_context(file, None).road.regime == "b"
    assert make_context(file, "t").road.regime == "t"
    with pytest.raises(StepError, match="no such road map"):
        make_context(file, "x")
    assert file.folder("digits") is None
    file = load_study(write(tmp_path, f"FOLDER = 'mine'\n{RUNS}[]\n"))
    assert file.folder("folder:/some/where") == Path("runs/mine-folder-where")


def test_further_steps_end_the_road(tmp_path: Path) -> None:
    file = load_study(write(tmp_path, "def runs(context): return context.runs()\n"))
    own = write(tmp_path, OWN, "steps.py")
    context = make_context(file, None, f"grn, {own}")
    assert context.steps[-2:] == ("grn", "narrow")
    assert (context.last_step, context.road.variant("narrow").parent) == ("narrow", "grn")
    assert context.road.variant("narrow").spec.grn
    with pytest.raises(StepError, match="did you mean grn"):
        make_context(file, None, "gnr")
    with pytest.raises(UserError, match="defines no STEPS"):
        make_context(file, None, str(file.path))


def test_sets_are_named_and_described_by_what_they_hold() -> None:
    context = Context(road=NANO)
    steps = context.steps

    def name(subset: tuple[str, ...], of: Context = context) -> str:
        (run,) = of.subsets([subset], "test")
        return run.name

    assert name(()) == "resnet"
    assert name(steps) == "separate_downsampling"
    assert name(steps[:2]) == "patchify_stem"
    assert name(("gelu",)) == "only_gelu"
    assert name(tuple(step for step in steps if step != "gelu")) == "without_gelu"
    assert name(steps[:3] + steps[4:7]) == name((steps[:3] + steps[4:7])[::-1])
    assert name(steps[:3] + steps[4:7]).startswith("set-")
    wide = make_context(load_study(ROOT / "ablations/pairs.py"), None, "grn")
    assert name(tuple(step for step in wide.steps if step != "gelu"), wide) == "without_gelu+grn"
    assert name(wide.steps, wide) == "grn"
    with pytest.raises(StepError, match="no such step"):
        context.subsets([["nothing"]], "test")
    (run,) = Context(road=NANO, seeds=(4,)).subsets([["gelu", "stage_ratio"]], "my_kind")
    assert run.seed == 4
    assert run.metadata["steps"] == ["resnet", "stage_ratio", "gelu"]
    assert run.metadata["study_kind"] == "my_kind"
    assert run.metadata["label"] == "only stage ratio, ReLU → GELU"
    assert run.metadata["recipe"] == "modern"


def test_a_network_is_found_under_another_name(tmp_path: Path) -> None:
    context = Context(road=NANO)
    (as_row,) = context.runs(["gelu"])
    (as_set,) = context.subsets([["gelu"]], "test")
    renamed = as_row.model_copy(update={"name": "mine", "metadata": {"label": "mine"}})
    write_run(tmp_path, as_row)
    write_run(tmp_path, as_set, status="unfinished")
    runs, done = deduplicate([renamed, as_set, as_set, as_row], tmp_path)
    assert [run.id for run in runs] == [as_row.id, as_set.id]
    assert done == 1
    assert deduplicate([renamed], tmp_path / "elsewhere") == ([renamed], 0)
    (record,) = select_records(scan(tmp_path), [renamed])
    assert (record.run.name, record.run.metadata) == ("mine", {"label": "mine"})


def test_of_two_folders_of_one_network_the_finished_one_counts(tmp_path: Path) -> None:
    (run,) = Context(road=NANO).runs(["gelu"])
    states: dict[str, Status] = {"a": "unfinished", "b": "done", "c": "unfinished"}
    for name, status in states.items():
        write_run(tmp_path, run.model_copy(update={"name": name}), status=status)
    assert [found.name for found in recorded(tmp_path).values()] == ["b"]
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    assert len(recorded(tmp_path)) == 1


def test_widths_bring_macs_nearest() -> None:
    for variant in NANO.variants():
        matched = nearest_width(variant.spec, 2_245_056, MACS)
        assert matched.replace(width=variant.spec.width) == variant.spec
        gap = abs(MACS(matched) - 2_245_056)
        for other in (matched.width - 1, matched.width + 1):
            assert gap <= abs(MACS(matched.replace(width=other)) - 2_245_056)
    assert nearest_width(NANO.base, 1, MACS).width == 1


def test_runs_at_equal_macs_say_what_was_adjusted() -> None:
    target = parse_target("end", NANO, MACS)
    assert target == MACS(NANO.variants()[-1].spec)
    asked = Context(road=NANO).runs(["stage_ratio", "separate_downsampling"])
    first, last = (match_macs(run, target, MACS) for run in asked)
    about = first.metadata["equal_macs"]
    assert about["target"] == target
    assert abs(about["macs"] - target) < abs(about["macs_before"] - target)
    assert f"(width {about['width_before']} → {about['width']})" in first.metadata["label"]
    assert first.model.args["width"] == about["width"] != asked[0].model.args["width"]
    mark = f"-at-{target / 1e6:.4g}M"
    assert (first.name, first.metadata["parent"]) == (f"stage_ratio{mark}", f"resnet{mark}")
    assert last.key == asked[1].key, "the end itself is not trained again"


@pytest.mark.parametrize("text", ["no", "0", "-3", "nan", "inf", ""])
def test_a_target_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="match-macs"):
        parse_target(text, NANO, MACS)


def test_a_network_from_a_file_is_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, OWN)
    file = load_study(path)
    before = next(run for run in file.runs(make_context(file, None)) if run.name == "pooled")
    assert before.model.builder == FILE_BUILDER
    assert before.model.args["file"] == "own.py", "relative: a record names no home"
    args = dict(before.model.args)
    net: Any = file_net(args, num_classes=3, drop_path=0, init="kaiming")
    assert net[-1].out_features == 3
    path.write_text(OWN + "\n# changed\n")
    with pytest.raises(UserError, match="changed after"):
        file_net(args, num_classes=3, drop_path=0, init="kaiming")
    after = next(run for run in file.runs(make_context(file, None)) if run.name == "pooled")
    assert after.key != before.key
    with pytest.raises(UserError, match="no function 'nothing'"):
        file_net(
            {**after.model.args, "function": "nothing"}, num_classes=3, drop_path=0, init="kaiming"
        )


def test_a_network_of_timms_needs_no_code_and_no_trust() -> None:
    args = {"name": "resnet18", "stem_width": 8}
    (run,) = Context(road=NANO).network("small", "a small ResNet", "timm", args)
    assert run.model == ModelRef(builder="timm", args=args)
    called = allowed_calls(run)  # as a stranger's record, without --trust
    net = called.builder(called.args, num_classes=3, drop_path=0.0, init="kaiming")
    assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_a_folder_that_moved_has_the_same_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, elsewhere = tmp_path / "old", tmp_path / "new", tmp_path / "elsewhere"
    for folder in (old, elsewhere):
        folder.mkdir()

    def asked(path: Path) -> Run:
        file = load_study(path)
        return next(run for run in file.runs(make_context(file, None)) if run.name == "pooled")

    monkeypatch.chdir(elsewhere)  # outside, so that paths are whole
    before = asked(write(old, OWN))
    with RunFolder(old / "runs" / "runs" / before.id, before):
        pass
    old.rename(new)
    after = asked(new / "own.py")
    assert after.model.args["file"] != before.model.args["file"]
    (found,), _ = deduplicate([after], new / "runs")
    assert found.id == before.id
    net = file_net(dict(found.model.args), num_classes=3, drop_path=0, init="kaiming")
    assert isinstance(net, torch.nn.Module), "the run goes on with the file where it is now"
    (new / "own.py").write_text(OWN + "\n# changed\n")
    assert asked(new / "own.py").key != before.key


@pytest.mark.parametrize("name", ["REGIME", "DATA", "FOLDER", "NETWORKS", "STEPS"])
@pytest.mark.parametrize("value", ["3", "(1,)", "['a']"])
def test_what_a_file_sets_wrongly_is_one_line(tmp_path: Path, name: str, value: str) -> None:
    path = write(tmp_path, f"{name} = {value}\ndef runs(context): return context.runs()\n")
    with pytest.raises(UserError, match=f"^[^\n]*own.py: {name} is [^\n]*$"):
        make_context(load_study(path), None)


def test_a_study_of_ones_own_from_file_to_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains_here: None
) -> None:
    write(tmp_path, OWN)
    monkeypatch.chdir(tmp_path)
    fast = ["study", "own.py", "--data", "digits", "--epochs", "1", "--batch-size", "512"]
    done = CliRunner().invoke(app, fast)
    assert done.exit_code == 0, done.stderr
    # The road ends with the narrow network, so that the set of all steps is that row.
    assert done.stdout.startswith("3 networks requested, 2 distinct, 0 trained already")
    for said in ("<script>narrow", "pooled pixels", "2 records on nano"):
        assert said in done.stdout
    folder = tmp_path / "runs" / "nano-digits"
    assert (folder / "roadmap.svg").exists()
    assert len(list((folder / "runs").iterdir())) == 2
    again = CliRunner().invoke(app, fast)
    assert again.exit_code == 0
    assert again.stdout.startswith("3 networks requested, 2 distinct, 2 trained already")


# Studies of the package


def test_a_name_is_the_file_of_the_checkout() -> None:
    assert find_study("leave_one_out") == ROOT / "ablations" / "leave_one_out.py"
    assert set(named_studies()) == {path.stem for path in (ROOT / "ablations").glob("*.py")}


@pytest.mark.parametrize("path", ["ablations/pairs.py", "mine.py", "../a/b.py"])
def test_a_path_stays_as_it_was(path: str) -> None:
    assert find_study(path) == Path(path)


def test_an_installed_wheel_has_them(tmp_path: Path) -> None:
    """Unpacked elsewhere, as an installation does, and away from the checkout."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "import convnext_study\n"
        "from convnext_study.experiments.study_file import find_study, load_study\n"
        "print(convnext_study.__file__)\n"
        "print(load_study(find_study('leave_one_out')).path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    package = site / "convnext_study"
    assert done.stdout.split() == [
        str(package / "__init__.py"),
        str(package / "ablations" / "leave_one_out.py"),
    ]
    for path in (ROOT / "ablations").glob("*.py"):
        assert (package / "ablations" / path.name).read_bytes() == path.read_bytes()
