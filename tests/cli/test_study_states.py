"""``study`` in every state that it can end in: the exit code says which, whatever was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.command import Command, Ended
from support.fakes import fake_run, write_run

from convnext_study.cli import run_study
from convnext_study.experiments.plan import RunCollection
from convnext_study.experiments.roadmap_runs import DEFAULT_DATA
from convnext_study.experiments.study_file import (
    find_study,
    load_study,
    make_context,
    named_studies,
)
from convnext_study.launchers import Launcher
from convnext_study.launchers.graph import Job, Outcome
from convnext_study.launchers.local import Local
from convnext_study.launchers.slurm.submit import Slurm
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.files import RUN, write_json
from convnext_study.runs.records import Run

CODES = {"stopped": 75, "failed": 1, "submitted": 0}
Study = Callable[..., Ended]
OWN = """
from convnext_study.experiments.context import Context


def runs(context):
    return context.runs(["resnet", "gelu"])


def report(records, context):
    return f"gelu had {next(one for one in records if one.run.name == 'gelu').result.value:.1f} %"
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Study:
    """`study NAME` whose trainings all end with one status."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.toml").write_text("minutes = 10\n")

    def ended(name: str, status: str, *options: str) -> Ended:
        def run(_: Launcher, jobs: Sequence[Job], *__: object) -> list[Outcome]:
            return [Outcome(job.run, status, "for a reason") for job in jobs]

        for kind in (Local, Slurm):
            monkeypatch.setattr(kind, "run", run)
        slurm = ["--launcher", "slurm", "--cluster", "cluster.toml", "--no-wait"]
        how = slurm if status == "submitted" else []
        return command("study", name, "--out", "study", *how, *options)

    return ended


def asked(path: Path) -> list[Run]:
    """What the command requests of a study, each run once."""
    file = load_study(path)
    context = make_context(file, None, data=file.data or DEFAULT_DATA)
    return list({run.key: run for run in file.runs(context)}.values())


# The others are like these, or have tests of their own.
OFTEN = {"leave_one_out", "agreement", "beyond", "multipath"}


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=() if name in OFTEN else pytest.mark.exhaustive)
            for name in sorted(names)
        ],
    )


@each(named_studies())
def test_nothing_done(name: str, study: Study, tmp_path: Path) -> None:
    for status in CODES if name == "beyond" else ("stopped",):
        code, out, errors = study(name, status)
        assert code == CODES[status], errors
        assert "written" not in out, "of nothing there are no findings"
        assert "needed" not in errors
    assert not list(tmp_path.glob("study/*.json"))


@each(named_studies().keys() - {"anytime"})
def test_every_second_run_done(name: str, study: Study, tmp_path: Path) -> None:
    runs = asked(find_study(name))
    parents = {run.init_from for run in runs}  # which would need a checkpoint
    for run in [run for run in runs if run.key not in parents][1::2]:
        path = write_run(tmp_path / "study", run, result={"val_images": 1000}) / RUN
        path.with_name("last.ckpt").touch()
        sizes = {"classes": 10, "train": {"images": 1010}, "val": {"images": 787}}
        write_json(path, {**json.loads(path.read_text()), "data": sizes})
    code, out, errors = study(name, "stopped")
    assert code == CODES["stopped"], errors
    assert "no run is finished" not in out


def test_findings_that_lack_a_run_do_not_hide_how_it_ended(study: Study, tmp_path: Path) -> None:
    """A report that counts on runs which are not there yet fails; with all there it is wrong."""
    (tmp_path / "own.py").write_text(OWN)
    first, last = asked(tmp_path / "own.py")
    write_run(tmp_path / "study", first)
    for status, code in CODES.items():
        found, _, errors = study("own.py", status)
        assert found == code
        assert "no findings yet: own.py: report(): line 10: StopIteration" in errors
    write_run(tmp_path / "study", last)
    code, out, errors = study("own.py", "stopped")
    assert (code, errors) == (0, "")
    assert "gelu had" in out
    (tmp_path / "own.py").write_text(OWN.replace("'gelu'", "'glu'"))
    assert study("own.py", "stopped")[0] == 2


def test_an_interrupt_before_the_first_training_can_be_resumed(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_study, "plan", interrupted)
    assert study("beyond", "stopped")[0] == 75
    assert study("beyond", "stopped", "--dry-run")[0] == 130, "there is nothing to resume"


def test_networks_of_another_road_in_the_folder_are_no_rows(tmp_path: Path) -> None:
    same: dict[str, Any] = {"name": "x", "epochs": 9, "global_batch_size": 64}
    rows = [("nano", "kernel_7"), ("nano", "gelu"), ("t", "gelu")]
    runs = [fake_run(get_roadmap(road).variant(name), **same) for road, name in rows]
    for run in runs:
        write_run(tmp_path / "study", run)
    run_study._show(RunCollection(tuple(runs[2:]), tmp_path / "study"))
    (row,) = json.loads((tmp_path / "study" / "results.json").read_text())["rows"]
    assert (row["regime"], row["gain"]) == ("t", None)
