"""Any other trainer's command and ours, interleaved."""

from __future__ import annotations

import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from convnext_study.benchmarks.timing import Spread, interleave, ratio, timed
from convnext_study.errors import RunFailed, UserError

# As timm's train.py logs it: "Time: 0.551s,  116.06/s"; and as any log that says "116 images/s".
RATE = r"(\d+(?:\.\d+)?) ?(?:/s|img/s|images/s|samples/s)\b"
LAST_WORDS = 200  # characters of a failed command's output


@dataclass(frozen=True)
class Command:
    """Arguments of a program, where its images/s are found, and whether it is given ``--out``."""

    name: str
    arguments: tuple[str, ...]
    rate: Callable[[str, Path], float | None]
    takes_out: bool = False


def peer(command: str, ours: str, repeats: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Run another trainer's command and ours, interleaved.

    Args:
        command: of the other, split as a shell would but run without one. Its images/s are the
            median of all in its output that look like ``116.06/s``.
        ours: arguments of ``convnext-study``; ``--out`` is added, a new folder each repeat.
        repeats: how often each is run.

    Returns:
        Seconds of each and the ratio (theirs to ours), and images/s where both tell them. The
        two do the same work only if the commands say so.

    Raises:
        UserError: no such program.
        Failed: a command ends with an error; the message has its last words.
    """
    commands = (
        Command("ours", (sys.executable, "-m", "convnext_study", *_split(ours)), _our_rate, True),
        Command("peer", tuple(_split(command)), _logged_rate),
    )
    for one in commands:
        if shutil.which(one.arguments[0]) is None:
            raise UserError(f"--peer: {one.arguments[0]}: no such program")
    return beside(commands, repeats, report)


def beside(
    commands: Sequence[Command], repeats: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """As `peer`, for two commands named ``ours`` and ``peer``."""
    rates: dict[str, list[float | None]] = {one.name: [] for one in commands}
    measures = {one.name: _timed(one, rates[one.name], report) for one in commands}
    runs_a_second = interleave(measures, repeats)
    seconds = {name: [1 / value for value in values] for name, values in runs_a_second.items()}
    found: dict[str, Any] = {
        "commands": {one.name: list(one.arguments) for one in commands},
        "seconds": {name: Spread.of(values).to_dict() for name, values in seconds.items()},
        "time_ratio": ratio(seconds["peer"], seconds["ours"]).to_dict(),
        "rate_ratio": None,
    }
    told = {name: [v for v in values if v is not None] for name, values in rates.items()}
    if all(len(values) == repeats for values in told.values()):
        found["images_per_s"] = {name: Spread.of(v).to_dict() for name, v in told.items()}
        found["rate_ratio"] = ratio(told["ours"], told["peer"]).to_dict()
    return found


def _split(text: str) -> list[str]:
    try:
        arguments = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--peer: {text!r}: {error}") from None
    if not arguments:
        raise UserError("--peer: an empty command")
    return arguments


def _timed(
    command: Command, rates: list[float | None], report: Callable[[str], None]
) -> Callable[[], float]:
    def measure() -> float:
        report(f"{command.name}: {shlex.join(command.arguments)}")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "study"
            added = ("--out", str(out)) if command.takes_out else ()
            run = partial(
                subprocess.run, capture_output=True, text=True, errors="replace", check=False
            )
            done, seconds = timed(lambda: run([*command.arguments, *added]))
            if done.returncode:
                words = " ".join((done.stderr or done.stdout).split())[-LAST_WORDS:]
                raise RunFailed(f"{command.arguments[0]}: ended with {done.returncode}: {words}")
            rates.append(command.rate(done.stdout + done.stderr, out))
        return 1 / seconds

    return measure


def _our_rate(_: str, out: Path) -> float | None:
    from convnext_study.runs.records import scan

    done = [record.result for record in scan(out) if record.result] if out.is_dir() else []
    return statistics.median(result.images_per_s for result in done) if done else None


def _logged_rate(text: str, _: Path) -> float | None:
    found = [float(value) for value in re.findall(RATE, text)]
    return statistics.median(found) if found else None
