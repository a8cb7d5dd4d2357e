"""The command line as a user meets it: what it prints, what it writes, how it fails."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from convnext_study import cli
from convnext_study.cli import main
from convnext_study.runs import files

COMMAND = [sys.executable, "-m", "convnext_study"]
FAST = ["--data", "digits", "--epochs", "1", "--batch-size", "128"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_steps_lists_the_road_without_torch() -> None:
    code = (
        "import sys, convnext_study.cli as c\n"
        "sys.argv = ['convnext-study', 'steps']\n"
        "try: c.main()\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "print(sorted({'torch', 'timm', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "patchify_stem" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "convnext_study", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = ("torch", "timm", "numpy", "scipy", "matplotlib", "sklearn", "wandb")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & set(heavy)
    for command in ("steps", "show", "cost", "train", "roadmap"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "gellu"], "did you mean gelu?"),
        (["steps", "--regime", "x"], "no such road map"),
        (["roadmap", "--steps", "nope"], "no such step"),
        (["roadmap", "--seeds", "none"], "seeds: 'none'"),
        (["roadmap", "--data", "folder:/nowhere/at/all"], "/nowhere/at/all: no such folder"),
        (["roadmap", "--recipe", "moderne"], "did you mean modern"),
        (["train", "gelu", "--device", "tpu"], "device: 'tpu' is not on this machine"),
        (["train", "gelu", "--wandb", "maybe"], "wandb: 'maybe'"),
        (["train", "gelu", "--out", "/proc/nowhere"], "/proc/nowhere"),
        (["stps"], "No such command 'stps'. Did you mean 'steps'?; see"),
        (["cost", "--verfy"], "--verify"),
        (["train"], "Missing argument 'step'; see"),
        (["train", "gelu", "--epochs", "0"], "Invalid value for '--epochs'"),
        (["steps", "--regime"], "'--regime' requires an argument"),
        (["bench", "--out", "/proc/nowhere"], "/proc/nowhere: cannot be written"),
        (["eval", "."], "holds no run; name the folder of one run"),
    ],
)
def test_a_bad_request_is_one_line_and_code_2(
    tmp_path: Path,
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["convnext-study", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    error = capfd.readouterr().err
    assert left.value.code == 2, error
    assert says in error
    assert len(error.splitlines()) == 1, error
    assert error.startswith("convnext-study: ")


def test_a_bad_request_ends_the_process_with_code_2() -> None:
    done = run("show", "gellu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean gelu?" in done.stderr


def test_without_a_command_the_help_is_shown() -> None:
    done = run()
    assert done.returncode == 0
    assert "roadmap" in done.stdout


@pytest.mark.parametrize("command", ["steps", "cost"])
def test_an_output_that_cannot_be_written_is_one_line(command: str) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with full.open("w") as output:
        done = subprocess.run(
            [*COMMAND, command], stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "convnext-study: standard output: No space left on device\n"


@pytest.mark.parametrize("file", ["results.json", None])
def test_a_file_on_a_full_disk_is_not_called_standard_output(
    tmp_path: Path, file: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def full(*_: object, **__: object) -> None:
        def write(_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        files.write_temporary(tmp_path / file, write) if file else write(None)

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    where = tmp_path / file if file else "a file or device"
    assert capsys.readouterr().err == f"convnext-study: {where}: No space left on device\n"


def test_a_closed_output_and_a_reader_that_leaves_are_no_errors() -> None:
    shell = f"set -o pipefail; {' '.join(COMMAND)} steps >&-; {' '.join(COMMAND)} steps | true; :"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_locale_without_the_signs_of_the_tables() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*COMMAND, "steps"], capture_output=True, env={**os.environ, **plain}, check=False
    )
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "convnext-study: stopped\n")


def test_an_interrupt_of_what_cannot_be_resumed_leaves_with_130() -> None:
    code = (
        "import os, signal, time, convnext_study.cli as c, convnext_study.cli.inspect as i\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "i.get_roadmap = lambda *_: (os.kill(os.getpid(), signal.SIGINT), time.sleep(60))\n"
        "import sys; sys.argv = ['convnext-study', 'steps']; c.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "convnext-study: stopped\n")


def test_one_step_and_then_the_same_again(tmp_path: Path) -> None:
    command = ["train", "depthwise_conv", *FAST, "--out", "study"]
    first = run(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "study" / "results.json").read_text())
    assert [row["name"] for row in rows["rows"]] == ["depthwise_conv"]
    (log,) = (tmp_path / "study" / "runs").glob("*/log.jsonl")
    before = log.read_text()
    again = run(*command, cwd=tmp_path)
    assert again.returncode == 0
    assert "1 done already" in again.stdout
    assert json.loads((tmp_path / "study" / "results.json").read_text()) == rows
    assert log.read_text() == before, "nothing is trained twice"


def test_a_small_road_map(tmp_path: Path) -> None:
    done = run(
        "roadmap", "--steps", "resnet,patchify_stem,kernel_5", "--seeds", "2", *FAST, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    study = tmp_path / "runs" / "nano-digits"
    with (study / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["resnet", "patchify_stem", "kernel_5"]
    assert all(row["n"] == "2" and row["std"] for row in rows)
    assert not any(row["paper_value"] for row in rows)
    assert (study / "roadmap.svg").read_text().lstrip().startswith("<?xml")
    assert (study / "roadmap.png").read_bytes().startswith(b"\x89PNG")
    assert "not significant" in " ".join(done.stdout.split())
    assert "\x1b[" not in done.stdout  # plain lines where there is no terminal


def test_killed_and_given_again_it_goes_on(tmp_path: Path) -> None:
    command = [*COMMAND, "roadmap", "--steps", "patchify_stem,layer_norm", "--epochs", "4"]
    command += ["--data", "digits"]
    command += ["--batch-size", "128", "--out", "study", "--jobs", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        log = tmp_path / "study" / "runs"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            logs = "".join(path.read_text() for path in log.glob("*/log.jsonl"))
            if logs.count('"epoch", "epoch": 2') >= 1:
                break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = "".join(path.read_text() for path in log.glob("*/log.jsonl"))
    assert '"event": "resumed"' in events


def test_an_interrupt_leaves_with_75(tmp_path: Path) -> None:
    command = [*COMMAND, "train", "layer_norm", "--epochs", "500", "--out", "study"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        log = tmp_path / "study" / "runs"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any(
            '"epoch"' in path.read_text() for path in log.glob("*/log.jsonl")
        ):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "rerun the same command to resume" in errors
