"""The contents of a folder of runs, for a report: studies, their rows, and excluded runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convnext_study.errors import UserError
from convnext_study.results.attribution import Attribution, attributions
from convnext_study.results.effects import RowTests
from convnext_study.results.grouping import ExcludedRun, RunGroup, excluded_runs, group
from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.rows import ResultRow, StudyTitle, shared_metric, study_title
from convnext_study.results.summary import rows_and_tests
from convnext_study.roadmap import ROADMAPS
from convnext_study.runs.records import Record, RecordError, Run, scan

_MOST_IN_FIGURE = 40  # rows; a larger study is shown as a table only


@dataclass(frozen=True)
class StudyResults:
    """The runs of one study: ``groups`` by row, in the order of ``rows``.

    ``kind`` is the runs' ``study_kind`` fact.
    """

    name: str
    kind: str
    rows: list[ResultRow]
    groups: dict[str, RunGroup]
    meta: StudyTitle
    tests: RowTests
    excluded: list[ExcludedRun]

    @property
    def regime(self) -> str | None:
        """The road map that the runs belong to; None for another study."""
        return self.meta.regime if self.meta.regime in ROADMAPS else None

    @property
    def is_road(self) -> bool:
        """Whether the study is a whole road map rather than an ablation of one."""
        return self.regime is not None and all(row.on_road for row in self.rows)

    @property
    def drawn(self) -> bool:
        """Whether its rows are drawn in a figure and have their own curves.

        Sets of steps, which have no order, are a table only.
        """
        ordered = not self.kind or any(row.order is not None for row in self.rows)
        return ordered and len(self.rows) <= _MOST_IN_FIGURE

    @property
    def done(self) -> list[ResultRow]:
        """The rows with a value."""
        return [row for row in self.rows if row.value is not None]

    @property
    def metric(self) -> MetricSpec:
        """The metric of all rows; an unnamed one where they have several."""
        return shared_metric(self.rows)

    @property
    def counted(self) -> list[Record]:
        """The counted records of all rows, in order."""
        return [record for row in self.rows for record in self.records(row.name)]

    def records(self, name: str) -> list[Record]:
        """The counted records of a row, by seed."""
        return list(self.groups[name].seeds.values())


@dataclass(frozen=True)
class StudyFolder:
    """All studies of a folder, road maps first, the errors of ``broken`` records, and attributions
    where the folder has the networks for them.
    """

    path: Path
    studies: list[StudyResults]
    broken: list[RecordError]
    attributions: list[Attribution]

    @property
    def unreadable(self) -> list[ExcludedRun]:
        """The runs whose records are broken."""
        return [
            ExcludedRun(
                run=error.folder.name, folder=error.folder, state="unreadable", reason=error.reason
            )
            for error in self.broken
        ]


def load_results(path: Path, *, any_commit: bool = False) -> StudyFolder:
    """Read every run under a folder. Raises UserError where there is none."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name the folder of a study")
    broken: list[RecordError] = []
    records = list(scan(path, broken))
    if not records and not broken:
        raise UserError(
            f"{path}: contains no runs; name the folder that `roadmap` or `study` wrote"
        )
    by_study: dict[str, list[Record]] = {}
    for record in records:
        by_study.setdefault(record.run.study, []).append(record)
    studies = [make_study(name, runs, any_commit=any_commit) for name, runs in by_study.items()]
    return StudyFolder(
        path,
        sorted(studies, key=lambda study: not study.is_road),
        broken,
        attributions(records, any_commit=any_commit),
    )


def make_study(
    name: str,
    records: Iterable[Record],
    requested: Sequence[Run] = (),
    *,
    any_commit: bool = False,
) -> StudyResults:
    """One study's rows, tests and excluded runs; ``requested`` as in `grouping.group`."""
    records = list(records)
    groups = {
        run_group.name: run_group for run_group in group(records, requested, any_commit=any_commit)
    }
    rows, tests = rows_and_tests(groups.values())
    kinds = [str(row.metadata.get("study_kind", "")) for row in rows]
    return StudyResults(
        name=name,
        kind=max(kinds, key=kinds.count),
        rows=rows,
        groups={row.name: groups[row.name] for row in rows},
        meta=study_title(rows),
        tests=tests,
        excluded=excluded_runs(records, groups.values()),
    )
