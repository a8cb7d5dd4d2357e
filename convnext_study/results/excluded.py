"""Runs that no mean counts: unfinished, failed, or made otherwise than the rest; and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from convnext_study.results.grouping import Exclusion, RunGroup
from convnext_study.results.metric_spec import UNNAMED, MetricSpec, spec_of
from convnext_study.runs.log import failure
from convnext_study.runs.records import Record


@dataclass(frozen=True, kw_only=True)
class ExcludedRun:
    """A run that is shown and not averaged. ``value`` is its metric's, where it has one."""

    run: str
    state: str
    reason: str
    row: str = ""
    seed: int | None = None
    value: float | None = None
    metric: MetricSpec = UNNAMED


def excluded_runs(records: Iterable[Record], groups: Iterable[RunGroup]) -> list[ExcludedRun]:
    """What disagrees with its row, then what has failed, runs, has stopped or has not begun."""
    reasons: dict[str, list[Exclusion]] = {}
    counted: set[int] = set()
    for one in groups:
        for left in one.excluded:
            reasons.setdefault(left.run, []).append(left)
        counted |= {id(record) for record in one.seeds.values()}
    found = []
    for record in records:
        reason = ""
        if id(record) not in counted and reasons.get(record.run.id):
            reason = reasons[record.run.id].pop().reason
        if record.status != "done":
            reason = "; ".join(part for part in (progress_of(record), reason) if part)
        if reason:
            found.append(_excluded(record, reason))
    states = ("done", "failed", "running", "unfinished", "new")
    return sorted(found, key=lambda one: states.index(one.state))


def _excluded(record: Record, reason: str) -> ExcludedRun:
    run, result = record.run, record.result
    return ExcludedRun(
        run=run.id,
        state=record.status,
        reason=reason,
        row=str(run.metadata.get("label", run.name)),
        seed=run.seed,
        value=result.value if result else None,
        metric=spec_of(result.primary, result.metric) if result else UNNAMED,
    )


def progress_of(record: Record) -> str:
    """How far a run without a result is: ``stopped after epoch 2 of 10``."""
    last = record.epochs[-1] if record.epochs else None
    epochs = last.epochs if last else record.run.recipe.get("epochs", "?")
    where = f"after epoch {last.epoch if last else 0} of {epochs}"
    if record.status == "failed":
        return f"failed {where}: {failure(record.events)}"
    if record.status == "new":
        return "not begun"
    return f"{'running' if record.status == 'running' else 'stopped'}, {where}"
