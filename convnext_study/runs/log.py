"""Reads a run's log: one line per epoch, and events between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from convnext_study.errors import one_line
from convnext_study.runs.files import LOG, parse_json, read_bytes
from convnext_study.runs.metrics import Count, Plain, Text

EPOCH = "epoch"  # the event of an epoch's line

About = dict[Text, Plain]  # versions, hardware, settings


class Event(BaseModel):
    """A line of the log other than an epoch, with the fields that are read."""

    model_config = ConfigDict(extra="allow", strict=True)

    event: Text
    rank: Count = 0
    reason: str | None = None
    text: str | None = None  # of a warning
    step: Count | None = None
    world_size: Count = 1
    commit: Text | None = None
    versions: About | Plain = None
    hardware: About | Plain = None
    settings: About | Plain = None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; none if it does not exist. A truncated last line is left out.

    Raises OSError if it exists and cannot be read.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return []
    lines: list[dict[str, Any]] = []
    # Not splitlines: JSON texts may contain other line ends, such as U+2028.
    for text in content.split(b"\n"):
        try:
            line = parse_json(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events in a run's log, in the order they were written; invalid lines are left out.
    Raises OSError."""
    events = []
    for line in read_lines(folder / LOG):
        with contextlib.suppress(ValidationError):
            events += events_of([line])
    return events


def events_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines that are not epochs. Raises ValidationError for one that is not an `Event`."""
    events = [line for line in lines if line.get("event") != EPOCH]
    for line in events:
        Event.model_validate(line)
    return events


def failure(events: Sequence[dict[str, Any]]) -> str | None:
    """Why a run failed, by the events at the end of its log; None if it did not.

    Each process of a start may log a reason. The first one is the cause: others lost a partner.
    """
    reason, ranks = None, set[int]()
    for event in reversed(events):
        rank = event.get("rank", 0)
        if event.get("event") != "failed" or rank in ranks:  # of an earlier start
            break
        ranks.add(rank)
        reason = one_line(event.get("reason") or "no reason recorded")
    return reason
