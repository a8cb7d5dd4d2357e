"""Runs that went on under something else than they began with: what changed, and in how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from convnext_study.report.tables import formatting
from convnext_study.runs.records import Record

# What a start may change without a trace in the numbers.
_NO_MATTER = frozenset({"cores", "workers", "download", "checkpoint_seconds"})
_NAMES = {
    "world_size": "processes",
    "channels_last": "memory layout",
    "micro_batch_size": "micro-batch",
    "grad_checkpointing": "gradient checkpointing",
    "corrupt_images": "bad images",
    "cudnn_benchmark": "cuDNN benchmark",
    "tf32": "TF32",
    "gpu": "GPU",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
}
_LAYOUTS = {True: "channels last", False: "channels first"}
_WORDS = {None: "none", True: "on", False: "off"}
_COMMIT = 10  # digits

Circumstances = dict[str, str]  # what a start was made under, in words; nothing where unknown


def changes(records: Iterable[Record]) -> list[str]:
    """One line for each thing that changed: ``torch 2.14.1, then 2.15.0 (2 runs)``.

    A start whose work was lost, since the next one began no further on, is not counted. Logs
    without circumstances tell of no change.
    """
    found: Counter[str] = Counter()
    for record in records:
        values: dict[str, list[str]] = {}
        # What ``run.json`` says may be of an earlier start than all that left something.
        recorded = {name: value for name, value in record.manifest.items() if value is not None}
        for start in [_in_words(recorded), *_starts(record)]:
            for name, value in start.items():
                before = values.setdefault(name, [])
                if before[-1:] != [value]:
                    before.append(value)
        found.update(f"{name} {', then '.join(all_)}" for name, all_ in values.items() if all_[1:])
    return [f"{text} ({formatting.plural(runs, 'run')})" for text, runs in found.items()]


def machine_of(record: Record) -> dict[str, Any]:
    """What a run began on, its GPU and number of processes included where its log has them."""
    about: dict[str, Any] = dict(record.manifest.get("hardware") or {})
    for event in _kept(record)[:1]:
        if isinstance(event.get("hardware"), Mapping):
            about = dict(event["hardware"])
        if event.get("world_size", 1) != 1:
            about["processes"] = event["world_size"]
    return {_NAMES.get(name, name): value for name, value in about.items()}


def _starts(record: Record) -> list[Circumstances]:
    """Of every start that left something; what another start has and this one not is ``none``."""
    kept = _kept(record)
    starts = [_in_words(one) for one in kept]
    for group in ("versions", "hardware"):
        holders = [
            (start, one[group])
            for start, one in zip(starts, kept, strict=True)
            if isinstance(one.get(group), Mapping)
        ]
        names = dict.fromkeys(name for _, values in holders for name in values)
        for start, _ in holders:
            for name in names:
                if name not in _NO_MATTER:
                    start.setdefault(_NAMES.get(name, name), "none")
    return starts


def _kept(record: Record) -> list[dict[str, Any]]:
    """The events of the starts that left something: the next one began further on."""
    events = [one for one in record.events if one.get("event") in ("started", "resumed")]
    return [
        one
        for one, after in zip(events, [*events, {}][1:], strict=True)
        if _step(after, _step(one, 0) + 1) > _step(one, 0)
    ]


def _in_words(about: Mapping[str, Any]) -> Circumstances:
    """The fields of an event that matter, each with its name and value as a reader knows them."""
    flat: dict[str, Any] = {}
    for group in ("versions", "hardware", "settings"):
        if isinstance(values := about.get(group), Mapping):
            flat.update(values)
    flat.update({name: about[name] for name in ("commit", "world_size") if name in about})
    return {
        _NAMES.get(name, name.replace("_", " ")): _word(name, value)
        for name, value in flat.items()
        if name not in _NO_MATTER
    }


def _word(name: str, value: Any) -> str:
    if name == "commit" and value:
        mark = "+" if str(value).endswith("+") else ""
        return str(value).removesuffix("+")[:_COMMIT] + mark
    if name == "channels_last":
        return _LAYOUTS.get(value, str(value))
    if name == "device":  # which of several like ones does not matter
        return str(value).partition(":")[0]
    return _WORDS[value] if value is None or isinstance(value, bool) else str(value)


def _step(event: Mapping[str, Any], default: int) -> int:
    step = event.get("step", default)
    return step if isinstance(step, int) else default
