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

MAY_DIFFER = "may_differ"  # in a run's metadata: what may differ between a row and its parent


def summarize(records: Iterable[Record], requested: Sequence[Run] = ()) -> list[ResultRow]:
    """A row per name, in the road's order, including ``requested`` runs without a record.

    Runs of one name that differ in more than the seed are not averaged: see `grouping.group`.
    """
    return rows_and_tests(group(records, requested))[0]


def rows_and_tests(grouped: Iterable[RunGroup]) -> tuple[list[ResultRow], RowTests]:
    """The rows, and the tests of their gains."""
    groups = {run_group.name: run_group for run_group in grouped}
    rows = _common_decimals({name: _row(run_group) for name, run_group in groups.items()})
    compared = [_compare(row, *_parent_of(row, rows), groups) for row in rows.values()]
    ordered = sorted(compared, key=lambda row: (row.order is None, row.order or 0))
    tests = tests_of(ordered, groups)
    return [
        dataclasses.replace(row, number=number, significant=tests.significant(row.name))
        for number, row in enumerate(ordered, 1)
    ], tests


def _common_decimals(rows: dict[str, ResultRow]) -> dict[str, ResultRow]:
    """The rows with one number of decimals per metric; rows without a value take the study's
    metric."""
    written = {}
    for name, row in rows.items():
        values = [other.value for other in rows.values() if other.metric.name == row.metric.name]
        metric = shared_metric(rows.values()) if row.value is None else row.metric.scaled_to(values)
        written[name] = dataclasses.replace(row, metric=metric)
    return written


def _row(group: RunGroup) -> ResultRow:
    run, metadata = group.run, group.run.metadata
    results = {seed: rec.result for seed, rec in group.seeds.items() if rec.result is not None}
    statuses = Counter(record.status for record in group.seeds.values())
    statuses["new"] += group.requested - len(group.seeds)
    paper = _paper(metadata, {result.primary for result in results.values()})
    return ResultRow(
        name=group.name,
        label=str(metadata.get("label", group.name)),
        study=run.study,
        regime=metadata.get("regime"),
        section=metadata.get("section"),
        order=metadata.get("order"),
        adopted=bool(metadata.get("adopted", True)),
        parent=metadata.get("parent"),
        data=run.data,
        data_id=group.data_id,
        recipe=str(run.recipe.get("name", "")),
        epochs=run.recipe.get("epochs"),
        seeds={seed: result.value for seed, result in results.items()},
        seeds_requested=group.requested,
        statuses={name: count for name, count in statuses.items() if count},
        paper_value=paper.top1 if paper else None,
        paper_gflops=paper.gflops if paper else None,
        excluded=group.excluded,
        provenance=_provenance(group),
        metadata=dict(metadata),
        **_measured(list(results.values())),
    )


def _measured(results: list[Result]) -> dict[str, Any]:
    if not results:
        return {}
    value = statistics.fmean(result.value for result in results)
    first, noise = results[0], image_noise(results)
    return {
        "metric": spec_of(first.primary, first.metric),
        "value": value,
        "std": statistics.stdev(result.value for result in results) if len(results) > 1 else None,
        "interval": noise.interval,
        "interval_method": noise.method,
        "image_groups": noise.groups,
        "resolution": resolution_of(first.metric),
        "metrics": {
            name: statistics.fmean(result.metrics[name].value for result in results)
            for name in first.metrics
            if name != first.primary and all(name in result.metrics for result in results)
        },
        "costs": {name: cost.model_dump(mode="json") for name, cost in first.costs.items()},
        "val_images": first.val_images,
        "macs": first.cost.macs,
        "params": first.cost.params,
        "activations": first.cost.activations,
        "peak_memory": max(
            (result.peak_memory for result in results if result.peak_memory is not None),
            default=None,
        ),
        "images_per_s": statistics.median(result.images_per_s for result in results),
        "train_seconds": sum(result.seconds for result in results),
    }


def _parent_of(row: ResultRow, rows: dict[str, ResultRow]) -> tuple[ResultRow | None, bool]:
    """The row to compare with, its parent or the nearest earlier row of the road that is present,
    and whether a skipped step sets the recipe."""
    if row.parent in rows or row.parent is None:
        return rows.get(row.parent or ""), False
    variants = ROADMAPS[str(row.regime)].variants() if row.on_road else ()
    road = {variant.name: variant for variant in variants}
    name, sets_recipe = row.parent, False
    while name in road and name not in rows:
        step = road[name].step
        sets_recipe = sets_recipe or (step is not None and step.recipe is not None)
        name = road[name].parent or ""
    return rows.get(name), sets_recipe


def _compare(
    row: ResultRow, parent: ResultRow | None, other_recipe: bool, groups: dict[str, RunGroup]
) -> ResultRow:
    """The row with its gain over its parent, or a remark why it has none. ``other_recipe``: a step
    between them sets the recipe."""
    if parent is None:
        return row
    row = dataclasses.replace(row, parent=parent.name)
    if row.value is None or parent.value is None:
        return row
    own_group, parent_group = groups[row.name], groups[parent.name]
    remark = None
    test_images = _test_images(own_group) | _test_images(parent_group)
    if row.data_id != parent.data_id:
        remark = f"not compared with {parent.name}: other data"
    elif len(test_images) > 1:
        counts = " and ".join(map(str, sorted(test_images)))
        remark = f"not compared with {parent.name}: other data ({counts} test images)"
    elif row.metric.name != parent.metric.name:
        remark = f"not compared with {parent.name}: other metric ({parent.metric.label})"
    elif other := _other_setting(own_group, parent_group, other_recipe):
        remark = f"not compared with {parent.name}: {other}"
    elif own_group.code != parent_group.code:
        remark = f"not compared with {parent.name}: {parent_group.code}"
    if remark:
        return dataclasses.replace(row, remarks=(*row.remarks, remark))
    return dataclasses.replace(row, gain=row.metric.sign * (row.value - parent.value))


def _test_images(group: RunGroup) -> set[int]:
    """On how many images its runs were evaluated: without those that could not be read."""
    return {record.result.val_images for record in group.seeds.values() if record.result}


def _other_setting(own: RunGroup, parent: RunGroup, other_recipe: bool) -> str | None:
    """What differs between two rows but must not, in words: recipe, task, or origin.

    A study changes the network. What else may differ from the parent is listed in the row's
    metadata as ``may_differ``: ``recipe``, one of its fields such as ``recipe.epochs``, ``task``,
    ``init_from``.
    """
    declared = own.run.metadata.get(MAY_DIFFER) or ()
    allowed = {declared} if isinstance(declared, str) else set(map(str, declared))
    allowed |= {"recipe"} if other_recipe else set()
    recipes = (own.run.recipe, parent.run.recipe)
    fields = [
        name
        for name in {**recipes[0], **recipes[1]}
        if name != "name" and recipes[0].get(name) != recipes[1].get(name)
    ]
    if "recipe" not in allowed and any(f"recipe.{name}" not in allowed for name in fields):
        return f"other recipe ({recipes[1].get('name', '')})"
    if "task" not in allowed and own.run.task != parent.run.task:
        return f"other task ({parent.run.task.name})"
    if "init_from" not in allowed and own.origin != parent.origin:
        return "it starts from another run" if parent.origin else "it starts from scratch"
    return None


def _paper(metadata: dict[str, Any], metrics: set[str]) -> PublishedRow | None:
    if not metadata.get("published") or not metrics <= {METRIC}:
        return None
    return published_row(str(metadata.get("regime")), str(metadata.get("step")))


def _provenance(group: RunGroup) -> tuple[dict[str, Any], ...]:
    """Versions, commit and machine of the row's runs, without repetitions."""
    distinct: dict[str, dict[str, Any]] = {}
    for record in group.seeds.values():
        facts: dict[str, Any] = {
            name: value
            for name, value in record.manifest.items()
            if name in ("versions", "commit", "hardware")
        }
        if facts:
            distinct.setdefault(json.dumps(facts, sort_keys=True), facts)
    return tuple(distinct.values())
