"""The study's findings: tables, claims, the anytime curve and the panel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from convnext_study.errors import UserError
from convnext_study.report.findings import Finding, StudyFigure
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import level_interval
from convnext_study.runs.records import Record
from convnext_study.studies.anytime import figures
from convnext_study.studies.anytime.claims import claims_table
from convnext_study.studies.anytime.exit_metrics import (
    Arms,
    at_exit,
    by_arm,
    exit_points,
    exits_of,
    exits_table,
    image_interval,
    result_of,
    with_primary,
)
from convnext_study.studies.anytime.load_checkpointed import exit_milliseconds, first_seed, sweep
from convnext_study.studies.anytime.spec import published

ADAPTIVE = "ca"
AtThreshold: TypeAlias = tuple[float, Record]  # a threshold, and the record with its metrics


def findings(records: Iterable[Record]) -> list[Finding]:
    """Of a study's finished runs, each backbone by itself; nothing of none.

    Networks are used again where their weights are there; where they are not a sentence says so.
    """
    backbones = by_arm(records)
    found: list[Finding] = []
    for backbone, arms in backbones.items():
        end = "" if len(backbones) == 1 else f"_{backbone}"
        found += _of_one(arms, backbone, end)
    return found


def _of_one(arms: Arms, backbone: str, end: str) -> list[Finding]:
    notes: list[str] = []
    times: dict[str, Sequence[float]] = {}
    swept: dict[float, Record] = {}
    shown: list[figures.ImageView] = []
    for arm, records in arms.items():
        run = first_seed(records)
        if run is None:
            notes.append(f"{records[0].run.metadata['label']}: its weights are not here.")
            continue
        try:
            times[arm] = exit_milliseconds(run)
            if arm == ADAPTIVE:
                swept, shown = sweep(run), figures.views(run)
        except UserError as error:
            notes.append(f"{run.run.id}: {error}")
    points = exit_points(arms, times)
    found: list[Finding] = [exits_table(points, backbone, end)]
    if tested := claims_table(arms, end):
        found.append(tested)
    if swept:
        found.append(threshold_table(swept, end))
    curve = figures.curve(points, _last_exits(swept))
    found.append(StudyFigure(f"anytime_curve{end}", f"{figures.CURVE}: {backbone}", curve))
    if shown:
        title = f"{figures.PANEL}: {backbone}"
        found.append(StudyFigure(f"anytime_panel{end}", title, figures.panel(shown, title)))
    return [*found, *notes]


def threshold_table(swept: Mapping[float, Record], end: str = "") -> Table[AtThreshold]:
    """mIoU and MACs of each exit of one trained network at each threshold."""
    first = next(iter(swept.values()))
    exits = exits_of([first])

    def column(name: str, heading: str, exit: int) -> Column[AtThreshold]:
        key = f"{name}_exit{exit}"
        words = f"{heading}, exit {exit}"
        prefixed = name == "macs"
        return Column(key, words, lambda one: _value(one[1], key), prefixed=prefixed)

    def interval(one: AtThreshold) -> tuple[float, float] | None:
        return image_interval(with_primary([one[1]], exits))

    columns: list[Column[AtThreshold]] = [
        Column("threshold", "threshold", lambda one: one[0], format="{:g}".format),
        *(column("miou", "mIoU", exit) for exit in range(1, exits + 1)),
        *(column("macs", "MACs", exit) for exit in range(1, exits + 1)),
        Column("ci", f"95 %, exit {exits}", interval, "interval", format=level_interval),
    ]
    run = first.run
    notes = (
        f"{run.metadata['label']}, seed {run.seed}: trained at "
        f"{published()['mask']['threshold']:g}, evaluated at each. MACs are means over the "
        "validation images. The interval is a bootstrap over images.",
    )
    title = "One trained network at each threshold of confidence"
    return Table(f"anytime_thresholds{end}", title, columns, list(swept.items()), notes=notes)


def _last_exits(swept: Mapping[float, Record]) -> list[tuple[float, float]]:
    """MACs (1e6) and mIoU of the last exit at each threshold."""

    def last(record: Record, name: str) -> float:
        return _value(record, at_exit(name, [record], -1))

    return [(last(one, "macs") / 1e6, last(one, "miou")) for one in swept.values()]


def _value(record: Record, metric: str) -> float:
    return result_of(record).metrics[metric].value
