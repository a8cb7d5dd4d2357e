"""What is read of a folder where one record is damaged, or written by a later version."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.fakes import fake_runs, write_run, write_study
from support.runs import make_tiny_run
from typer.testing import CliRunner, Result

from convnext_study.cli import app
from convnext_study.errors import UserError
from convnext_study.experiments.plan import RunCollection
from convnext_study.experiments.study_file import recorded
from convnext_study.launchers.graph import Job
from convnext_study.launchers.worker import train_job
from convnext_study.runs.files import RUN
from convnext_study.runs.folder import RunError, RunFolder
from convnext_study.runs.log import failure
from convnext_study.runs.records import (
    FORMAT,
    RecordError,
    Run,
    describe_unreadable,
    scan,
    unreadable_in,
)
from convnext_study.training.runtime import Runtime

NEWER = f"has format {FORMAT + 1}, which this version cannot read ({FORMAT}); update convnext-study"


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def set_format(folder: Path, run: Run, value: Any) -> Path:
    path = folder / "runs" / run.id / RUN
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": value, "new": {}}))
    return path.parent


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, list[Run]]:
    """Four finished runs of two seeds; one record is of a newer format, one damaged."""
    runs = [run for run in fake_runs(seeds=(0, 1)) if run.name in ("gelu", "layer_norm")]
    write_study(tmp_path, runs)
    set_format(tmp_path, runs[0], FORMAT + 1)
    (tmp_path / "runs" / runs[1].id / RUN).write_bytes(b"\xff{")
    return tmp_path, runs


def test_the_rest_is_read_and_those_are_named(study: tuple[Path, list[Run]]) -> None:
    folder, runs = study
    unreadable: list[RecordError] = []
    assert {one.run.id for one in scan(folder, unreadable)} == {run.id for run in runs[2:]}
    assert {one.folder.name for one in unreadable} == {run.id for run in runs[:2]}
    assert [str(one) for one in unreadable_in(folder)] == [str(one) for one in unreadable]
    newer = next(one for one in unreadable if one.folder.name == runs[0].id)
    assert str(newer) == f"{newer.folder}: {NEWER}"
    assert describe_unreadable([]) is None
    assert describe_unreadable([newer]) == f"one run is left out: {newer}"
    told = describe_unreadable(unreadable)
    assert told is not None and told.startswith("2 runs are left out") and "\n" not in told
    whole = RunCollection(tuple(runs), folder)
    assert {one.run.id for one in whole.records()} == {run.id for run in runs[2:]}
    assert len(whole.ledger()) == 2
    assert set(recorded(folder)) == {run.key for run in runs[2:]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *((f'{{"format": {value}}}', "which this version cannot") for value in ('"2"', 0, 1.5)),
        *((text, "not a readable run record.*; put it back, or") for text in ("[]", "1", "{")),
        (f'{{"format": {FORMAT}, "run": 3}}', "not a readable run record"),
        (f'{{"format": {FORMAT}}}', "not a readable run record"),
        (None, "has a result, but no run.json to describe the run; put it back, or remove"),
    ],
)
def test_a_damaged_record(study: tuple[Path, list[Run]], text: str | None, says: str) -> None:
    folder, runs = study
    path = folder / "runs" / runs[2].id
    if text is None:
        (path / RUN).unlink()
    else:
        (path / RUN).write_text(text)
        with pytest.raises(UserError), RunFolder(path, runs[2]):
            pass
    (told,) = [str(one) for one in unreadable_in(folder) if one.folder == path]
    assert re.search(says, told) and "\n" not in told


def test_a_newer_run_is_not_trained_on(tmp_path: Path) -> None:
    run, other = make_tiny_run(epochs=1), make_tiny_run(epochs=1, lr=1e-3)
    for one in (run, other):
        with RunFolder(tmp_path / "runs" / one.id, one):
            pass
    path = set_format(tmp_path, run, FORMAT + 1)
    before = (path / RUN).read_text()
    jobs = [Job(one, tmp_path / "runs" / one.id, Runtime()) for one in (run, other)]
    ends = [train_job(job, lambda: False)[:2] for job in jobs]
    assert ends == [("failed", f"{path}: {NEWER}"), ("done", "")]
    assert (path / RUN).read_text() == before
    with pytest.raises(RunError), RunFolder(jobs[1].folder, run):
        pass  # and the other check is still made


@pytest.mark.usefixtures("no_figures")
def test_commands_on_the_folder_go_on(study: tuple[Path, list[Run]]) -> None:
    folder, runs = study
    path = folder / "runs" / runs[0].id
    for arguments in (
        ("report", folder, "--out", folder / "out"),
        ("power", "--effect", "1", "--study", folder),
    ):
        done = command(*arguments)
        warned = [line for line in done.stderr.splitlines() if line.startswith("convnext-study: w")]
        assert len(warned) == 1 and "2 runs are left out" in warned[0], done.stderr
        if arguments[0] == "report":
            assert done.exit_code == 0, done.stderr
            page = (folder / "out" / "report.html").read_text()
            assert runs[0].id in page and NEWER in page
    for name in ("eval", "export"):
        done = command(name, path)
        assert isinstance(done.exception, RecordError)
        assert str(done.exception) == f"{path}: {NEWER}"


def test_a_study_of_a_folder_goes_on(tmp_path: Path, trains_here: None) -> None:
    write_run(tmp_path, fake_runs()[0])
    path = set_format(tmp_path, fake_runs()[0], FORMAT + 1)
    given = ("--regime", "nano", "--epochs", "1", "--out", tmp_path, "--recipe", "modern-small")
    done = command("train", "layer_norm", *given, "--batch-size", "512", "--data", "digits")
    assert done.exit_code == 0, done.stderr
    assert f"convnext-study: warning: one run is left out: {path}: {NEWER}" in done.stderr


def test_the_first_process_to_fail_says_why() -> None:
    begun = [{"event": "started"}, {"event": "stopped"}]

    def failed(rank: int | None, reason: str) -> dict[str, Any]:
        about = {} if rank is None else {"rank": rank}
        return {"event": "failed", "reason": reason, **about}

    assert failure([]) is None
    assert failure(begun) is None
    assert failure([*begun, failed(2, "a.jpg"), failed(0, "lost"), failed(1, "lost")]) == "a.jpg"
    # What earlier starts said is over, also where they had not begun.
    assert failure([failed(0, "old"), *begun, failed(0, "new")]) == "new"
    assert failure([*begun, failed(1, "old"), failed(0, "x"), failed(1, "new")]) == "x"
    assert failure([failed(None, "old"), failed(None, "new")]) == "new"
    assert failure([failed(0, "old"), *begun]) is None
