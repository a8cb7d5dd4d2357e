"""Which records of a study may be averaged: those that differ only in the seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from convnext_study.results.metric_spec import UNNAMED, MetricSpec, spec_of
from convnext_study.runs.files import RUN
from convnext_study.runs.fingerprints import data_of, difference, fingerprint_of
from convnext_study.runs.log import failure
from convnext_study.runs.records import Record, Run

_WHERE = ("in the runs that are counted", "in the runs that are counted")
_MOST_SHOWN = 3  # differences named in a reason


@dataclass(frozen=True, kw_only=True)
class ExcludedRun:
    """A run that is shown but not averaged, and the reason. ``value`` is its metric's, where it
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
    """The records of one name that belong together, by seed, and those excluded.

    ``run`` represents all of them: they share everything that decides a result but the seed.
    ``code`` is what they were made with, from `code_version`; ``origin`` identifies the runs they
    start from, for any seed; ``data_id`` is what they were trained on, from `data_of`, wherever it
    is stored.
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
    """One group per name, in the order of ``requested`` and then of the records.

    Where one name was run with several setups, the requested one is kept, else the one that most of
    the study shares, else the latest. Of its runs those on unchanged data are kept, and of these
    those of one commit, unless ``any_commit``: the data and the commit that most of the study
    shares.
    """
    records = list(records)
    runs_by_key = {run.key: run for run in [*(record.run for record in records), *requested]}
    conditions = Counter(_conditions(record.run) for record in records)
    codes = Counter(map(code_version, records))
    data = Counter(data_of(record) for record in records if fingerprint_of(record))

    def setup(run: Run) -> str:
        """The key of everything but the seed that decides a result, in the run and in the runs it
        starts from; a run outside the study is identified by its own key."""
        return run.model_copy(update={"seed": 0, "init_from": origin(run)}).key

    def origin(run: Run) -> str | None:
        """The setup of the run that a run starts from; None where it starts from none."""
        parent = runs_by_key.get(run.init_from or "")
        return setup(parent) if parent else run.init_from

    def one_group(name: str) -> RunGroup:
        wanted = [run for run in requested if run.name == name]
        by_setup: dict[str, list[Record]] = {}
        for record in records:
            if record.run.name == name:
                by_setup.setdefault(setup(record.run), []).append(record)

        def rank(key: str) -> tuple[int, int, float]:
            own = by_setup[key]
            done = sum(record.status == "done" for record in own)
            return conditions[_conditions(own[0].run)], done, max(map(_requested_at, own))

        kept = setup(wanted[0]) if wanted else max(by_setup, key=rank)
        members = by_setup.pop(kept, [])
        reasons: list[tuple[Record, str]] = []
        # A run that has not started has recorded no data, and stays.
        data_ref = _most_shared(list(filter(fingerprint_of, members)), data_of, data)
        if data_ref:
            changed = [(record, _data_change(record, data_ref)) for record in members]
            reasons += [(record, f"other data: {change}") for record, change in changed if change]
            members = [record for record, change in changed if not change]
        code_ref = None if any_commit else _most_shared(members, code_version, codes)
        code = code_version(code_ref) if code_ref else ""
        other_code = [record for record in members if code not in ("", code_version(record))]
        same_code = [record for record in members if code in ("", code_version(record))]
        members = sorted(same_code, key=_precedence)
        run = wanted[0] if wanted else members[-1].run
        seeds = {record.run.seed: record for record in members}
        reasons += [
            (record, f"seed {record.run.seed} is counted from another folder")
            for record in members
            if seeds[record.run.seed] is not record
        ]
        reasons += [(record, f"{code_version(record)}, not {code}") for record in other_code]
        for record in chain.from_iterable(by_setup.values()):
            change = _data_change(record, data_ref) if data_ref else ""
            reasons.append((record, differences(record.run, run, change)))
        return RunGroup(
            name,
            run,
            dict(sorted(seeds.items())),
            len({*seeds, *(record.seed for record in wanted if setup(record) == kept)}),
            tuple(_excluded(record, reason) for record, reason in reasons),
            code,
            origin(run),
            data_of(data_ref) if data_ref else run.data_identity,
        )

    names = dict.fromkeys(run.name for run in [*requested, *(record.run for record in records)])
    return [one_group(name) for name in names]


def _most_shared(
    members: Sequence[Record], key: Callable[[Record], str], shared: Counter[str]
) -> Record | None:
    """A record whose key most of the study shares, else most of these, else the latest."""
    counts = Counter(map(key, members))

    def rank(record: Record) -> tuple[int, int, float]:
        return shared[key(record)], counts[key(record)], _requested_at(record)

    return max(members, key=rank, default=None)


def _data_change(record: Record, kept: Record) -> str:
    """How a record's data differs from the kept one's, in words."""
    return difference(fingerprint_of(kept), fingerprint_of(record), _WHERE)


def comparable(records: Iterable[Record]) -> list[Record]:
    """The records that the table of rows averages, for other tables of the same runs."""
    records = list(records)
    kept = {id(record) for group_ in group(records) for record in group_.seeds.values()}
    return [record for record in records if id(record) in kept]


def code_version(record: Record) -> str:
    """The code that made a run: ``commit 0123456789``, or the version where there is no commit.

    A ``+`` marks files that differed from the commit. Two such runs count as equal, since the
    difference was not recorded.
    """
    commit = record.manifest.get("commit")
    if commit:
        dirty = "+" if str(commit).endswith("+") else ""
        return f"commit {str(commit).removesuffix('+')[:10]}{dirty}"
    versions = record.manifest.get("versions") or {}
    return f"version {versions.get('convnext-study', 'not recorded')}"


def differences(run: Run, kept: Run, changed: str = "") -> str:
    """How a run differs from the one that was kept: ``recipe epochs: 2, not 10``.

    ``changed`` describes a change in data of the same name.
    """
    texts = []
    for part in ("task", "data", "model", "recipe", "init_from"):
        if part == "data" and run.data_identity == kept.data_identity:
            continue  # wherever it is stored
        if part == "data" and (changed or run.data == kept.data):
            texts.append(f"other data: {changed or 'what lies there has changed'}")
            continue
        own, other = (_flat(part, getattr(each, part)) for each in (run, kept))
        for name in [*own, *(name for name in other if name not in own)]:
            if own.get(name) != other.get(name) and name != "recipe name":
                texts.append(f"{name}: {_as_text(own.get(name))}, not {_as_text(other.get(name))}")
    hidden = len(texts) - _MOST_SHOWN
    return "; ".join(texts[:_MOST_SHOWN]) + (f"; and {hidden} more" if hidden > 0 else "")


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


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _conditions(run: Run) -> str:
    """What rows of one study share: recipe, data, task."""
    return json.dumps([run.recipe, run.data_identity, run.task.model_dump()], sort_keys=True)


def _requested_at(record: Record) -> float:
    path = record.folder / RUN
    return path.stat().st_mtime if path.exists() else 0.0


def _precedence(record: Record) -> tuple[bool, int, float]:
    """Sorts the record to count last: done after unfinished, more epochs after fewer."""
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
    """Runs that disagree with their row, then failed, running, stopped and new ones."""
    excluded = {run.folder: run.reason for group_ in groups for run in group_.excluded}
    reasons = [(run, (progress_of(run), excluded.get(run.folder, ""))) for run in records]
    runs = [_excluded(run, "; ".join(filter(None, own))) for run, own in reasons if any(own)]
    states = ("done", "failed", "running", "unfinished", "new")
    return sorted(runs, key=lambda run: states.index(run.state))


def progress_of(record: Record) -> str:
    """How far an unfinished run is: ``stopped, after epoch 2 of 10``; "" where it is done."""
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
