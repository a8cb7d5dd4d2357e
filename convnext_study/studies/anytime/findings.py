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
    """The findings of a study's finished runs, per backbone; empty without any.

    Trained networks are evaluated where their weights are present; otherwise a note says so.
    """
    backbones: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record.result is not None:
            metadata = record.run.metadata
            arms = backbones.setdefault(str(metadata["backbone"]), {})
            arms.setdefault(str(metadata["row"]), []).append(record)
    results: list[Finding] = []
    for backbone, arms in backbones.items():
        results += _of_backbone(arms, backbone, "" if len(backbones) == 1 else f"_{backbone}")
    return results


def _of_backbone(arms: Arms, backbone: str, suffix: str) -> list[Finding]:
    notes: list[str] = []
    times: dict[str, Sequence[float]] = {}
    at_thresholds: list[AtThreshold] = []
    views: list[figures.ImageView] = []
    for arm, records in arms.items():
        run = first_seed(records)
        if run is None:
            notes.append(f"{records[0].run.metadata['label']}: its weights are missing.")
            continue
        try:
            times[arm] = exit_milliseconds(run)
            if arm == ADAPTIVE:
                at_thresholds = [(at, ArmExit([rec], LAST)) for at, rec in sweep(run).items()]
                views = figures.views(run)
        except UserError as error:
            notes.append(f"{run.run.id}: {error}")
    exits = arm_exits.all_exits(arms, times)
    results: list[Finding] = [arm_exits.exits_table(exits, backbone, suffix)]
    if tested := arm_exits.claims_table(arms, suffix):
        results.append(tested)
    if at_thresholds:
        results.append(arm_exits.thresholds_table(at_thresholds, suffix))
    curve = figures.curve(exits, [last_exit for _, last_exit in at_thresholds])
    results.append(StudyFigure(f"anytime_curve{suffix}", f"{figures.CURVE}: {backbone}", curve))
    if views:
        title = f"{figures.PANEL}: {backbone}"
        results.append(StudyFigure(f"anytime_panel{suffix}", title, figures.panel(views, title)))
    return [*results, *notes]
