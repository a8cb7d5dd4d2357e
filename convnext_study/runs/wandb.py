"""Mirrors runs to wandb or TensorBoard: a process beside the training follows its ``log.jsonl``.

wandb is a copy of the record and never the truth. Whatever it does, hang, crash, ask for a key,
take over signals and exit hooks, it does so in that process (`main`), and the training does not
notice.

A run's id there comes from its key, so a run that is resumed goes on as the same run. Online, wandb
sees to that (``resume="allow"``). Offline, every start writes one more folder
``wandb/offline-run-TIME-ID`` in the run's own, all with the same id, and ``wandb sync
RUN/wandb/offline-run-*`` uploads them in the order of their times, each going on after the last
line of the one before. Both were checked with wandb 0.31 against a stand-in for its server: 3
epochs and then 2 arrive as 5 lines of one run.
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
# Seconds to wait for wandb at the end of a run: a disk answers, a network may not.
PATIENCE = {"offline": 20.0, "online": 5.0, "tensorboard": 20.0}
# Another process's service and settings for another run are none of this run's.
FOREIGN = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_MODE")
LAST_SECONDS = 120  # of wandb's process after the training's end, whatever wandb still does
POLL = 1.0  # seconds between looks at the log
INTERRUPTED = 1  # exit code, in wandb, of a training that was cut short

SETTINGS: dict[str, Any] = {
    # Nothing on the screen, and no code, console, packages or machine details in the files.
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
    # A limit to all waiting, and lines that reach the disk before the next epoch ends.
    "init_timeout": 60,
    "finish_timeout": 60,
    "x_service_wait": 30,
    "x_transaction_log_flush_interval": 1,
    "reinit": "create_new",
}


@contextlib.contextmanager
def mirrored(run: Run, folder: Path, mode: str, warn: Callable[[str], None]) -> Iterator[None]:
    """A process that mirrors what is logged in a run's folder while the block trains it, and for a
    moment longer at its end.

    Args:
        run: what is trained.
        folder: its own; wandb's files go there too.
        mode: ``offline``, ``online``, ``tensorboard``, whose files go to the folder too, or
            ``off``, which starts nothing.
        warn: is told in one line, once, of whatever goes wrong, perhaps from another thread.
    """
    if mode == "off":
        yield
        return
    left = threading.Event()
    listener = alive = None
    try:
        process, alive = _start(run, folder.absolute(), mode)
        given = process, warn, left, name_of(mode)
        listener = threading.Thread(target=_listen, args=given, daemon=True)
        listener.start()
    except (OSError, TypeError, ValueError) as error:
        warn(f"{name_of(mode)} is off, and training goes on without it: {error}")
    try:
        yield
    finally:
        if alive is not None:
            # A forked process that reads images may hold this end too, so closing is not enough.
            with contextlib.suppress(OSError):
                os.write(alive, b".")
            os.close(alive)
        if listener is not None:
            listener.join(PATIENCE[mode])
            if listener.is_alive():
                left.set()
                slow = "takes long to end (no network?): it tries on in the background"
                warn(f"{name_of(mode)} {slow}")


def name_of(mode: str) -> str:
    """Of what runs are mirrored to."""
    return "tensorboard" if mode == "tensorboard" else "wandb"


def run_id(run: Run) -> str:
    """A run's id in wandb: the same at every resume, another in another study."""
    return hashlib.sha256("\n".join((run.study, run.name, run.key)).encode()).hexdigest()[:16]


def _start(run: Run, folder: Path, mode: str) -> tuple[subprocess.Popen[bytes], int]:
    """wandb's process, and a pipe that tells it by its end that this one is through, or killed."""
    env = {name: value for name, value in os.environ.items() if name not in FOREIGN}
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
    old = list(_epochs(folder / LOG))  # what an earlier start has logged, it has mirrored
    task = {"init": init, "log": str(folder / LOG), "result": str(folder / RESULT), "old": old}
    # A file may be of any size, and never waits for a reader.
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
                start_new_session=True,  # Ctrl-C is for the training, which ends this in its time
            )
        except OSError:
            os.close(alive)
            raise
        finally:
            os.close(end)
    return process, alive


def _listen(
    process: subprocess.Popen[bytes], warn: Callable[[str], None], left: threading.Event, name: str
) -> None:
    """Wait for the process, and tell why it ended where it did so badly."""
    said, _ = process.communicate()
    if (said or process.returncode) and not left.is_set():
        reason = said.decode(errors="replace").strip() or "its process has ended"
        warn(f"{name} is off, and training goes on without it: {reason}")


def main() -> None:
    """wandb's process: carry out the task on standard input, and say there what goes wrong."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # wandb may print what it likes
    over = threading.Event()
    threading.Thread(target=_watch, args=(int(sys.argv[1]), over), daemon=True).start()
    try:
        _carry_out(json.load(sys.stdin.buffer), over)
    except BaseException as error:  # wandb may raise KeyboardInterrupt and SystemExit too
        said = (str(error).strip().splitlines() or [""])[0]
        kind = "it cannot be imported" if isinstance(error, ImportError) else type(error).__name__
        with contextlib.suppress(OSError):  # the training may have gone
            answers.write(f"{kind}: {said}" if said else kind)
            answers.close()


def _watch(end: int, over: threading.Event) -> None:
    os.read(end, 1)
    over.set()
    time.sleep(LAST_SECONDS)
    os._exit(1)


class _TensorBoard:
    """What is used of wandb's runs, as TensorBoard's event files in the run's folder."""

    def __init__(self, folder: str) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(Path(folder, "tensorboard")))
        self.summary = self

    def log(self, values: dict[str, float], step: int = 0, commit: bool = True) -> None:
        """Write the numbers of an epoch."""
        for name, value in values.items():
            self._writer.add_scalar(name, float(value), step)
        self._writer.flush()

    def update(self, values: dict[str, float]) -> None:
        """Write the numbers of a result."""
        self.log({f"result/{name}": value for name, value in values.items()})


def _carry_out(task: dict[str, Any], over: threading.Event) -> None:
    if task["init"]["mode"] == "tensorboard":
        _follow(_TensorBoard(task["init"]["dir"]), task, over)
        return
    import wandb

    known = getattr(wandb.Settings, "model_fields", {})  # some came with later versions
    settings = {name: value for name, value in SETTINGS.items() if name in known}
    run = wandb.init(**task["init"], settings=wandb.Settings(**settings))
    run.finish(exit_code=_follow(run, task, over))


def _follow(run: Any, task: dict[str, Any], over: threading.Event) -> int:
    """Mirror epochs as they are logged, then the result. Returns the training's exit code."""
    ended, old = False, set(task["old"])
    while not ended:
        ended = over.wait(POLL)  # before the look: what was logged by then will be seen
        for text, line in _epochs(Path(task["log"])).items():
            if text not in old:
                old.add(text)
                # Without commit, wandb keeps a step back until the next one comes.
                run.log(_numbers(line), step=line["epoch"], commit=True)
    try:
        result = json.loads(Path(task["result"]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return INTERRUPTED
    run.summary.update(_numbers(result))
    return 0


def _epochs(log: Path) -> dict[str, dict[str, Any]]:
    """A log's lines about epochs, by their texts; without one that is still being written."""
    lines = {}
    with contextlib.suppress(OSError):
        for text in log.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if line["event"] == "epoch":
                    lines[text] = line
    return lines


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an epoch or a result; costs of the whole network by their own names."""
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
