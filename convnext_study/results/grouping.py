"""Which records of a study may be averaged, those that differ in the seed alone, and which not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext_study.results.metric_spec import UNNAMED, MetricSpec, spec_of
from convnext_study.runs.files import RUN
from convnext_study.runs.fingerprints import data_of, difference, fingerprint_of
from convnext_study.runs.log import failure
from convnext_study.runs.records import Record, Run

_THAN = ("in the runs that are counted", "in the runs that are counted")
_SHOWN = 3  # differences named in a reason


@dataclass(frozen=True, kw_only=True)
class ExcludedRun:
    """A run that is shown and not averaged, and why, in words. ``value`` is its metric's, where it
    has one."""

    run: str
    folder: Path
    state: str
    reason: str
    row: str = ""
    seed: int | None = None
    value: float | None = None
    metric: MetricSpec = UNNAMED


@dataclass(frozen=True)
class RunGroup:
    """The records of one name that belong together, by seed, and those left out.

    ``run`` stands for all of them: they share everything that decides a result but the seed.
    ``code`` is what they were made with, as `code_version` words it; ``origin`` tells the runs
    they start from, whatever the seed; ``data_id`` is what they were trained on, as `data_of` has
    it, in whatever place.
    """

    name: str
    run: Run
    seeds: dict[int, Record]
    requested: int  # seeds, with or without a record
    excluded: tuple[ExcludedRun, ...]
    code: str = ""
    origin: str | None = None
    data_id: str = ""


def group(
    records: Iterable[Record], requested: Sequence[Run] = (), *, any_commit: bool = False
) -> list[RunGroup]:
    """One group for each name, in the order of ``requested`` and then of the records.

    Where one name was run in several ways, the requested way is kept, else the one that
    most of the study shares, else the latest. Of the runs of that way those on unchanged data are
    kept, and of these those of one commit, unless ``any_commit``: the data and the commit that most
    of the study shares.
    """
    records = list(records)
    known = {run.key: run for run in [*(record.run for record in records), *requested]}
    shared = Counter(_conditions(record.run) for record in records)
    codes = Counter(map(code_version, records))
    data = Counter(data_of(record) for record in records if fingerprint_of(record))

    def setup(run: Run) -> str:
        """The key of everything that decides a result apart from the seed, the run's own and that
        of the runs it starts from; one that the study does not have is told by its key alone."""
        return run.model_copy(update={"seed": 0, "init_from": origin(run)}).key

    def origin(run: Run) -> str | None:
        """The same of the run that a run starts from; None where it starts from none."""
        parent = known.get(run.init_from or "")
        return setup(parent) if parent else run.init_from

    def one_group(name: str) -> RunGroup:
        wanted = [run for run in requested if run.name == name]
        ways: dict[str, list[Record]] = {}
        for record in records:
            if record.run.name == name:
                ways.setdefault(setup(record.run), []).append(record)

        def rank(way: str) -> tuple[int, int, float]:
            own = ways[way]
            done = sum(record.status == "done" for record in own)
            return shared[_conditions(own[0].run)], done, max(map(_requested_at, own))

        kept = setup(wanted[0]) if wanted else max(ways, key=rank)
        members = ways.pop(kept, [])
        reasons: list[tuple[Record, str]] = []
        # What has not begun has recorded no data, and stays.
        on = _most_shared([one for one in members if fingerprint_of(one)], data_of, data)
        if on:
            changed = [(one, _changed(one, on)) for one in members]
            reasons += [(one, f"other data: {what}") for one, what in changed if what]
            members = [one for one, what in changed if not what]
        by = None if any_commit else _most_shared(members, code_version, codes)
        code = code_version(by) if by else ""
        strangers = [one for one in members if by and code_version(one) != code]
        alike = [one for one in members if not by or code_version(one) == code]
        members = sorted(alike, key=_precedence)
        run = wanted[0] if wanted else members[-1].run
        seeds = {one.run.seed: one for one in members}
        reasons += [
            (one, f"seed {one.run.seed} is counted from another folder")
            for one in members
            if seeds[one.run.seed] is not one
        ]
        reasons += [(one, f"{code_version(one)}, not {code}") for one in strangers]
        for other in (one for others in ways.values() for one in others):
            reasons.append((other, differences(other.run, run, _changed(other, on) if on else "")))
        return RunGroup(
            name,
            run,
            dict(sorted(seeds.items())),
            len({*seeds, *(one.seed for one in wanted if setup(one) == kept)}),
            tuple(_excluded(one, reason) for one, reason in reasons),
            code,
            origin(run),
            data_of(on) if on else run.data_identity,
        )

    names = dict.fromkeys(run.name for run in [*requested, *(one.run for one in records)])
    return [one_group(name) for name in names]


def _most_shared(
    members: Sequence[Record], of: Callable[[Record], str], shared: Counter[str]
) -> Record | None:
    """A record of what most of the study shares, else most of these, else the latest."""
    own = Counter(map(of, members))
    return max(
        members, key=lambda one: (shared[of(one)], own[of(one)], _requested_at(one)), default=None
    )


def _changed(record: Record, kept: Record) -> str:
    """What is other in a record's data than in those of the one that is kept, in words."""
    return difference(fingerprint_of(kept), fingerprint_of(record), _THAN)


def comparable(records: Iterable[Record]) -> list[Record]:
    """The records that the table of rows averages, for other tables of the same runs."""
    given = list(records)
    kept = {id(record) for one in group(given) for record in one.seeds.values()}
    return [record for record in given if id(record) in kept]


def code_version(record: Record) -> str:
    """What a run was made with: ``commit 0123456789``, or the version where there is no commit.

    A ``+`` says that files differed from the commit. Two such runs are taken as alike, since what
    differed was not recorded.
    """
    commit = record.manifest.get("commit")
    if commit:
        dirty = "+" if str(commit).endswith("+") else ""
        return f"commit {str(commit).removesuffix('+')[:10]}{dirty}"
    versions = record.manifest.get("versions") or {}
    return f"version {versions.get('convnext-study', 'not recorded')}"


def differences(run: Run, kept: Run, changed: str = "") -> str:
    """How a run differs from the one that was kept: ``recipe epochs: 2, not 10``.

    ``changed`` says in words what is other in data of the same name.
    """
    found = []
    for part in ("task", "data", "model", "recipe", "init_from"):
        if part == "data" and run.data_identity == kept.data_identity:
            continue  # wherever it lies
        if part == "data" and (changed or run.data == kept.data):
            found.append(f"other data: {changed or 'what lies there has changed'}")
            continue
        mine, its = (_flat(part, getattr(one, part)) for one in (run, kept))
        for name in [*mine, *(name for name in its if name not in mine)]:
            if mine.get(name) != its.get(name) and name != "recipe name":
                found.append(f"{name}: {_word(mine.get(name))}, not {_word(its.get(name))}")
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _flat(part: str, value: Any) -> dict[str, Any]:
    if part == "model":
        return {"builder": value.builder, **{f"model {k}": v for k, v in value.args.items()}}
    if part == "task":
        return {"task": value.name, **{f"task {k}": v for k, v in value.args.items()}}
    if part == "init_from":
        return {"starts from": value and value[:8]}
    if part == "recipe":
        return {f"recipe {k}": v for k, v in value.items()}
    return {part: value}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _conditions(run: Run) -> str:
    """What rows of one study have in common: recipe, data, task."""
    return json.dumps([run.recipe, run.data_identity, run.task.model_dump()], sort_keys=True)


def _requested_at(record: Record) -> float:
    path = record.folder / RUN
    return path.stat().st_mtime if path.exists() else 0.0


def _precedence(record: Record) -> tuple[bool, int, float]:
    """Sorts the record to count last: done before unfinished, further before less far."""
    return record.status == "done", len(record.epochs), _requested_at(record)


def _excluded(record: Record, reason: str) -> ExcludedRun:
    run, result = record.run, record.result
    return ExcludedRun(
        run=run.id,
        folder=record.folder,
        state=record.status,
        reason=reason,
        row=str(run.metadata.get("label", run.name)),
        seed=run.seed,
        value=result.value if result else None,
        metric=spec_of(result.primary, result.metric) if result else UNNAMED,
    )


def excluded_runs(records: Iterable[Record], groups: Iterable[RunGroup]) -> list[ExcludedRun]:
    """What disagrees with its row, then what has failed, runs, has stopped or has not begun."""
    reasons = {left.folder: left.reason for one in groups for left in one.excluded}
    words = [(one, (progress_of(one), reasons.get(one.folder, ""))) for one in records]
    found = [_excluded(one, "; ".join(filter(None, own))) for one, own in words if any(own)]
    states = ("done", "failed", "running", "unfinished", "new")
    return sorted(found, key=lambda one: states.index(one.state))


def progress_of(record: Record) -> str:
    """How far a run without a result is: ``stopped after epoch 2 of 10``; "" where it is done."""
    if record.status == "done":
        return ""
    last = record.epochs[-1] if record.epochs else None
    epochs = last.epochs if last else record.run.recipe.get("epochs", "?")
    where = f"after epoch {last.epoch if last else 0} of {epochs}"
    if record.status == "failed":
        return f"failed {where}: {failure(record.events)}"
    if record.status == "new":
        return "not begun"
    return f"{'running' if record.status == 'running' else 'stopped'}, {where}"
