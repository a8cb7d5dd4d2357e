"""Mirrors runs to wandb or TensorBoard: a process beside the training follows its ``log.jsonl``.

wandb is a copy of the record, never its source. If wandb hangs, crashes, prompts for a key or
takes over signals and exit hooks, it does so in that process (`main`), and the training is not
affected.

A run's id in wandb comes from its key, so that a resumed run stays the same run. Online, wandb
ensures that (``resume="allow"``). Offline, every start writes another folder
``wandb/offline-run-TIME-ID`` in the run's own, all with the same id, and ``wandb sync
RUN/wandb/offline-run-*`` uploads them in order of time, each continuing after the last line of
the one before. Both were checked with wandb 0.31 against a stand-in for its server: 3 epochs and
then 2 arrive as 5 lines of one run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.runs.files import LOG, RESULT

if TYPE_CHECKING:
    from convnext_study.runs.records import Run

PROJECT = "convnext-study"
# Seconds to wait for wandb at the end of a run; longer for a disk, since a network may not answer.
PATIENCE = {"offline": 20.0, "online": 5.0, "tensorboard": 20.0}
# Variables of another process or another run, which must not apply to this one.
FOREIGN_VARIABLES = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_MODE")
LAST_SECONDS = 120  # of wandb's process after the training's end, whatever wandb still does
POLL = 1.0  # seconds between reads of the log
INTERRUPTED = 1  # exit code, in wandb, of a training that was cut short

SETTINGS: dict[str, Any] = {
    # No output, and no code, console, packages or machine details in the files.
    "silent": True,
    "quiet": True,
    "console": "off",
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "label_disable": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "host": "",
    "symlink": False,
    # Limits on waiting, and lines that are on disk before the next epoch ends.
    "init_timeout": 60,
    "finish_timeout": 60,
    "x_service_wait": 30,
    "x_transaction_log_flush_interval": 1,
    "reinit": "create_new",
}


@contextlib.contextmanager
def mirrored(run: Run, folder: Path, mode: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Starts a process that mirrors a run's log while the block trains it, and waits a moment for
    it at the end.

    Args:
        run: what is trained.
        folder: the run's folder; wandb's files are written there too.
        mode: ``offline``, ``online``, ``tensorboard`` (files in the folder too) or ``off``, which
            starts nothing.
        warn: called once, with one line, if anything goes wrong, perhaps from another thread.
    """
    if mode == "off":
        yield
        return
    late = threading.Event()
    listener = alive = None
    try:
        process, alive = _start(run, folder.absolute(), mode)
        args = process, warn, late, name_of(mode)
        listener = threading.Thread(target=_listen, args=args, daemon=True)
        listener.start()
    except (OSError, TypeError, ValueError) as error:
        warn(f"{name_of(mode)} is off, and training continues without it: {error}")
    try:
        yield
    finally:
        if alive is not None:
            # A forked reader process may have this end open too, so closing is not enough.
            with contextlib.suppress(OSError):
                os.write(alive, b".")
            os.close(alive)
        if listener is not None:
            listener.join(PATIENCE[mode])
            if listener.is_alive():
                late.set()
                note = "takes long to finish (no network?): it keeps trying in the background"
                warn(f"{name_of(mode)} {note}")


def name_of(mode: str) -> str:
    """The name of the service that runs are mirrored to."""
    return "tensorboard" if mode == "tensorboard" else "wandb"


def run_id(run: Run) -> str:
    """A run's id in wandb: the same after a resume, different in another study."""
    return hashlib.sha256("\n".join((run.study, run.name, run.key)).encode()).hexdigest()[:16]


def _start(run: Run, folder: Path, mode: str) -> tuple[subprocess.Popen[bytes], int]:
    """wandb's process, and the end of a pipe that closes when this process is done or killed."""
    env = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
    init = {
        **({} if "WANDB_PROJECT" in env else {"project": PROJECT}),
        "mode": mode,
        "resume": "allow",
        "id": run_id(run),
        "name": run.id,
        "group": run.study,
        "job_type": run.task.name,
        "dir": str(folder),
        "config": {**run.model_dump(mode="json"), "key": run.key},
    }
    old = list(_epochs(folder / LOG))  # an earlier start has mirrored these
    task = {"init": init, "log": str(folder / LOG), "result": str(folder / RESULT), "old": old}
    # A file, since writing a long text to a pipe would wait for its reader.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        json.dump(task, file)
        file.seek(0)
        end, alive = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(end)],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(end,),
                env=env,
                start_new_session=True,  # Ctrl-C is for the training, which ends this process
            )
        except OSError:
            os.close(alive)
            raise
        finally:
            os.close(end)
    return process, alive


def _listen(
    process: subprocess.Popen[bytes], warn: Callable[[str], None], late: threading.Event, name: str
) -> None:
    """Wait for the process, and warn if it failed."""
    output, _ = process.communicate()
    if (output or process.returncode) and not late.is_set():
        reason = output.decode(errors="replace").strip() or "its process ended"
        warn(f"{name} is off, and training continues without it: {reason}")


def main() -> None:
    """wandb's process: carry out the task on standard input; errors go to standard output."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # wandb may print what it likes
    ended = threading.Event()
    threading.Thread(target=_watch, args=(int(sys.argv[1]), ended), daemon=True).start()
    try:
        _carry_out(json.load(sys.stdin.buffer), ended)
    except BaseException as error:  # wandb may raise KeyboardInterrupt and SystemExit too
        message = (str(error).strip().splitlines() or [""])[0]
        kind = "it cannot be imported" if isinstance(error, ImportError) else type(error).__name__
        with contextlib.suppress(OSError):  # the training may have ended
            output.write(f"{kind}: {message}" if message else kind)
            output.close()


def _watch(end: int, ended: threading.Event) -> None:
    os.read(end, 1)
    ended.set()
    time.sleep(LAST_SECONDS)
    os._exit(1)


class _TensorBoard:
    """The used part of wandb's `Run`, for TensorBoard's event files in the run's folder."""

    def __init__(self, folder: str) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(Path(folder, "tensorboard")))
        self.summary = self

    def log(self, values: dict[str, float], step: int = 0, commit: bool = True) -> None:
        """Write an epoch's numbers."""
        for name, value in values.items():
            self._writer.add_scalar(name, float(value), step)
        self._writer.flush()

    def update(self, values: dict[str, float]) -> None:
        """Write a result's numbers."""
        self.log({f"result/{name}": value for name, value in values.items()})


def _carry_out(task: dict[str, Any], ended: threading.Event) -> None:
    if task["init"]["mode"] == "tensorboard":
        _follow(_TensorBoard(task["init"]["dir"]), task, ended)
        return
    import wandb

    supported = getattr(wandb.Settings, "model_fields", {})  # older versions lack some
    settings = {name: value for name, value in SETTINGS.items() if name in supported}
    run = wandb.init(**task["init"], settings=wandb.Settings(**settings))
    run.finish(exit_code=_follow(run, task, ended))


def _follow(run: Any, task: dict[str, Any], ended: threading.Event) -> int:
    """Mirror epochs as they are logged, then the result. Returns the training's exit code."""
    finished, seen = False, set(task["old"])
    while not finished:
        finished = ended.wait(POLL)  # before reading, so that the last lines are not missed
        for text, line in _epochs(Path(task["log"])).items():
            if text not in seen:
                seen.add(text)
                # Without commit, wandb delays a step until the next one.
                run.log(_numbers(line), step=line["epoch"], commit=True)
    try:
        result = json.loads(Path(task["result"]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return INTERRUPTED
    run.summary.update(_numbers(result))
    return 0


def _epochs(log: Path) -> dict[str, dict[str, Any]]:
    """The epochs in a log, by their lines' texts; without one that is still being written."""
    lines = {}
    with contextlib.suppress(OSError):
        for text in log.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if line["event"] == "epoch":
                    lines[text] = line
    return lines


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an epoch or a result; the whole network's costs without a prefix."""
    flat = {**record, **record.get("metrics", {})}
    for part, cost in record.get("costs", {}).items():
        prefix = "" if part == "network" else f"{part}/"
        flat |= {f"{prefix}{name}": value for name, value in cost.items()}
    plain = {
        name: value["value"] if isinstance(value, dict) and "value" in value else value
        for name, value in flat.items()
    }
    return {name: value for name, value in plain.items() if isinstance(value, int | float)}


if __name__ == "__main__":
    main()
