"""Mirrors runs to wandb, from a process of its own: see `wandb_writer`.

wandb is a copy of the record and never the truth. A run's id there comes from its key, so a run
that is resumed goes on as the same run. Online, wandb sees to that (``resume="allow"``). Offline,
every start writes one more folder ``wandb/offline-run-TIME-ID`` in the run's own, all with the same
id, and ``wandb sync RUN/wandb/offline-run-*`` uploads them in the order of their times, each going
on after the last line of the one before. Both were checked with wandb 0.31 against a stand-in for
its server: 3 epochs and then 2 arrive as 5 lines of one run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.runs import wandb_writer
from convnext_study.runs.metrics import values_of
from convnext_study.runs.records import Epoch, Result, Run

if TYPE_CHECKING:
    pass

PROJECT = "convnext-study"
# Seconds to wait for wandb at the end of a run: a disk answers, a network may not.
PATIENCE = {"offline": 20.0, "online": 5.0}
_ENDED = "its process has ended"
_BACKLOG = 4_000_000  # bytes of messages that wandb's process may leave unread


class WandbMirror:
    """Mirrors one training. Its methods take a moment and never raise.

    Whatever goes wrong is reported to ``warn`` in one line, once; the mirror is then off.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._writer: _Writer | None = None

    def start(self, run: Run, folder: Path, mode: str) -> None:
        """Begin or go on, with wandb's files in ``folder``. Mode ``off`` starts nothing."""
        if mode == "off":
            return
        self._writer = _Writer(mode, self._warn)
        self._writer.start(
            {
                "id": run_id(run),
                "name": run.id,
                "group": run.study,
                "job_type": run.task.name,
                "dir": str(folder),
                "config": {**run.model_dump(mode="json"), "key": run.key},
            }
        )

    def epoch(self, line: Epoch) -> None:
        """Mirror one line of the log."""
        if self._writer:
            values = {**_numbers(line.model_dump(exclude={"event"})), **line.metrics}
            self._writer.send(do="log", step=line.epoch, values=values)

    def finish(self, result: Result) -> None:
        """Mirror the result, and wait a little for wandb to have it."""
        if self._writer:
            values = {
                **_numbers(result.model_dump()),
                **_numbers(result.cost.model_dump()),
                **values_of(result.metrics),
            }
            self._writer.send(do="summary", values=values)
            self._writer.send(do="finish", code=0)
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Leave a run that was stopped or failed; after ``finish`` there is nothing to do."""
        if self._writer:
            self._writer.close()
            self._writer = None


def run_id(run: Run) -> str:
    """A run's id in wandb: the same at every resume, another in another study."""
    return _digest(run.study, run.name, run.key)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


class _Writer:
    """The pipes to a process of `wandb_writer`. No method but ``close`` ever waits."""

    def __init__(self, mode: str, warn: Callable[[str], None]) -> None:
        self._mode = mode
        self._warn = warn
        self._process: subprocess.Popen[bytes] | None = None  # None: not begun, or given up
        self._unsent = b""
        self._heard = b""

    def start(self, init: dict[str, Any]) -> None:
        """Start the process; ``init`` is for ``wandb.init``."""
        # Another process's service and settings for another run are none of this run's.
        foreign = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_MODE")
        env = {name: value for name, value in os.environ.items() if name not in foreign}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", wandb_writer.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env,
                start_new_session=True,  # Ctrl-C is for the training, which ends this in its time
            )
        except OSError as error:
            self._give_up(f"its process cannot be started ({error.strerror})")
            return
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe  # noqa: S101  for the type checker
            os.set_blocking(pipe.fileno(), False)
        project = {} if "WANDB_PROJECT" in env else {"project": PROJECT}
        self.send(do="start", init={**project, "mode": self._mode, "resume": "allow", **init})

    def send(self, **message: Any) -> None:
        """Hand a message over, now or when the process is ready for it."""
        if self._process is None:
            return
        try:
            self._unsent += json.dumps(message).encode() + b"\n"
        except (TypeError, ValueError) as error:
            self._give_up(f"{message['do']} is not plain values ({error})")
        self._exchange()
        if len(self._unsent) > _BACKLOG:
            self._give_up("it does not take in what is logged")

    def close(self) -> None:
        """No more messages. Waits until wandb is through, else leaves it to end by itself."""
        deadline = time.monotonic() + PATIENCE[self._mode]
        while (process := self._process) and process.stdin:
            if time.monotonic() > deadline:
                self._warn("wandb takes long to end (no network?): it tries on in the background")
                self._leave()
            elif self._exchange():
                self._leave()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
            elif not self._unsent and not process.stdin.closed:
                process.stdin.close()
            else:
                time.sleep(0.01)

    def _exchange(self) -> bool:
        """Write and read what can be at once. True when the process says that it is through."""
        finished = self._listen()
        pipe = self._process.stdin if self._process else None
        if pipe and self._unsent:
            try:
                self._unsent = self._unsent[os.write(pipe.fileno(), self._unsent) :]
            except BlockingIOError:
                pass
            except OSError:
                self._give_up(_ENDED)
        return finished

    def _listen(self) -> bool:
        pipe = self._process.stdout if self._process else None
        if pipe is None:
            return False
        try:
            new = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return False
        *lines, self._heard = (self._heard + new).split(b"\n")
        answers = [json.loads(line) for line in lines]
        failed = [answer["reason"] for answer in answers if answer["said"] == "failed"]
        if failed or not new:
            self._give_up(failed[0] if failed else _ENDED)
        return bool(answers) and not failed

    def _give_up(self, reason: str) -> None:
        self._warn(f"wandb is off, and training goes on without it: {reason}")
        self._leave()

    def _leave(self) -> None:
        """Let go of the process: what it reads ends here, and it ends by itself soon after."""
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe and not pipe.closed:
                pipe.close()
        self._process, self._unsent = None, b""
