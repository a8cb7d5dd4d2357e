"""Pruning against training from scratch (Liu et al., ICLR 2019), on networks of today.

convnext-study study pruning --seeds 3
convnext-study study pruning --networks roadmap:separate_downsampling
"""

from __future__ import annotations

from convnext_study.experiments.context import Context
from convnext_study.runs.records import Run
from convnext_study.studies.pruning.arms import runs_of
from convnext_study.studies.pruning.subjects import NETWORKS

__all__ = ["FOLDER", "NETWORKS", "runs"]

FOLDER = "pruning"  # in runs/, apart from the road map's rows


def runs(context: Context) -> list[Run]:
    return runs_of(context)
