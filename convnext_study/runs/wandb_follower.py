"""A process beside a training that hands its log to wandb: run as a script by `wandb`.

It imports nothing of this package. The task comes on standard input, as `wandb.mirror` describes
it; the end of the training, or its death, as the end of a pipe whose number is the argument; and
what goes wrong leaves on standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

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


def main() -> None:
    """wandb's process: carry out the task on standard input, and say there what goes wrong."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # wandb may print what it likes
    over = threading.Event()
    threading.Thread(target=_wait, args=(int(sys.argv[1]), over), daemon=True).start()
    try:
        _carry_out(json.load(sys.stdin.buffer), over)
    except BaseException as error:  # wandb may raise KeyboardInterrupt and SystemExit too
        _leave_soon()
        with contextlib.suppress(OSError):  # the training may have gone
            answers.write(_reason(error))
            answers.flush()


def _wait(end: int, over: threading.Event) -> None:
    os.read(end, 1)
    over.set()
    _leave_soon()


def _leave_soon() -> None:
    timer = threading.Timer(LAST_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _carry_out(task: dict[str, Any], over: threading.Event) -> None:
    import wandb

    known = getattr(wandb.Settings, "model_fields", {})  # some came with later versions
    settings = {name: value for name, value in SETTINGS.items() if name in known}
    run = wandb.init(**task["init"], settings=wandb.Settings(**settings))
    code = 0
    if "log" in task:
        code = _follow(run, task, over)
    for name, content in task.get("table", {}).items():
        run.log({name: wandb.Table(**content)})
    for name, path in task.get("image", {}).items():
        run.log({name: wandb.Image(path)})
    if summary := task.get("summary"):
        run.summary.update(summary)
    run.finish(exit_code=code)


def _follow(run: Any, task: dict[str, Any], over: threading.Event) -> int:
    """Mirror epochs as they are logged, then the result. Returns the training's exit code."""
    ended, old = False, set(task["old"])
    while not ended:
        ended = over.wait(POLL)  # before the look: what was logged by then will be seen
        for text, line in epochs(Path(task["log"])).items():
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


def epochs(log: Path) -> dict[str, dict[str, Any]]:
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


def _reason(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return f"wandb cannot be imported: {error}"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


if __name__ == "__main__":
    main()
