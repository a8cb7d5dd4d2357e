"""The command line as a user meets it: what it prints, what it writes, how it fails."""

import csv
import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command import Command
from typer.testing import CliRunner

from convnext_study import cli
from convnext_study.data.sources import SOURCES
from convnext_study.runs import files

COMMAND = [sys.executable, "-m", "convnext_study"]
FAST = ["--data", "digits", "--epochs", "1", "--batch-size", "128", "--image-size", "32"]


@pytest.mark.parametrize("words", [["--help"], ["steps"]])
def test_what_answers_at_once_imports_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "convnext_study", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    heavy = {"torch", "timm", "numpy", "scipy", "matplotlib", "sklearn", "wandb"}
    assert not imported & heavy
    assert ("roadmap" if words == ["--help"] else "patchify_stem") in done.stdout


def test_the_version_and_the_help(command: Command) -> None:
    code, out, _ = command("--version")
    assert (code, out.split()[0]) == (0, "convnext-study")
    assert command("-h") == command() == command("--help")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_help_has_examples_that_the_command_takes(
    name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    code, shown, _ = command(name, "--help")
    assert code == 0
    for example in cli.COMMANDS[name][1]:
        assert f"convnext-study {name} {example}".rstrip() in shown
        # The help is shown once all words before it are understood.
        assert CliRunner().invoke(cli.app, [name, *shlex.split(example), "--help"]).exit_code == 0
    if name == "study":
        assert all(source.usage in shown for source in SOURCES.values())
    if name in ("train", "roadmap", "study"):
        assert all(f"─ {part} ─" in shown for part in ("What to train", "Recipe", "Machine"))


@pytest.mark.parametrize("words", [["steps"], ["roadmap", "--help"]])
def test_an_output_that_cannot_be_written_is_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with full.open("w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        code, _, errors = command(*words)
    assert code == 1
    assert errors.startswith("convnext-study: standard output, ")
    assert errors.endswith(": No space left on device\n")


def test_a_full_disk_is_one_line_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    def write(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = tmp_path / "results.json"
    monkeypatch.setattr(cli, "app", lambda *_, **__: files.write_temporary(file, write))
    code, _, errors = command("steps")
    assert (code, errors) == (1, f"convnext-study: {file}: No space left on device\n")


def test_a_closed_output_and_a_reader_that_leaves_are_no_errors() -> None:
    shell = f"set -o pipefail; {' '.join(COMMAND)} steps >&-; {' '.join(COMMAND)} steps | true; :"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_locale_without_the_signs_of_the_tables() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*COMMAND, "steps"], capture_output=True, env={**os.environ, **plain})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"patchify_stem" in done.stdout
    done.stdout.decode("ascii")


def test_an_interrupt_of_the_imports_leaves_with_130() -> None:
    code = (
        "import sys\n"
        "from convnext_study.__main__ import main\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt()); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "convnext-study: stopped\n")


def test_an_interrupt_of_what_cannot_be_resumed_leaves_with_130(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    def interrupted(_: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr("convnext_study.cli.inspect.get_roadmap", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        code, _, errors = command("steps")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, errors) == (130, "convnext-study: stopped\n")


def test_a_small_road_map_and_then_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, trains_here: None
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["roadmap", "--steps", "resnet,kernel_5", "--seeds", "2", *FAST]
    code, out, errors = command(*words)
    assert code == 0, errors
    study = tmp_path / "runs" / "nano-digits"
    with (study / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["resnet", "kernel_5"]
    assert all(row["n"] == "2" and row["std"] for row in rows)
    assert not any(row["paper_value"] for row in rows)
    assert (study / "roadmap.svg").read_text().lstrip().startswith("<?xml")
    assert (study / "roadmap.png").read_bytes().startswith(b"\x89PNG")
    assert "kernel size → 5" in out
    assert "\x1b[" not in out  # plain lines where there is no terminal
    results = json.loads((study / "results.json").read_text())
    logs = {path: path.read_text() for path in study.glob("runs/*/log.jsonl")}
    assert len(logs) == 4
    code, out, errors = command(*words)
    assert (code, "4 done already" in out) == (0, True), errors
    assert json.loads((study / "results.json").read_text()) == results
    assert {path: path.read_text() for path in logs} == logs, "nothing is trained twice"
