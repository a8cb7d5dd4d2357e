"""A study's records as rows of numbers."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from convnext_study.records import Record, Result, Run
from convnext_study.results.noise import wilson
from convnext_study.results.report.differences import RowTests, tests_of
from convnext_study.results.setups import Group, LeftOut, group
from convnext_study.roadmap.paper import PaperRow, paper_row


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of a study, over its seeds. What is not known yet is None.

    Accuracies and their deviation are in percent and points; ``interval`` is Wilson's 95 % of the
    test images' choice; ``gain`` is the difference of means to ``parent``, ``significant`` where
    its Holm-adjusted p is 0.05 or less (None: not tested); ``macs`` are of one image;
    ``peak_memory`` is in bytes, the most of all seeds; ``images_per_s`` is training throughput,
    the median over seeds. ``paper_top1`` and ``paper_gflops`` are the paper's, on ImageNet-1K, for
    published rows only. ``number`` counts the study's rows from 1.
    """

    name: str
    label: str
    study: str
    regime: str | None
    section: str | None
    order: int | None
    adopted: bool
    parent: str | None
    data: str
    recipe: str
    epochs: int | None
    seeds: dict[int, float]
    seeds_asked: int
    statuses: dict[str, int]
    top1: float | None = None
    sd: float | None = None
    interval: tuple[float, float] | None = None
    gain: float | None = None
    significant: bool | None = None
    val_images: int | None = None
    macs: int | None = None
    params: int | None = None
    activations: int | None = None
    peak_memory: float | None = None
    images_per_s: float | None = None
    seconds: float | None = None
    paper_top1: float | None = None
    paper_gflops: float | None = None
    left_out: tuple[LeftOut, ...] = ()
    remarks: tuple[str, ...] = ()
    provenance: tuple[dict[str, Any], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    @property
    def state(self) -> str:
        """``done``, or what keeps the row empty: ``failed``, ``running``, ``not run``."""
        if self.top1 is not None:
            return "done"
        for status, word in (("running", "running"), ("failed", "failed")):
            if self.statuses.get(status):
                return word
        return "unfinished" if self.statuses.get("unfinished") else "not run"


def summarize(records: Iterable[Record], asked: Sequence[Run] = ()) -> list[Row]:
    """A row for each name, in the road's order; runs of ``asked`` without a record included.

    Runs of one name that differ in more than the seed are not averaged: see `setups.group`.
    """
    return rows_of(group(records, asked))


def rows_of(grouped: Iterable[Group]) -> list[Row]:
    """A row for each group, in the road's order."""
    return rows_and_tests(grouped)[0]


def rows_and_tests(grouped: Iterable[Group]) -> tuple[list[Row], RowTests]:
    """The rows, and the tests that say which of their gains are significant."""
    groups = {one.name: one for one in grouped}
    rows = {name: _row(one) for name, one in groups.items()}
    compared = [
        _compare(row, rows[row.parent], groups) if row.parent in rows else row
        for row in rows.values()
    ]
    ordered = sorted(compared, key=lambda row: (row.order is None, row.order or 0))
    tests = tests_of(ordered, groups)
    return [
        dataclasses.replace(row, number=number, significant=tests.told(row.name))
        for number, row in enumerate(ordered, 1)
    ], tests


def _row(one: Group) -> Row:
    run, facts = one.run, one.run.facts
    results = {seed: rec.result for seed, rec in one.seeds.items() if rec.result is not None}
    statuses = Counter(record.status for record in one.seeds.values())
    statuses["new"] += one.asked - len(one.seeds)
    paper = _paper(facts)
    return Row(
        name=one.name,
        label=str(facts.get("label", one.name)),
        study=run.study,
        regime=facts.get("regime"),
        section=facts.get("section"),
        order=facts.get("order"),
        adopted=bool(facts.get("adopted", True)),
        parent=facts.get("parent"),
        data=run.data,
        recipe=str(run.recipe.get("name", "")),
        epochs=run.recipe.get("epochs"),
        seeds={seed: result.top1 for seed, result in results.items()},
        seeds_asked=one.asked,
        statuses={name: count for name, count in statuses.items() if count},
        paper_top1=paper.top1 if paper else None,
        paper_gflops=paper.gflops if paper else None,
        left_out=one.left_out,
        provenance=_provenance(one),
        facts=dict(facts),
        **_measured(list(results.values())),
    )


def _measured(results: list[Result]) -> dict[str, Any]:
    if not results:
        return {}
    top1 = statistics.fmean(result.top1 for result in results)
    one = results[0]
    return {
        "top1": top1,
        "sd": statistics.stdev(result.top1 for result in results) if len(results) > 1 else None,
        "interval": wilson(top1, one.val_images) if one.val_images else None,
        "val_images": one.val_images,
        "macs": one.macs,
        "params": one.params,
        "activations": one.activations,
        "peak_memory": _peak_memory(results),
        "images_per_s": statistics.median(result.images_per_s for result in results),
        "seconds": sum(result.seconds for result in results),
    }


def _peak_memory(results: Iterable[Result]) -> float | None:
    """The most bytes that training took, where the runs recorded it."""
    found = [
        value
        for result in results
        for name, value in (result.model_extra or {}).items()
        if "memory" in name and isinstance(value, int | float)
    ]
    return max(found, default=None)


def _compare(row: Row, parent: Row, groups: dict[str, Group]) -> Row:
    """The row with its gain over its parent, or the reason why there is none."""
    if row.top1 is None or parent.top1 is None:
        return row
    mine, its = groups[row.name].run, groups[parent.name].run
    remark = None
    if (row.data, row.val_images) != (parent.data, parent.val_images):
        remark = f"not compared with {parent.name}: other data"
    # A step may change the family of recipes ("training techniques"), but not a setting in it.
    elif mine.recipe.get("family") == its.recipe.get("family") and mine.recipe != its.recipe:
        remark = f"not compared with {parent.name}: other recipe ({parent.recipe})"
    elif groups[row.name].code != groups[parent.name].code:
        remark = f"not compared with {parent.name}: {groups[parent.name].code}"
    if remark:
        return dataclasses.replace(row, remarks=(*row.remarks, remark))
    return dataclasses.replace(row, gain=row.top1 - parent.top1)


def _paper(facts: dict[str, Any]) -> PaperRow | None:
    if not facts.get("published"):
        return None
    return paper_row(str(facts.get("regime")), str(facts.get("step")))


def _provenance(one: Group) -> tuple[dict[str, Any], ...]:
    """Versions, commit and machine of the row's runs, each kind once."""
    seen: dict[str, dict[str, Any]] = {}
    for record in one.seeds.values():
        about: dict[str, Any] = {
            name: value
            for name, value in record.asked.items()
            if name in ("versions", "commit", "machine")
        }
        if about:
            seen.setdefault(json.dumps(about, sort_keys=True), about)
    return tuple(seen.values())
