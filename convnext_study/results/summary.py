"""A study's records as rows of numbers."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from convnext_study.results.compare import image_noise, resolution_of
from convnext_study.results.effects import RowTests, tests_of
from convnext_study.results.grouping import RunGroup, group
from convnext_study.results.metric_spec import spec_of
from convnext_study.results.rows import ResultRow, shared_metric
from convnext_study.roadmap import ROADMAPS
from convnext_study.roadmap.paper import METRIC, PublishedRow, published_row
from convnext_study.runs.records import Record, Result, Run

MAY_DIFFER = "may_differ"  # a fact of runs: in what a row may differ from its parent


def summarize(records: Iterable[Record], requested: Sequence[Run] = ()) -> list[ResultRow]:
    """A row for each name, in the road's order; runs of ``requested`` without a record included.

    Runs of one name that differ in more than the seed are not averaged: see `grouping.group`.
    """
    return rows_and_tests(group(records, requested))[0]


def rows_and_tests(grouped: Iterable[RunGroup]) -> tuple[list[ResultRow], RowTests]:
    """The rows, and the tests that say which of their gains are significant."""
    groups = {one.name: one for one in grouped}
    rows = _written_alike({name: _row(one) for name, one in groups.items()})
    compared = [_compare(row, *_parent_of(row, rows), groups) for row in rows.values()]
    ordered = sorted(compared, key=lambda row: (row.order is None, row.order or 0))
    tests = tests_of(ordered, groups)
    return [
        dataclasses.replace(row, number=number, significant=tests.significant(row.name))
        for number, row in enumerate(ordered, 1)
    ], tests


def _written_alike(rows: dict[str, ResultRow]) -> dict[str, ResultRow]:
    """The rows with one number of decimals for each metric; those without a value take the
    study's metric."""
    written = {}
    for name, row in rows.items():
        alike = [one.value for one in rows.values() if one.metric.name == row.metric.name]
        metric = shared_metric(rows.values()) if row.value is None else row.metric.scaled_to(alike)
        written[name] = dataclasses.replace(row, metric=metric)
    return written


def _row(one: RunGroup) -> ResultRow:
    run, metadata = one.run, one.run.metadata
    results = {seed: rec.result for seed, rec in one.seeds.items() if rec.result is not None}
    statuses = Counter(record.status for record in one.seeds.values())
    statuses["new"] += one.requested - len(one.seeds)
    paper = _paper(metadata, {result.primary for result in results.values()})
    return ResultRow(
        name=one.name,
        label=str(metadata.get("label", one.name)),
        study=run.study,
        regime=metadata.get("regime"),
        section=metadata.get("section"),
        order=metadata.get("order"),
        adopted=bool(metadata.get("adopted", True)),
        parent=metadata.get("parent"),
        data=run.data,
        data_id=one.data_id,
        recipe=str(run.recipe.get("name", "")),
        epochs=run.recipe.get("epochs"),
        seeds={seed: result.value for seed, result in results.items()},
        seeds_requested=one.requested,
        statuses={name: count for name, count in statuses.items() if count},
        paper_value=paper.top1 if paper else None,
        paper_gflops=paper.gflops if paper else None,
        excluded=one.excluded,
        provenance=_provenance(one),
        metadata=dict(metadata),
        **_measured(list(results.values())),
    )


def _measured(results: list[Result]) -> dict[str, Any]:
    if not results:
        return {}
    value = statistics.fmean(result.value for result in results)
    one, noise = results[0], image_noise(results)
    return {
        "metric": spec_of(one.primary, one.metric),
        "value": value,
        "std": statistics.stdev(result.value for result in results) if len(results) > 1 else None,
        "interval": noise.interval,
        "interval_method": noise.method,
        "image_groups": noise.groups,
        "resolution": resolution_of(one.metric),
        "metrics": {
            name: statistics.fmean(result.metrics[name].value for result in results)
            for name in one.metrics
            if name != one.primary and all(name in result.metrics for result in results)
        },
        "costs": {name: cost.model_dump(mode="json") for name, cost in one.costs.items()},
        "val_images": one.val_images,
        "macs": one.cost.macs,
        "params": one.cost.params,
        "activations": one.cost.activations,
        "peak_memory": max(
            (result.peak_memory for result in results if result.peak_memory is not None),
            default=None,
        ),
        "images_per_s": statistics.median(result.images_per_s for result in results),
        "train_seconds": sum(result.seconds for result in results),
    }


def _parent_of(row: ResultRow, rows: dict[str, ResultRow]) -> tuple[ResultRow | None, bool]:
    """The row to compare with: its parent, or the nearest earlier row of the road that is there,
    and whether a step that was passed over sets the recipe."""
    if row.parent in rows or row.parent is None:
        return rows.get(row.parent or ""), False
    road = {one.name: one for one in ROADMAPS[str(row.regime)].variants()} if row.on_road else {}
    name, recipe = row.parent, False
    while name in road and name not in rows:
        step = road[name].step
        recipe = recipe or (step is not None and step.recipe is not None)
        name = road[name].parent or ""
    return rows.get(name), recipe


def _compare(
    row: ResultRow, parent: ResultRow | None, other_recipe: bool, groups: dict[str, RunGroup]
) -> ResultRow:
    """The row with its gain over another, or the reason why there is none. ``other_recipe``: a
    step between them sets the recipe."""
    if parent is None:
        return row
    row = dataclasses.replace(row, parent=parent.name)
    if row.value is None or parent.value is None:
        return row
    mine, its = groups[row.name], groups[parent.name]
    remark = None
    if (row.data_id, row.val_images) != (parent.data_id, parent.val_images):
        remark = f"not compared with {parent.name}: other data"
    elif row.metric.name != parent.metric.name:
        remark = f"not compared with {parent.name}: other metric ({parent.metric.label})"
    elif other := _other_setting(mine, its, other_recipe):
        remark = f"not compared with {parent.name}: {other}"
    elif mine.code != its.code:
        remark = f"not compared with {parent.name}: {its.code}"
    if remark:
        return dataclasses.replace(row, remarks=(*row.remarks, remark))
    return dataclasses.replace(row, gain=row.metric.sign * (row.value - parent.value))


def _other_setting(mine: RunGroup, its: RunGroup, other_recipe: bool) -> str | None:
    """In what two rows differ and must not, in words: recipe, task, or what they start from.

    The network is what a study changes. In what else a row may differ from its parent its fact
    ``may_differ`` says: ``recipe``, one field of it such as ``recipe.epochs``, ``task``,
    ``init_from``.
    """
    told = mine.run.metadata.get(MAY_DIFFER) or ()
    allowed = {told} if isinstance(told, str) else set(map(str, told))
    allowed |= {"recipe"} if other_recipe else set()
    recipes = (mine.run.recipe, its.run.recipe)
    fields = [
        name
        for name in {**recipes[0], **recipes[1]}
        if name != "name" and recipes[0].get(name) != recipes[1].get(name)
    ]
    if "recipe" not in allowed and any(f"recipe.{name}" not in allowed for name in fields):
        return f"other recipe ({recipes[1].get('name', '')})"
    if "task" not in allowed and mine.run.task != its.run.task:
        return f"other task ({its.run.task.name})"
    if "init_from" not in allowed and mine.origin != its.origin:
        return "it starts from another run" if its.origin else "it starts from scratch"
    return None


def _paper(metadata: dict[str, Any], metrics: set[str]) -> PublishedRow | None:
    if not metadata.get("published") or not metrics <= {METRIC}:
        return None
    return published_row(str(metadata.get("regime")), str(metadata.get("step")))


def _provenance(one: RunGroup) -> tuple[dict[str, Any], ...]:
    """Versions, commit and machine of the row's runs, each kind once."""
    seen: dict[str, dict[str, Any]] = {}
    for record in one.seeds.values():
        about: dict[str, Any] = {
            name: value
            for name, value in record.manifest.items()
            if name in ("versions", "commit", "hardware")
        }
        if about:
            seen.setdefault(json.dumps(about, sort_keys=True), about)
    return tuple(seen.values())
