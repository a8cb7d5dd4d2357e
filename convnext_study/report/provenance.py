"""Where a study's numbers come from: versions, machine, data, and recipes beside the paper's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from convnext_study.report.resume_changes import changes, machine_of
from convnext_study.report.tables import Column, Table, formatting
from convnext_study.results.grouping import code_version
from convnext_study.results.load import ReportOptions, StudyResults
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


class _Setting(NamedTuple):
    """A field of a recipe, here and in the published one, in words."""

    field: str
    here: str
    published: str


_COLUMNS: list[Column[_Setting]] = [
    Column("field", "setting", lambda one: one.field.replace("_", " "), "text"),
    Column("here", "here", lambda one: one.here, "text"),
    Column("published", "published", lambda one: one.published, "text"),
]


@dataclass(frozen=True)
class Provenance:
    """``metadata`` are names and values; ``recipes`` tables of what differs from the published."""

    metadata: list[tuple[str, str]]
    recipes: list[Table[_Setting]]
    commands: list[str]


def provenance(study: StudyResults, options: ReportOptions) -> Provenance:
    """What the counted runs of a study say of themselves."""
    counted = [record for row in study.rows for record in study.records(row.name)]
    metadata = [
        ("study", study.name),
        ("data", short_data(study.meta.data)),
        (
            "test images",
            " or ".join(f"{n:,}" for n in sorted({r.val_images or 0 for r in study.done})),
        ),
        ("runs", f"{sum(record.status == 'done' for record in counted)} finished and counted"),
        ("made with", _each(counted, code_version)),
        ("versions", _each(counted, lambda one: _pairs(one.manifest.get("versions")))),
        ("hardware", _each(counted, lambda one: _pairs(machine_of(one)))),
        ("training time", _time(counted)),
        ("recipes", ", ".join(dict.fromkeys(row.recipe for row in study.rows if row.recipe))),
    ]
    metadata += [("went on under", text) for text in changes(counted)]
    metadata += [("trouble", text) for text in _trouble(counted)]
    if any("+" in code_version(record) for record in counted):
        metadata.append(("note", "+ after a commit: files differed from it when the run began"))
    return Provenance(
        metadata=[(name, value) for name, value in metadata if value],
        recipes=_recipes(counted, options.published),
        commands=options.commands(list(study.groups.values())),
    )


def _each(records: Iterable[Record], about: Any) -> str:
    """Every different value, with its number of runs where there are several."""
    found: dict[str, int] = {}
    for record in records:
        value = about(record)
        if value:
            found[value] = found.get(value, 0) + 1
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({formatting.plural(runs, 'run')})" for value, runs in found.items())


def _pairs(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _time(records: Iterable[Record]) -> str:
    seconds = [record.result.seconds for record in records if record.result]
    if not seconds:
        return ""
    return f"{formatting.duration(sum(seconds))} over all runs, those side by side each counted"


def _trouble(records: Iterable[Record]) -> list[str]:
    """What the runs got over, summed over all of them."""
    results = [record.result for record in records if record.result]
    sums = {name: sum(getattr(one, name) for one in results) for name in _TROUBLE}
    return [f"{count} {_TROUBLE[name]}" for name, count in sums.items() if count]


def _recipes(
    records: Iterable[Record], published: Mapping[str, Mapping[str, Any]]
) -> list[Table[_Setting]]:
    """One table for each recipe: what differs from the one that the paper trains its rows with."""
    seen: dict[str, tuple[Mapping[str, Any], str]] = {}
    for record in records:
        recipe, own = record.run.recipe, str(record.run.metadata.get(RECIPE))
        if own in published:
            seen.setdefault(json.dumps([recipe, own], sort_keys=True), (recipe, own))
    return [
        _changes(recipe, own, published[own], place)
        for place, (recipe, own) in enumerate(seen.values(), 1)
    ]


def _changes(
    recipe: Mapping[str, Any], own: str, paper: Mapping[str, Any], place: int
) -> Table[_Setting]:
    fields = [*paper, *(name for name in recipe if name not in paper)]
    rows = [
        _Setting(name, here, published)
        for name in fields
        for here, published in ((_word(recipe.get(name)), _word(paper.get(name))),)
        if name != "name" and here != published
    ]
    source = _PAPERS.get(own, own)
    count = formatting.plural(len(rows), "difference")
    title = f"{recipe.get('name', 'recipe')}: {count} from {source}"
    return Table(f"recipe_{place}", title, _COLUMNS, rows)


def _word(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return f"{value:g}"
    return value if isinstance(value, str) else ", ".join(map(str, value))
