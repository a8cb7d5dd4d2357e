"""The report's provenance of runs that went on under something else than they began with."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.fakes import fake_run, fake_runs, write_run, write_study

from convnext_study.report.page import render
from convnext_study.report.provenance import changes, machine_of, provenance
from convnext_study.results.load import load_results
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import Run, read
from convnext_study.training.runtime import Runtime

POINT = get_roadmap("nano").variant("gelu")
VERSIONS = {"python": "3.11.7", "torch": "2.14.1", "timm": "1.0.31"}  # of fakes' run.json
HARDWARE = {"system": "Linux", "processor": "x86_64", "cores": 2}
GPU = {**HARDWARE, "gpu": "H100"}
COMMIT = "0123456789abcdef"


def start(step: int, *, world: int = 1, hardware: Any = HARDWARE, **other: Any) -> dict[str, Any]:
    """A start's event; ``other`` are fields of the machine's settings, and versions by name."""
    versions = {name: other.pop(name) for name in ("torch", "timm") if name in other}
    return {
        "event": "resumed" if step else "started",
        "step": step,
        "world_size": world,
        "settings": Runtime(**other.pop("settings", {})).settings(),
        "versions": {**VERSIONS, **versions},
        "commit": other.pop("commit", COMMIT),
        "hardware": hardware,
        **other,
    }


def write_starts(folder: Path, run: Run, *starts: dict[str, Any]) -> Path:
    """A finished run whose log has these starts in place of its own."""
    path = write_run(folder, run)
    log = path / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    rest = [line for line in lines if line["event"] != "started"]
    log.write_text("".join(json.dumps(line) + "\n" for line in [*starts, *rest]))
    return path


def told(folder: Path, *starts: dict[str, Any]) -> list[str]:
    return changes([read(write_starts(folder, fake_run(POINT), *starts))])


# What the second start had, and what the first one had where that is not the usual.
CHANGES: dict[str, tuple[dict[str, Any], ...]] = {
    "torch 2.14.1, then 2.15.0": ({"torch": "2.15.0"},),
    "commit 0123456789, then ffffffffff+": ({"commit": "f" * 40 + "+"},),
    "commit 0123456789, then none": ({"commit": None},),
    "processes 1, then 4": ({"world_size": 4},),
    "device cpu, then cuda": ({"settings": {"device": "cuda"}},),
    "memory layout channels last, then channels first": ({"settings": {"channels_last": False}},),
    "compile off, then on": ({"settings": {"compile": True}},),
    "threads 1, then 2": ({"settings": {"threads": 2}},),
    "deterministic on, then off": ({}, {"settings": {"deterministic": True}}),
    "micro-batch none, then 32": ({"settings": {"micro_batch_size": 32}},),
    "processor x86_64, then aarch64": ({"hardware": {**HARDWARE, "processor": "aarch64"}},),
    "GPU none, then H100": ({"hardware": GPU},),
    "cuDNN 90100, then 91000": (
        {"hardware": GPU | {"cudnn": 91000}},
        {"hardware": GPU | {"cudnn": 90100}},
    ),
}


@pytest.mark.parametrize("says", CHANGES)
def test_each_thing_that_changed_is_one_line(tmp_path: Path, says: str) -> None:
    after, *before = CHANGES[says]
    first = start(0, **(before[0] if before else {}))
    assert told(tmp_path, first, start(40, **after)) == [f"{says} (1 run)"]


def test_what_cannot_change_a_result_is_not_told(tmp_path: Path) -> None:
    other = {"workers": 8, "download": True, "checkpoint_seconds": 5.0, "device": "cuda:1"}
    first = start(0, settings={"device": "cuda:0"})
    assert told(tmp_path, first, start(40, settings=other, hardware=HARDWARE | {"cores": 64})) == []


def test_several_starts_are_told_in_order(tmp_path: Path) -> None:
    later = [start(step, torch="2.15.0", world=world) for step, world in ((20, 2), (30, 1))]
    lines = told(tmp_path, start(0), start(10), *later)
    assert lines == ["torch 2.14.1, then 2.15.0 (1 run)", "processes 1, then 2, then 1 (1 run)"]


def test_a_start_that_left_nothing_is_not_counted(tmp_path: Path) -> None:
    assert told(tmp_path, start(0), start(20, world=2), start(20), start(30)) == []
    # Begun again from nothing, and so all under another version than run.json was written with.
    again = write_starts(
        tmp_path, fake_run(POINT, 1), start(0), start(0, torch="2.15.0"), start(9, torch="2.15.0")
    )
    assert changes([read(again)]) == ["torch 2.14.1, then 2.15.0 (1 run)"]


def test_logs_without_circumstances_tell_of_no_change(tmp_path: Path) -> None:
    old = [{"event": "started", "step": 0}, {"event": "resumed", "step": 40}]
    assert told(tmp_path, *old) == []
    # An old run that goes on today is compared with what its run.json has.
    newer = start(9, torch="2.15.0", hardware=GPU)
    lines = changes([read(write_starts(tmp_path, fake_run(POINT, 2), old[0], newer))])
    assert lines == ["torch 2.14.1, then 2.15.0 (1 run)"]
    odd: list[dict[str, Any]] = [{"event": "started"}]
    odd += [{"event": "resumed", "step": None, "versions": "?", "settings": 1}]
    assert changes([read(write_starts(tmp_path, fake_run(POINT, 3), *odd))]) == []


@pytest.mark.usefixtures("no_figures")
def test_the_page_says_in_how_many_runs(tmp_path: Path) -> None:
    runs = fake_runs(seeds=(0, 1))
    write_study(tmp_path, runs[4:])
    for run in runs[:3]:
        write_starts(tmp_path, run, start(0), start(50, torch="2.15.0"))
    write_starts(tmp_path, runs[3], start(0), start(50, torch="<b>9</b>", world=2))
    study = load_results(tmp_path).studies[0]
    metadata = provenance(study)
    assert [value for name, value in metadata if name == "resumed under"] == [
        "torch 2.14.1, then 2.15.0 (3 runs)",
        "torch 2.14.1, then <b>9</b> (1 run)",
        "processes 1, then 2 (1 run)",
    ]
    html = render(load_results(tmp_path)).html
    assert "<dt>resumed under</dt><dd>torch 2.14.1, then 2.15.0 (3 runs)</dd>" in html
    assert "<b>9</b>" not in html


def test_the_machine_is_the_one_of_the_first_start(tmp_path: Path) -> None:
    gpu = {**GPU, "cuda": "12.8"}
    path = write_starts(tmp_path, fake_run(POINT), start(0, hardware=gpu, world=8))
    assert machine_of(read(path)) == {**HARDWARE, "GPU": "H100", "CUDA": "12.8", "processes": 8}
    metadata = dict(provenance(load_results(tmp_path).studies[0]))
    assert metadata["hardware"].endswith("GPU H100, CUDA 12.8, processes 8")
    plain = write_run(tmp_path, fake_run(POINT, 1))
    assert machine_of(read(plain)) == HARDWARE
