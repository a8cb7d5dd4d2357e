"""A run's log as it stands in its folder: a line an epoch, and events between them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log. A last line that was cut short by a kill is left out."""
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def read_events(folder: Path) -> list[dict[str, Any]]:
    """What a run's log holds besides epochs, in the order it was written."""
    return [line for line in read_lines(folder / LOG) if line.get("event", "epoch") != "epoch"]


def failure(events: Sequence[dict[str, Any]]) -> str | None:
    """Why a run whose log ends like this failed; None where it did not.

    Each process of a start may say why. The first one's is the cause: the others lost a partner.
    """
    reason, ranks = None, set[int]()
    for event in reversed(events):
        rank = event.get("rank", 0)
        if event.get("event") != "failed" or rank in ranks:  # what an earlier start had to say
            break
        ranks.add(rank)
        reason = str(event.get("reason") or "no reason recorded")
    return reason
