"""Which records of a study may be averaged, those that differ in the seed alone, and which not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convnext_study.results.metric_spec import UNNAMED, MetricSpec, spec_of
from convnext_study.runs.files import RUN
from convnext_study.runs.fingerprints import data_of, difference, fingerprint_of
from convnext_study.runs.log import failure
from convnext_study.runs.records import Record, Run

_THAN = ("in the runs that are counted", "in the runs that are counted")
_SHOWN = 3  # differences named in a reason


@dataclass(frozen=True)
class Exclusion:
    """A record that is kept out of a row's mean, and why, in words."""

    run: str
    reason: str


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
    excluded: tuple[Exclusion, ...]
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
    wanted: dict[str, list[Run]] = {}
    for run in [*requested, *(record.run for record in records)]:
        wanted.setdefault(run.name, [])
    for run in requested:
        wanted[run.name].append(run)
    study = _Study(
        known={run.key: run for run in [*(record.run for record in records), *requested]},
        shared=Counter(_conditions(record.run) for record in records),
        data=Counter(data_of(record) for record in records if fingerprint_of(record)),
        codes=Counter() if any_commit else Counter(code_version(record) for record in records),
    )
    return [
        _group(name, runs, [one for one in records if one.run.name == name], study)
        for name, runs in wanted.items()
    ]


@dataclass(frozen=True)
class _Study:
    """What the choice among a name's records asks of the whole study."""

    known: Mapping[str, Run]  # by key
    shared: Counter[str]
    data: Counter[str]
    codes: Counter[str]

    def setup(self, run: Run) -> str:
        """The key of everything that decides a result apart from the seed, the run's own and that
        of the runs it starts from; one that the study does not have is told by its key alone."""
        return run.model_copy(update={"seed": 0, "init_from": self.origin(run)}).key

    def origin(self, run: Run) -> str | None:
        """The same of the run that a run starts from; None where it starts from none."""
        parent = self.known.get(run.init_from or "")
        return self.setup(parent) if parent else run.init_from


def _group(name: str, requested: list[Run], records: list[Record], study: _Study) -> RunGroup:
    by_setup: dict[str, list[Record]] = {}
    for record in records:
        by_setup.setdefault(study.setup(record.run), []).append(record)

    def rank(one: str) -> tuple[int, int, float]:
        members = by_setup[one]
        return (
            study.shared[_conditions(members[0].run)],
            sum(member.status == "done" for member in members),
            max(_requested_at(member) for member in members),
        )

    kept = study.setup(requested[0]) if requested else max(by_setup, key=rank)
    members = by_setup.pop(kept, [])
    data, members, left_out = _one_data(members, study.data)
    code, members, strangers = _one_code(members, study.codes)
    members = sorted(members, key=_precedence)
    run = requested[0] if requested else members[-1].run
    seeds = {member.run.seed: member for member in members}
    left_out += [
        Exclusion(member.run.id, f"seed {member.run.seed} is counted from another folder")
        for member in members
        if seeds[member.run.seed] is not member
    ]
    left_out += [Exclusion(one.run.id, f"{code_version(one)}, not {code}") for one in strangers]
    for other in (one for others in by_setup.values() for one in others):
        changed = _changed(other, data) if data else ""
        left_out.append(Exclusion(other.run.id, differences(other.run, run, changed)))
    all_seeds = {*seeds, *(one.seed for one in requested if study.setup(one) == kept)}
    return RunGroup(
        name,
        run,
        dict(sorted(seeds.items())),
        len(all_seeds),
        tuple(left_out),
        code,
        study.origin(run),
        data_of(data) if data else run.data_identity,
    )


def _one_data(
    members: list[Record], shared: Counter[str]
) -> tuple[Record | None, list[Record], list[Exclusion]]:
    """A record of the data that is kept, the members on it, and the others.

    What has not begun has recorded no data, and stays.
    """
    begun = [member for member in members if fingerprint_of(member)]
    if not begun:
        return None, members, []
    own = Counter(data_of(member) for member in begun)
    kept = max(begun, key=lambda one: (shared[data_of(one)], own[data_of(one)], _requested_at(one)))
    changed = [_changed(member, kept) for member in members]
    pairs = list(zip(members, changed, strict=True))
    return (
        kept,
        [member for member, what in pairs if not what],
        [Exclusion(member.run.id, f"other data: {what}") for member, what in pairs if what],
    )


def _changed(record: Record, kept: Record) -> str:
    """What is other in a record's data than in those of the one that is kept, in words."""
    return difference(fingerprint_of(kept), fingerprint_of(record), _THAN)


def _one_code(members: list[Record], codes: Counter[str]) -> tuple[str, list[Record], list[Record]]:
    """The code that is kept, its records, and the others. Without ``codes`` all are kept."""
    if not codes or not members:
        return "", members, []
    own = Counter(code_version(member) for member in members)
    kept = max(own, key=lambda code: (codes[code], own[code], code))
    parts: tuple[list[Record], list[Record]] = ([], [])
    for member in members:
        parts[code_version(member) != kept].append(member)
    return kept, *parts


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
        if not reason:
            continue
        run, result = record.run, record.result
        found.append(
            ExcludedRun(
                run=run.id,
                state=record.status,
                reason=reason,
                row=str(run.metadata.get("label", run.name)),
                seed=run.seed,
                value=result.value if result else None,
                metric=spec_of(result.primary, result.metric) if result else UNNAMED,
            )
        )
    states = ("done", "failed", "running", "unfinished", "new")
    return sorted(found, key=lambda one: states.index(one.state))


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
