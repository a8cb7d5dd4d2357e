"""All that the study has to say of its runs: tables, claims, the anytime curve and the panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convnext_study.errors import UserError
from convnext_study.report.findings import Finding, StudyFigure
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import digits, level_interval, mean_std
from convnext_study.runs.records import Record
from convnext_study.studies.anytime import curve, panel
from convnext_study.studies.anytime.claims import claims_table
from convnext_study.studies.anytime.curve import ExitPoint
from convnext_study.studies.anytime.evidence import Arms, by_arm
from convnext_study.studies.anytime.thresholds import AtThreshold, sweep, threshold_table
from convnext_study.studies.anytime.timing import exit_milliseconds
from convnext_study.studies.anytime.trained import first_seed

ADAPTIVE = "ca"
COLUMNS: list[Column[ExitPoint]] = [
    Column("arm", "arm", lambda one: one.arm, "text", screen=False),
    Column("label", "arm", lambda one: one.label, "text"),
    Column("exit", "exit", lambda one: one.exit, format=str),
    Column("miou", "mIoU %", lambda one: one.miou, cell=lambda one: mean_std(one.miou, one.std)),
    Column("std", "std", lambda one: one.std, screen=False),
    Column("ci", "95 %, images", lambda one: one.interval, "interval", format=level_interval),
    Column("dense", "MACs, dense", lambda one: one.dense, prefixed=True),
    Column("macs", "at masks", lambda one: one.macs, prefixed=True),
    Column("computed", "computed %", lambda one: one.computed, format=digits(1)),
    Column("ece", "ECE %", lambda one: one.ece),
    Column("milliseconds", "ms", lambda one: one.milliseconds),
]
NOTES = (
    "MACs: of one image up to the exit, with the heads before it; at masks: the authors' rule, a "
    "mean over the validation images. ECE: expected calibration error of 15 bins. Intervals: "
    "bootstrap over images of the mean over seeds.",
    "ms: up to the exit, of one core, one image at a time, median of the first images; the first "
    "seed's network in the fastest form that its masks allow.",
)


def findings(records: Iterable[Record]) -> list[Finding]:
    """Of a study's finished runs, each backbone by itself; nothing of none.

    Networks are used again where their weights are there; where they are not a sentence says so.
    """
    found: list[Finding] = []
    backbones = by_arm(records)
    for backbone, arms in backbones.items():
        end = "" if len(backbones) == 1 else f"_{backbone}"
        found += _of_one(arms, backbone, end)
    return found


def _of_one(arms: Arms, backbone: str, end: str) -> list[Finding]:
    notes: list[str] = []
    times: dict[str, Sequence[float]] = {}
    swept: list[AtThreshold] = []
    shown: list[panel.ImageView] = []
    for arm, records in arms.items():
        run = first_seed(records)
        if run is None:
            notes.append(f"{records[0].run.metadata['label']}: its weights are not here.")
            continue
        try:
            times[arm] = exit_milliseconds(run)
            if arm == ADAPTIVE:
                swept, shown = sweep(run), panel.views(run)
        except UserError as error:
            notes.append(f"{run.run.id}: {error}")
    points = curve.exit_points(arms, times)
    found: list[Finding] = [
        Table(f"anytime_exits{end}", f"Every exit of every arm: {backbone}", COLUMNS, points, NOTES)
    ]
    if tested := claims_table(arms, end):
        found.append(tested)
    if swept:
        found.append(threshold_table(swept, end))
    found.append(
        StudyFigure(
            f"anytime_curve{end}", f"{curve.TITLE}: {backbone}", curve.curve(points, _line(swept))
        )
    )
    if shown:
        title = f"{panel.TITLE}: {backbone}"
        found.append(StudyFigure(f"anytime_panel{end}", title, panel.panel(shown, title)))
    return [*found, *notes]


def _line(swept: Sequence[AtThreshold]) -> list[tuple[float, float]]:
    """MACs (1e6) and mIoU of the last exit at each threshold."""
    names = [f"{name}_exit{swept[0].exits}" for name in ("macs", "miou")] if swept else []
    return [(one.metrics[names[0]].value / 1e6, one.metrics[names[1]].value) for one in swept]
