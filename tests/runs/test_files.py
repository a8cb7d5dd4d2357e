"""Files of runs on any machine: nobody else's are touched, and rights and locales are respected."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from rich.table import Table as Grid
from support.fakes import fake_runs, write_run
from support.runs import make_tiny_run
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.cli.options import print_rich
from convnext_study.errors import UserError, one_line, printable
from convnext_study.experiments.plan import RunCollection
from convnext_study.runs import files
from convnext_study.runs.files import (
    CHECKPOINT,
    LOG,
    RESULT,
    RUN,
    make_within,
    open_to_append,
    parse_json,
    write_json,
)
from convnext_study.runs.folder import RunError, RunFolder
from convnext_study.runs.records import RecordError, read, unreadable_in
from convnext_study.training.loop import train


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_says_who_may_read(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", {})
        open_to_append(tmp_path / "log").close()
    finally:
        os.umask(before)
    for name in ("a.json", "log"):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", [LOG, RUN, RESULT, CHECKPOINT])
def test_a_run_is_not_written_through_links(tmp_path: Path, name: str) -> None:
    victim, run = tmp_path / "victim", make_tiny_run(epochs=1)
    victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(victim)
    with pytest.raises(RunError, match="a link"), RunFolder(tmp_path / "run", run):
        pass
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "tensorboard").symlink_to(tmp_path)
    for folder in ("linked", "foreign"):
        with pytest.raises(RunError, match="is a link"), RunFolder(tmp_path / folder, run):
            pass
    assert victim.read_text() == "mine"
    with pytest.raises(OSError, match="a link or a special file"):
        open_to_append(tmp_path / "run" / name)


def test_a_folder_within_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "tables").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link"):
        make_within(tmp_path, "tables")
    assert make_within(tmp_path, "../a/b", "c").relative_to(tmp_path).parts[1:] == ("c",)


@pytest.mark.parametrize(
    "text", [b"", b"{", b'"\\ud800"', b"[" * 100 + b"]" * 100, b"18446744073709551616", b"\xff"]
)
def test_what_is_no_plain_json(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def test_signs_that_are_not_to_be_read() -> None:
    assert parse_json(b'{"a\\u001b": ["\\u202e", "tab\\t \xc3\xa9"]}') == {
        "a\ufffd": ["\ufffd", "tab\t é"]
    }
    assert printable("a\x00b\x9b") == "a\ufffdb\ufffd"
    assert one_line("a\nb\t\tc  d\u2028\x1b") == "a b c  d\ufffd\ufffd"


def test_a_result_that_cannot_be_read_is_no_result(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    path = tmp_path / "runs" / run.id
    first = train(run, path)
    whole = RunCollection((run,), tmp_path)
    no_number = first.model_dump()
    no_number["metrics"]["top1"]["value"] = float("nan")
    for content in ("", "{", '{"metrics": {}}', json.dumps(no_number)):
        (path / RESULT).write_text(content)
        assert not whole.is_done(run)
        with pytest.raises(RecordError, match=r"\(result.json: .*\); remove it and train again"):
            read(path)
        assert "\n" not in str(unreadable_in(tmp_path)[0])
        again = train(run, path)  # from its checkpoint, which is of its end
        assert again.metrics == first.metrics and whole.is_done(run)


def test_a_folder_that_is_only_to_be_read_shows_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains_here: None
) -> None:
    given = ("--data", "digits", "--regime", "nano", "--out", str(tmp_path), "--epochs", "1")
    command = ("train", "layer_norm", *given, "--batch-size", "512")
    assert CliRunner().invoke(app, command).exit_code == 0
    before = set(tmp_path.rglob("*"))

    def failing(number: int, path: Path, *_: object) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, "write_temporary", partial(failing, errno.EROFS))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "top-1 %" in done.stdout
    assert f"{tmp_path}: cannot be written ({os.strerror(errno.EROFS)})" in done.stderr
    monkeypatch.setattr(files, "write_temporary", partial(failing, errno.ENOSPC))
    assert CliRunner().invoke(app, command).exit_code != 0
    assert before == set(tmp_path.rglob("*"))


def test_another_locale_reads_and_writes_the_same(tmp_path: Path) -> None:
    run = fake_runs()[0]
    named = run.model_copy(update={"metadata": {**run.metadata, "label": "größer → 7×7"}})
    write_run(tmp_path / "study", named)
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}

    def command(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "convnext_study", *words],
            capture_output=True,
            env={**os.environ, **plain},
        )

    done = command("report", str(tmp_path / "study"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "größer → 7×7" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    done = command("report", str(tmp_path / "größer"))
    assert done.returncode == 2 and b"LC_ALL=C.UTF-8" in done.stderr


def test_markup_is_text_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a[/z] [bold]b[/bold] :smile: [link=x]c"
    grid = Grid(title=text, caption=text)
    grid.add_column(text)
    grid.add_row(text)
    print_rich(text, grid)
    assert capsys.readouterr().out.count(text) == 5
