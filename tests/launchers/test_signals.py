"""Signals to a pool of trainings, at the worst moments: nothing hangs, nothing is misreported.

The pool is the real one, in processes of its own; only the training is a stand-in, but in the last.
"""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.images import make_folder
from support.runs import make_tiny_run

from convnext_study.launchers.worker import recorded_signals
from convnext_study.runs.files import LOG
from convnext_study.runs.log import read_events
from convnext_study.training import checkpoint_file

SECONDS = 60

# Each process of the pool reads this file again, so the stand-in is in all of them.
SCRIPT = """
    import json, multiprocessing, os, signal, sys, time, types
    from pathlib import Path

    class TrainingInterrupted(Exception):
        pass

    def each_line(function, when=lambda: True):
        # SIGTERM once at every line of Python that runs in there, if there is a handler for it.
        seen = set()
        def trace(frame, event, argument):
            line = frame.f_code, frame.f_lineno
            handled = callable(signal.getsignal(signal.SIGTERM))
            if event == "line" and line not in seen and handled and when():
                seen.add(line)
                signal.raise_signal(signal.SIGTERM)
            return trace
        sys.settrace(trace)
        try:
            return function()
        finally:
            sys.settrace(None)

    def wait(stop):
        while not stop():
            time.sleep(0.01)
        raise TrainingInterrupted

    def train(run, folder, runtime, stop):
        folder.mkdir(parents=True)
        {train}

    {before}

    engine = types.ModuleType("convnext_study.training.loop")
    engine.TrainingInterrupted, engine.train = TrainingInterrupted, train
    sys.modules[engine.__name__] = engine

    from convnext_study.launchers.local import Job, Pool
    from convnext_study.runs.records import Run
    from convnext_study.training.runtime import Runtime

    if __name__ == "__main__":
        runs = [Run.model_validate(run) for run in json.loads(sys.argv[1])]
        jobs = [Job(run, Path(run.name), Runtime()) for run in runs]
        {main}
        print(json.dumps([[one.status, one.reason] for one in outcomes]))
"""


def run_pool(folder: Path, train: str, main: str, before: str = "") -> list[list[str]]:
    """Status and reason of each job, as a program of its own with these parts says.

    ``train`` is the stand-in for a training, ``main`` makes ``outcomes``, and ``before`` is run
    by every process.
    """
    path = folder / "script.py"
    parts = {"train": _indented(train, 1), "main": _indented(main, 1), "before": _indented(before)}
    path.write_text(textwrap.dedent(SCRIPT).format(**parts))
    runs = [
        make_tiny_run().model_copy(update={"name": name}).model_dump(mode="json")
        for name in ("one", "other")
    ]
    command = [sys.executable, str(path), json.dumps(runs)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes)
    try:
        said, errors = process.communicate(timeout=SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    found: list[list[str]] = json.loads(said)
    return found


def _indented(code: str, levels: int = 0) -> str:
    return textwrap.indent(textwrap.dedent(code).strip(), "    " * levels).strip()


BOTH = [["stopped", ""], ["stopped", "not started"]]
# A process that has just started gets it with all of its group.
WHILE_STARTING = """
    Process = multiprocessing.get_context("forkserver").Process
    start = Process.start
    def start_and_stop(self):
        start(self)
        os.killpg(0, signal.SIGTERM)
    Process.start = start_and_stop
    outcomes = Pool(1).run(jobs)
"""
TO_ONE = 'run.name == "one" and os.kill(os.getpid(), signal.SIGTERM); wait(stop)'


@pytest.mark.parametrize(
    ("train", "main", "expected"),
    [
        # A handler that takes the lock which the asking holds waits forever.
        ("each_line(stop); wait(stop)", "outcomes = Pool(1).run(jobs)", BOTH),
        (
            "wait(stop)",
            "outcomes = each_line(lambda: Pool(1).run(jobs))",
            [["stopped", "not started"]] * 2,
        ),
        (
            "wait(stop)",
            "outcomes = each_line(lambda: Pool(1).run(jobs), lambda: jobs[0].folder.exists())",
            BOTH,
        ),
        ("wait(stop)", WHILE_STARTING, BOTH),
        (TO_ONE, "outcomes = Pool(2).run(jobs)", [["stopped", ""]] * 2),
    ],
    ids=["while asking", "from the start", "while training", "while starting", "to one process"],
)
def test_a_signal_at_any_moment_stops_all(
    tmp_path: Path, train: str, main: str, expected: list[list[str]]
) -> None:
    assert run_pool(tmp_path, train, main) == expected


def test_each_process_keeps_its_gpu(tmp_path: Path) -> None:
    train = """
        with open("devices", "a") as file:
            print(os.getpid(), runtime.device, file=file)
        if run.name in ("0", "1", "2"):  # until all three are at work
            while len(Path("devices").read_text().splitlines()) < 3:
                time.sleep(0.01)
    """
    main = """
        runs = [runs[0].model_copy(update={"name": str(number)}) for number in range(9)]
        jobs = [Job(run, Path(run.name), Runtime(device="cuda")) for run in runs]
        outcomes = Pool(3, devices=("cuda:0", "cuda:1")).run(jobs)
    """
    torch = """
        cuda = types.SimpleNamespace(set_device=lambda device: Path("set").write_text(device))
        sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
    """
    found = run_pool(tmp_path, train, main, torch)
    assert [status for status, _ in found] == ["done"] * 9
    lines = [line.split() for line in (tmp_path / "devices").read_text().splitlines()]
    by_process = dict(lines)
    assert sorted(by_process.values()) == ["cuda:0", "cuda:0", "cuda:1"]
    assert all(by_process[process] == device for process, device in lines)


def test_a_process_that_lost_its_gpu_takes_no_other_run(tmp_path: Path) -> None:
    train = """
        (folder / "process").write_text(str(os.getpid()))
        if run.name == "one":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if run.name == "other":
            raise RuntimeError("no such image")
    """
    main = """
        jobs = [Job(run, Path(run.name), Runtime(device="cuda")) for run in runs]
        third = runs[0].model_copy(update={"name": "third"})
        jobs.append(Job(third, Path("third"), jobs[0].runtime))
        outcomes = Pool(1).run(jobs)
    """
    # A stand-in for the GPU: broken by the first run, and in its process only.
    torch = """
        def synchronize(device):
            if Path("one/process").read_text() == str(os.getpid()):
                raise RuntimeError("CUDA error: device-side assert triggered")
        cuda = types.SimpleNamespace(synchronize=synchronize)
        sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
    """
    found = run_pool(tmp_path, train, main, torch)
    assert [status for status, _ in found] == ["failed", "failed", "done"]
    first, other, third = (
        (tmp_path / name / "process").read_text() for name in ("one", "other", "third")
    )
    assert first != other == third


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with recorded_signals() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked == []
            signal.raise_signal(signal.SIGTERM)
            assert asked == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with recorded_signals() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


HANGUP = """
import sys, time
from convnext_study.launchers.worker import recorded_signals
with recorded_signals() as asked:
    print("ready", flush=True)
    while not asked:
        time.sleep(0.01)
    print("what nobody sees", flush=True)
    print("nor this", file=sys.stderr, flush=True)
sys.exit(75)
"""


def test_output_to_a_terminal_that_was_closed_is_dropped() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it may be ignored here
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", HANGUP])  # noqa: S606
    signal.signal(signal.SIGHUP, before)
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 75


def test_killed_and_given_again_a_command_goes_on_and_a_signal_to_all_of_it_saves(
    tmp_path: Path,
) -> None:
    """A command, its training and the process that reads images for it."""
    data, out = make_folder(tmp_path / "data", count=8), tmp_path / "out"
    command = ["train", "layer_norm", "--data", f"folder:{data}", "--recipe", "modern-small"]
    changes = ["--batch-size", "8", "--epochs", "500", "--image-size", "32", "--workers", "1"]

    @contextlib.contextmanager
    def started(event: str) -> Iterator[subprocess.Popen[str]]:
        """The command, once its log has an event."""
        process = subprocess.Popen(
            [sys.executable, "-m", "convnext_study", *command, *changes, "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Tests may run under nohup.
            preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        )
        try:
            deadline = time.monotonic() + 2 * SECONDS
            while not any(event in log.read_text() for log in out.glob(f"runs/*/{LOG}")):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    with started('"epoch"') as process:
        process.kill()
    with started('"resumed"') as process:
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 75, errors
    assert "1 run left; rerun" in errors
    (folder,) = out.glob("runs/*")
    assert [event["event"] for event in read_events(folder)] == ["started", "resumed", "stopped"]
    found = checkpoint_file.load(folder, pytest.fail)
    assert found is not None and found["state"]["step"] > 0
