"""One run to train, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done``, ``failed`` or ``stopped``, and why in one line."""

    run: Run
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """What a process is sent: plain values only."""

    run: Run
    folder: Path
    runtime: Runtime
    wandb: str = "off"
