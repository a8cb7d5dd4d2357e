"""Where a study's numbers come from: versions, machine, data, changes where runs were resumed, and
recipes beside the paper's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from convnext_study.recipes import PUBLISHED
from convnext_study.report.tables import Column, Table, formatting
from convnext_study.results.grouping import code_version
from convnext_study.results.load import StudyResults
from convnext_study.results.rows import short_data
from convnext_study.results.subset_results import RECIPE
from convnext_study.runs.records import Record

_PAPERS = {
    "modern": "Table 5 of the paper, EMA off",
    "classic": "torchvision's 90-epoch recipe, behind the paper's 76.13 % row",
}
_PROBLEMS = {
    "corrupt_images": "times an unreadable training image was replaced by another",
    "corrupt_val_images": "unreadable test images were left out",
    "skipped_steps": "steps were skipped because of a non-finite loss",
}
# Settings that do not affect the numbers.
_IRRELEVANT = frozenset({"cores", "workers", "download", "checkpoint_seconds"})
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
_COMMIT = 10  # digits

Setting = tuple[str, str, str]  # a field of a recipe, and both values in words


def provenance(study: StudyResults) -> list[tuple[str, str]]:
    """The provenance of a study's counted runs, as names and texts."""
    counted = study.counted
    images = sorted({row.val_images or 0 for row in study.done})
    results = [record.result for record in counted if record.result]
    metadata = [
        ("study", study.name),
        ("data", short_data(study.meta.data)),
        ("test images", " or ".join(f"{count:,}" for count in images)),
        ("runs", f"{len(results)} finished and counted"),
        ("made with", _distinct(map(code_version, counted))),
        ("versions", _distinct(_joined(record.manifest.get("versions")) for record in counted)),
        ("hardware", _distinct(_joined(machine_of(record)) for record in counted)),
        ("recipes", ", ".join(dict.fromkeys(row.recipe for row in study.rows if row.recipe))),
    ]
    if results:
        total = formatting.duration(sum(record.seconds for record in results))
        metadata.insert(
            -1, ("training time", f"{total} in total, with parallel runs counted separately")
        )
    metadata += [("resumed under", text) for text in changes(counted)]
    for name, problem in _PROBLEMS.items():
        if count := sum(getattr(record, name) for record in results):
            metadata.append(("trouble", f"{count} {problem}"))
    if any("+" in code_version(record) for record in counted):
        metadata.append(
            ("note", "+ after a commit: files differed from the commit when the run began")
        )
    return [(name, value) for name, value in metadata if value]


def _distinct(values: Iterable[str]) -> str:
    """The distinct values, with their numbers of runs where there are several."""
    counts = Counter(filter(None, values))
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({formatting.plural(n, 'run')})" for value, n in counts.items())


def _joined(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def recipe_tables(study: StudyResults) -> list[Table[Setting]]:
    """One table per recipe: its differences from the one that the paper uses for the same rows."""
    recipes: dict[str, tuple[dict[str, Any], str]] = {}
    for record in study.counted:
        recipe, name = record.run.recipe, str(record.run.metadata.get(RECIPE))
        if name in PUBLISHED:
            recipes.setdefault(json.dumps([recipe, name], sort_keys=True), (recipe, name))
    tables = []
    for i, (recipe, name) in enumerate(recipes.values(), 1):
        rows = recipe_changes(recipe, PUBLISHED[name].model_dump(mode="json"))
        count = formatting.plural(len(rows), "difference")
        title = f"{recipe.get('name', 'recipe')}: {count} from {_PAPERS.get(name, name)}"
        tables.append(setting_table(f"recipe_{i}", title, rows, ("here", "published")))
    return tables


def recipe_changes(recipe: Mapping[str, Any], other: Mapping[str, Any]) -> list[Setting]:
    """The fields in which two recipes differ, in words."""
    values = [
        (name, formatting.setting(recipe.get(name)), formatting.setting(other.get(name)))
        for name in dict.fromkeys([*other, *recipe])
    ]
    return [field for field in values if field[0] != "name" and field[1] != field[2]]


def setting_table(
    name: str, title: str, rows: list[Setting], headings: tuple[str, str]
) -> Table[Setting]:
    """Fields of a recipe in two forms, under these headings."""
    columns: list[Column[Setting]] = [
        Column("field", "setting", lambda row: row[0].replace("_", " "), "text"),
        Column(headings[0], headings[0], lambda row: row[1], "text"),
        Column(headings[1], headings[1], lambda row: row[2], "text"),
    ]
    return Table(name, title, columns, rows)


def changes(records: Iterable[Record]) -> list[str]:
    """One line per change between the starts of a run: ``torch 2.14.1, then 2.15.0 (2 runs)``.

    A start whose work was lost, since the next one began no further on, is not counted. Logs
    without this information show no change.
    """
    counts: Counter[str] = Counter()
    for record in records:
        values: dict[str, list[str]] = {}
        # ``run.json`` may describe an earlier start than all kept ones.
        recorded = {name: value for name, value in record.manifest.items() if value is not None}
        for start in [_readable(recorded), *_start_settings(record)]:
            for name, value in start.items():
                seen = values.setdefault(name, [])
                if seen[-1:] != [value]:
                    seen.append(value)
        counts.update(f"{name} {', then '.join(seen)}" for name, seen in values.items() if seen[1:])
    return [f"{text} ({formatting.plural(runs, 'run')})" for text, runs in counts.items()]


def machine_of(record: Record) -> dict[str, Any]:
    """The machine on which a run began, with GPU and number of processes where its log has them."""
    machine: dict[str, Any] = dict(record.manifest.get("hardware") or {})
    for event in _kept_starts(record)[:1]:
        if isinstance(event.get("hardware"), Mapping):
            machine = dict(event["hardware"])
        if event.get("world_size", 1) != 1:
            machine["processes"] = event["world_size"]
    return {_NAMES.get(name, name): value for name, value in machine.items()}


def _kept_starts(record: Record) -> list[dict[str, Any]]:
    """The events of the starts whose work was kept, since the next one began further on."""
    events = [event for event in record.events if event.get("event") in ("started", "resumed")]
    steps = [event.get("step") or 0 for event in events]
    ends = [*steps[1:], max(steps, default=0) + 1]
    return [event for event, step, end in zip(events, steps, ends, strict=False) if end > step]


def _start_settings(record: Record) -> list[dict[str, str]]:
    """The settings of every kept start, ``none`` for those that only another start has."""
    events = _kept_starts(record)
    starts = [_readable(event) for event in events]
    for group in ("versions", "hardware"):
        recorded = [
            (start, _readable({group: event[group]}))
            for start, event in zip(starts, events, strict=True)
            if isinstance(event.get(group), Mapping)
        ]
        names = dict.fromkeys(name for _, values in recorded for name in values)
        for start, _ in recorded:
            for name in names:
                start.setdefault(name, "none")
    return starts


def _readable(event: Mapping[str, Any]) -> dict[str, str]:
    """A start's versions, hardware and settings, with readable names and values, without those
    that are unknown or irrelevant."""
    flat: dict[str, Any] = {}
    for group in ("versions", "hardware", "settings"):
        if isinstance(values := event.get(group), Mapping):
            flat.update(values)
    flat.update({name: event[name] for name in ("commit", "world_size") if name in event})
    return {
        _NAMES.get(name, name.replace("_", " ")): _readable_value(name, value)
        for name, value in flat.items()
        if name not in _IRRELEVANT
    }


def _readable_value(name: str, value: Any) -> str:
    if name == "commit" and value:
        mark = "+" if str(value).endswith("+") else ""
        return str(value).removesuffix("+")[:_COMMIT] + mark
    if name == "channels_last":
        return {True: "channels last", False: "channels first"}.get(value, str(value))
    if name == "device":  # which of several equal ones is irrelevant
        return str(value).partition(":")[0]
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value)
