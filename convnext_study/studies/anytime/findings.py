"""The study's findings: tables, claims, the anytime curve and the panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convnext_study.errors import UserError
from convnext_study.report.findings import Finding, StudyFigure
from convnext_study.runs.records import Record
from convnext_study.studies.anytime import arm_exits, figures
from convnext_study.studies.anytime.arm_exits import LAST, ArmExit, Arms, AtThreshold
from convnext_study.studies.anytime.load_checkpointed import exit_milliseconds, first_seed, sweep

ADAPTIVE = "ca"


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
    exits = arm_exits.all_exits(arms, times)
    found: list[Finding] = [arm_exits.exits_table(exits, backbone, end)]
    if tested := arm_exits.claims_table(arms, end):
        found.append(tested)
    if swept:
        found.append(arm_exits.thresholds_table(swept, end))
    curve = figures.curve(exits, [one for _, one in swept])
    found.append(StudyFigure(f"anytime_curve{end}", f"{figures.CURVE}: {backbone}", curve))
    if shown:
        title = f"{figures.PANEL}: {backbone}"
        found.append(StudyFigure(f"anytime_panel{end}", title, figures.panel(shown, title)))
    return [*found, *notes]
