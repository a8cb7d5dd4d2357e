"""Where a study's numbers come from: versions, machine, data, what changed where runs were resumed,
and recipes beside the paper's."""

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
_TROUBLE = {
    "corrupt_images": "times a training image that cannot be read was replaced by another",
    "corrupt_val_images": "test images that cannot be read were left out",
    "skipped_steps": "steps were skipped, their loss not being finite",
}
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
_COMMIT = 10  # digits

Setting = tuple[str, str, str]  # a field of a recipe, here and in the published one, in words


def provenance(study: StudyResults) -> list[tuple[str, str]]:
    """What the counted runs of a study say of themselves, by name."""
    counted = study.counted
    images = sorted({row.val_images or 0 for row in study.done})
    results = [record.result for record in counted if record.result]
    metadata = [
        ("study", study.name),
        ("data", short_data(study.meta.data)),
        ("test images", " or ".join(f"{count:,}" for count in images)),
        ("runs", f"{len(results)} finished and counted"),
        ("made with", _each(map(code_version, counted))),
        ("versions", _each(_pairs(one.manifest.get("versions")) for one in counted)),
        ("hardware", _each(_pairs(machine_of(one)) for one in counted)),
        ("recipes", ", ".join(dict.fromkeys(row.recipe for row in study.rows if row.recipe))),
    ]
    if results:
        spent = formatting.duration(sum(one.seconds for one in results))
        metadata.insert(
            -1, ("training time", f"{spent} over all runs, those side by side each counted")
        )
    metadata += [("went on under", text) for text in changes(counted)]
    for name, words in _TROUBLE.items():
        if count := sum(getattr(one, name) for one in results):
            metadata.append(("trouble", f"{count} {words}"))
    if any("+" in code_version(record) for record in counted):
        metadata.append(("note", "+ after a commit: files differed from it when the run began"))
    return [(name, value) for name, value in metadata if value]


def _each(values: Iterable[str]) -> str:
    """Every different value, with its number of runs where there are several."""
    found = Counter(filter(None, values))
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({formatting.plural(runs, 'run')})" for value, runs in found.items())


def _pairs(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def recipe_tables(study: StudyResults) -> list[Table[Setting]]:
    """One table for each recipe: what differs from the one that the paper trains its rows with."""
    seen: dict[str, tuple[dict[str, Any], str]] = {}
    for record in study.counted:
        recipe, own = record.run.recipe, str(record.run.metadata.get(RECIPE))
        if own in PUBLISHED:
            seen.setdefault(json.dumps([recipe, own], sort_keys=True), (recipe, own))
    tables = []
    for place, (recipe, own) in enumerate(seen.values(), 1):
        rows = recipe_changes(recipe, PUBLISHED[own].model_dump(mode="json"))
        count = formatting.plural(len(rows), "difference")
        title = f"{recipe.get('name', 'recipe')}: {count} from {_PAPERS.get(own, own)}"
        tables.append(setting_table(f"recipe_{place}", title, rows, ("here", "published")))
    return tables


def recipe_changes(recipe: Mapping[str, Any], other: Mapping[str, Any]) -> list[Setting]:
    """The fields in which two recipes differ, in words."""
    values = [
        (name, formatting.setting(recipe.get(name)), formatting.setting(other.get(name)))
        for name in dict.fromkeys([*other, *recipe])
    ]
    return [one for one in values if one[0] != "name" and one[1] != one[2]]


def setting_table(
    name: str, title: str, rows: list[Setting], heads: tuple[str, str]
) -> Table[Setting]:
    """Fields of a recipe in two forms, under these headings."""
    columns: list[Column[Setting]] = [
        Column("field", "setting", lambda one: one[0].replace("_", " "), "text"),
        Column(heads[0], heads[0], lambda one: one[1], "text"),
        Column(heads[1], heads[1], lambda one: one[2], "text"),
    ]
    return Table(name, title, columns, rows)


def changes(records: Iterable[Record]) -> list[str]:
    """One line for each thing that runs went on under other than before: ``torch 2.14.1, then
    2.15.0 (2 runs)``.

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


def _kept(record: Record) -> list[dict[str, Any]]:
    """The events of the starts that left something: the next one began further on."""
    events = [one for one in record.events if one.get("event") in ("started", "resumed")]
    steps = [one.get("step") or 0 for one in events]
    after = [*steps[1:], max(steps, default=0) + 1]
    return [one for one, step, end in zip(events, steps, after, strict=False) if end > step]


def _starts(record: Record) -> list[dict[str, str]]:
    """Of every start that left something; what another start has and this one not is ``none``."""
    kept = _kept(record)
    starts = [_in_words(one) for one in kept]
    for group in ("versions", "hardware"):
        holders = [
            (start, _in_words({group: one[group]}))
            for start, one in zip(starts, kept, strict=True)
            if isinstance(one.get(group), Mapping)
        ]
        names = dict.fromkeys(name for _, values in holders for name in values)
        for start, _ in holders:
            for name in names:
                start.setdefault(name, "none")
    return starts


def _in_words(about: Mapping[str, Any]) -> dict[str, str]:
    """What a start was made under, each with its name and value as a reader knows them; nothing
    where it is unknown, or does not matter."""
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
        return {True: "channels last", False: "channels first"}.get(value, str(value))
    if name == "device":  # which of several like ones does not matter
        return str(value).partition(":")[0]
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value)
