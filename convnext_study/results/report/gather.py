"""What a folder of runs holds, sorted for a report: its studies, their rows, and what is apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext_study.errors import BadRequest
from convnext_study.records import Record, RecordError, scan
from convnext_study.results.attribution import Attribution, attributions
from convnext_study.results.meta import Meta, describe
from convnext_study.results.report.apart import Apart, kept_apart
from convnext_study.results.report.differences import RowTests
from convnext_study.results.setups import Group, group
from convnext_study.results.statistics import Deviation
from convnext_study.results.summary import Row, rows_and_tests
from convnext_study.roadmap import ROADMAPS

_DRAWN = 40  # rows, above which a study is a table and not a road


@dataclass(frozen=True)
class Extras:
    """What a report shows and cannot find in the records; all of it optional.

    Args:
        show: the screen of a row before and after its step, by regime and the row's name; None
            where there is none.
        published: the paper's recipe of each family, as plain fields.
        commands: what to type to get a study again, from its groups.
    """

    show: Callable[[str, str], str | None] = lambda regime, name: None
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    commands: Callable[[list[Group]], list[str]] = lambda groups: []


@dataclass(frozen=True)
class Study:
    """The runs of one study: ``groups`` by row, in the order of ``rows``.

    ``kind`` is the runs' ``study_kind`` fact; ``deviation`` is between seeds, over all rows.
    """

    name: str
    kind: str
    rows: list[Row]
    groups: dict[str, Group]
    meta: Meta
    tests: RowTests
    apart: list[Apart]

    @property
    def regime(self) -> str | None:
        return self.meta.regime if self.meta.regime in ROADMAPS else None

    @property
    def is_road(self) -> bool:
        return self.regime is not None and self.name == f"roadmap-{self.regime}"

    @property
    def drawn(self) -> bool:
        """Whether its rows stand in a figure and have curves of their own.

        Sets of steps, which have no order, are a table.
        """
        ordered = not self.kind or any(row.order is not None for row in self.rows)
        return ordered and len(self.rows) <= _DRAWN

    @property
    def done(self) -> list[Row]:
        return [row for row in self.rows if row.top1 is not None]

    @property
    def deviation(self) -> Deviation | None:
        return self.tests.deviation

    def records(self, name: str) -> list[Record]:
        """The counted records of a row, by seed."""
        return list(self.groups[name].seeds.values())


@dataclass(frozen=True)
class Folder:
    """All studies of a folder, the road maps first, what could not be read, and what steps are
    worth where the folder has the networks for it.
    """

    path: Path
    studies: list[Study]
    unreadable: list[Apart]
    attributions: list[Attribution]


def gather(path: Path, *, any_commit: bool = False) -> Folder:
    """Read every run under a folder. Raises BadRequest where there is none."""
    if not path.is_dir():
        raise BadRequest(f"{path}: no such folder; give the folder of a study")
    records, unreadable = _scan(path)
    if not records and not unreadable:
        raise BadRequest(f"{path}: holds no run; give the folder that `roadmap` or `study` wrote")
    by_study: dict[str, list[Record]] = {}
    for record in records:
        by_study.setdefault(record.run.study, []).append(record)
    studies = [make_study(name, own, any_commit=any_commit) for name, own in by_study.items()]
    return Folder(
        path,
        sorted(studies, key=lambda one: not one.is_road),
        unreadable,
        attributions(records, any_commit=any_commit),
    )


def make_study(name: str, records: Iterable[Record], *, any_commit: bool = False) -> Study:
    """One study's rows, and what may be said of them."""
    records = list(records)
    groups = {one.name: one for one in group(records, any_commit=any_commit)}
    rows, tests = rows_and_tests(groups.values())
    kinds = [str(row.facts.get("study_kind", "")) for row in rows]
    return Study(
        name=name,
        kind=max(kinds, key=kinds.count),
        rows=rows,
        groups={row.name: groups[row.name] for row in rows},
        meta=describe(rows),
        tests=tests,
        apart=kept_apart(records, groups.values()),
    )


def _scan(path: Path) -> tuple[list[Record], list[Apart]]:
    unreadable: list[RecordError] = []
    found = list(scan(path, unreadable))
    return found, [
        Apart(run=one.folder.name, state="unreadable", reason=one.reason) for one in unreadable
    ]
