"""Writes to wandb what it reads from standard input: a process of its own beside a training.

Run as a script by `wandb_mirror`, so it imports nothing of this package. Whatever wandb does here,
hang, crash, ask for a key, take over signals and exit hooks, the training does not notice.

A message is a line of JSON with ``do``: ``start``, ``log``, ``summary``, ``table``, ``image``,
``finish``. Input that ends without ``finish`` means that the training was cut short. An answer is a
line of JSON on standard output: ``{"said": "finished"}``, or ``failed`` with a ``reason``.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from typing import IO, Any

LAST_SECONDS = 120  # to live after the last message, whatever wandb still does
INTERRUPTED = 1  # exit code of a training that was cut short

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


def main() -> None:
    """Work through the messages; exits the process within `LAST_SECONDS` of the last one."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # wandb may print what it likes
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, messages), daemon=True).start()
    run = None
    try:
        while True:
            message = messages.get()
            run = _do(message, run)
            if message["do"] == "finish":
                break
        _say(answers, said="finished")
    except BaseException as error:  # wandb may raise KeyboardInterrupt and SystemExit too
        _say(answers, said="failed", reason=_reason(error))
        _leave_soon()


def _read(source: IO[str], messages: queue.Queue[dict[str, Any]]) -> None:
    """Take messages in while wandb is busy, and see to it that the process ends after the last."""
    for line in source:
        messages.put(json.loads(line))
    _leave_soon()
    messages.put({"do": "finish", "code": INTERRUPTED})


def _leave_soon() -> None:
    timer = threading.Timer(LAST_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _do(message: dict[str, Any], run: Any) -> Any:
    """Carry out one message and return the run."""
    import wandb

    what = message["do"]
    if what == "start":
        known = getattr(wandb.Settings, "model_fields", {})  # some came with later versions
        settings = {name: value for name, value in SETTINGS.items() if name in known}
        return wandb.init(**message["init"], settings=wandb.Settings(**settings))
    if what == "log":
        # Without commit, wandb keeps a step back until the next one comes.
        run.log(message["values"], step=message["step"], commit=True)
    elif what == "summary":
        run.summary.update(message["values"])
    elif what == "table":
        table = wandb.Table(columns=message["columns"], data=message["data"])
        run.log({message["name"]: table})
    elif what == "image":
        run.log({message["name"]: wandb.Image(message["path"])})
    elif run is not None:
        run.finish(exit_code=message["code"])
    return run


def _say(answers: IO[str], **answer: str) -> None:
    with contextlib.suppress(OSError):  # the training may have gone
        answers.write(json.dumps(answer) + "\n")


def _reason(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return f"wandb cannot be imported: {error}"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


if __name__ == "__main__":
    main()
