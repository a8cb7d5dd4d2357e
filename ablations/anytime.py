"""Anytime dense prediction with confidence."""

from __future__ import annotations

from convnext_study.experiments.context import Context
from convnext_study.runs.records import Run
from convnext_study.studies.anytime.arms import runs_of

FOLDER = "anytime"
DATA = "digit-canvas"


def runs(context: Context) -> list[Run]:
    return runs_of(context.data, context.seeds, context.recipe, context.changes, context.networks)
