"""A run's log as it stands in its folder: a line an epoch, and events between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from convnext_study.errors import one_line
from convnext_study.runs.files import LOG, parse_json, read_bytes
from convnext_study.runs.metrics import Count, Plain, Text

EPOCH = "epoch"  # the event of a line an epoch

About = dict[Text, Plain]  # versions, hardware, settings


class Event(BaseModel):
    """A line of the log that is no epoch, as far as anything reads it."""

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
    """The lines of a log. A last line that was cut short by a kill is left out.

    Raises OSError where it is there and cannot be read.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return []
    lines: list[dict[str, Any]] = []
    # By this sign alone: others that end lines, such as U+2028, stand within JSON's texts.
    for text in content.split(b"\n"):
        try:
            line = parse_json(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def read_events(folder: Path) -> list[dict[str, Any]]:
    """What a run's log holds besides epochs, in the order it was written; what is no event is left
    out. Raises OSError."""
    found = []
    for line in read_lines(folder / LOG):
        with contextlib.suppress(ValidationError):
            found += events_of([line])
    return found


def events_of(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines that are no epochs. Raises ValidationError for one that is no `Event`."""
    events = [line for line in lines if line.get("event") != EPOCH]
    for line in events:
        Event.model_validate(line)
    return events


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
        reason = one_line(event.get("reason") or "no reason recorded")
    return reason
