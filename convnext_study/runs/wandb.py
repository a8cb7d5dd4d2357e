"""Mirrors runs to wandb: a process beside the training that follows its ``log.jsonl``.

wandb is a copy of the record and never the truth. Whatever it does, hang, crash, ask for a key,
take over signals and exit hooks, it does so in that process (`wandb_follower`), and the training
does not notice.

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.runs import wandb_follower
from convnext_study.runs.log import LOG
from convnext_study.runs.records import RESULT

if TYPE_CHECKING:
    from convnext_study.runs.records import Run

PROJECT = "convnext-study"
# Seconds to wait for wandb at the end of a run: a disk answers, a network may not.
PATIENCE = {"offline": 20.0, "online": 5.0}
# Another process's service and settings for another run are none of this run's.
FOREIGN = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_MODE")


@contextlib.contextmanager
def mirrored(run: Run, folder: Path, mode: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Mirror what is logged in a run's folder while the block trains it.

    Args:
        run: what is trained.
        folder: its own; wandb's files go there too.
        mode: ``offline``, ``online``, or ``off``, which starts nothing.
        warn: is told in one line, once, of whatever goes wrong, perhaps from another thread.
    """
    log, result = folder.absolute() / LOG, folder.absolute() / RESULT
    about = {
        "id": run_id(run),
        "name": run.id,
        "group": run.study,
        "job_type": run.task.name,
        "dir": str(folder.absolute()),
        "config": {**run.model_dump(mode="json"), "key": run.key},
    }
    with contextlib.ExitStack() as stack:
        if mode != "off":
            # What an earlier start has logged, it has mirrored.
            old = list(wandb_follower.epochs(log))
            task = {"init": about, "log": str(log), "result": str(result), "old": old}
            stack.enter_context(mirror(task, mode, warn))
        yield


def run_id(run: Run) -> str:
    """A run's id in wandb: the same at every resume, another in another study."""
    return digest(run.study, run.name, run.key)


def digest(*parts: str) -> str:
    """16 hex digits that stand for some texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def mirror(task: dict[str, Any], mode: str, warn: Callable[[str], None]) -> Iterator[None]:
    """A process that hands plain values to wandb during the block; for a moment longer at its end.

    Args:
        task: arguments of ``wandb.init`` as ``init``; the ``log`` to follow, its lines that are
            ``old``, and where the ``result`` will be; or a ``table`` (name to columns and data), an
            ``image`` (name to path) and a ``summary`` (name to number), each where there is one.
        mode: ``offline`` or ``online``.
        warn: as in `mirrored`.
    """
    left = threading.Event()
    ears = alive = None
    try:
        process, alive = _start(task, mode)
        ears = threading.Thread(target=_hear, args=(process, warn, left), daemon=True)
        ears.start()
    except (OSError, TypeError, ValueError) as error:
        warn(f"wandb is off, and training goes on without it: {error}")
    try:
        yield
    finally:
        if alive is not None:
            # A forked process that reads images may hold this end too, so closing is not enough.
            with contextlib.suppress(OSError):
                os.write(alive, b".")
            os.close(alive)
        if ears is not None:
            ears.join(PATIENCE[mode])
            if ears.is_alive():
                left.set()
                warn("wandb takes long to end (no network?): it tries on in the background")


def _start(task: dict[str, Any], mode: str) -> tuple[subprocess.Popen[bytes], int]:
    """wandb's process, and a pipe that tells it by its end that this one is through, or killed."""
    env = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    project = {} if "WANDB_PROJECT" in env else {"project": PROJECT}
    init = {**project, "mode": mode, "resume": "allow", **task["init"]}
    # A file may be of any size, and never waits for a reader.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        json.dump({**task, "init": init}, file)
        file.seek(0)
        end, alive = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", wandb_follower.__file__, str(end)],
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


def _hear(
    process: subprocess.Popen[bytes], warn: Callable[[str], None], left: threading.Event
) -> None:
    """Wait for the process, and tell why it ended where it did so badly."""
    said, _ = process.communicate()
    if (said or process.returncode) and not left.is_set():
        reason = said.decode(errors="replace").strip() or "its process has ended"
        warn(f"wandb is off, and training goes on without it: {reason}")
