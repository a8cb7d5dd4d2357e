"""The study's findings: tables, claims, the anytime curve and the panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TypeAlias

from convnext_study.errors import UserError
from convnext_study.report.findings import Finding, StudyFigure
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import level_interval
from convnext_study.runs.records import Record
from convnext_study.studies.anytime import figures
from convnext_study.studies.anytime.arm_exits import (
    ACCURACIES,
    EXIT_NOTES,
    LAST,
    ArmExit,
    Arms,
    all_exits,
    claims_table,
    exit_columns,
)
from convnext_study.studies.anytime.load_checkpointed import exit_milliseconds, first_seed, sweep

ADAPTIVE = "ca"
AtThreshold: TypeAlias = tuple[float, ArmExit]  # a threshold, and the network's last exit at it


def findings(records: Iterable[Record]) -> list[Finding]:
    """Of a study's finished runs, each backbone by itself; nothing of none.

    Networks are used again where their weights are there; where they are not a sentence says so.
    """
    backbones: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record.result is not None:
            about = record.run.metadata
            arms = backbones.setdefault(str(about["backbone"]), {})
            arms.setdefault(str(about["row"]), []).append(record)
    found: list[Finding] = []
    for backbone, arms in backbones.items():
        found += _of_one(arms, backbone, "" if len(backbones) == 1 else f"_{backbone}")
    return found


def _of_one(arms: Arms, backbone: str, end: str) -> list[Finding]:
    notes: list[str] = []
    times: dict[str, Sequence[float]] = {}
    swept: list[AtThreshold] = []
    shown: list[figures.ImageView] = []
    for arm, records in arms.items():
        run = first_seed(records)
        if run is None:
            notes.append(f"{records[0].run.metadata['label']}: its weights are not here.")
            continue
        try:
            times[arm] = exit_milliseconds(run)
            if arm == ADAPTIVE:
                swept = [(at, ArmExit([one], LAST)) for at, one in sweep(run).items()]
                shown = figures.views(run)
        except UserError as error:
            notes.append(f"{run.run.id}: {error}")
    exits = all_exits(arms, times)
    title = f"Every exit of every arm: {backbone}"
    found: list[Finding] = [
        Table(f"anytime_exits{end}", title, exit_columns(exits[0].accuracy), exits, EXIT_NOTES)
    ]
    if tested := claims_table(arms, end):
        found.append(tested)
    if swept:
        found.append(threshold_table(swept, end))
    curve = figures.curve(exits, [one for _, one in swept])
    found.append(StudyFigure(f"anytime_curve{end}", f"{figures.CURVE}: {backbone}", curve))
    if shown:
        title = f"{figures.PANEL}: {backbone}"
        found.append(StudyFigure(f"anytime_panel{end}", title, figures.panel(shown, title)))
    return [*found, *notes]


def threshold_table(swept: Sequence[AtThreshold], end: str = "") -> Table[AtThreshold]:
    """Accuracy and MACs of each exit of one trained network at each threshold."""
    network = swept[0][1]

    def at_exit(one: AtThreshold, name: str, exit: int) -> float:
        return ArmExit(one[1].records, exit).mean(name)

    columns: list[Column[AtThreshold]] = [
        Column("threshold", "threshold", lambda one: one[0], format="{:g}".format)
    ]
    for name, words in ((network.accuracy, ACCURACIES[network.accuracy]), ("macs", "MACs")):
        for exit in range(1, network.exits + 1):
            value = partial(at_exit, name=name, exit=exit)
            about = (f"{name}_exit{exit}", f"{words}, exit {exit}", value)
            columns.append(Column(*about, prefixed=name == "macs"))
    last, title = f"95 %, exit {network.exits}", "One trained network at each threshold"
    columns.append(
        Column("ci", last, lambda one: one[1].interval, "interval", format=level_interval)
    )
    note = f"{network.label}, seed {network.records[0].run.seed}: trained at one of them, evaluated"
    note += " at each. MACs: means over the validation images. The interval: bootstrap over images."
    return Table(f"anytime_thresholds{end}", title, columns, swept, notes=(note,))
