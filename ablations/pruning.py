"""Pruning against training from scratch (Liu et al., ICLR 2019), on networks of today.

convnext-study study pruning --seeds 3
convnext-study study pruning --networks roadmap:separate_downsampling
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import select_records
from convnext_study.report.findings import Finding
from convnext_study.runs.records import Record, Run
from convnext_study.studies.pruning.arms import runs_of
from convnext_study.studies.pruning.findings import findings
from convnext_study.studies.pruning.subjects import NETWORKS

__all__ = ["FOLDER", "NETWORKS", "report", "runs"]

FOLDER = "pruning"  # in runs/, apart from the road map's rows


def runs(context: Context) -> list[Run]:
    return runs_of(context)


def report(records: Sequence[Record], context: Context) -> list[Finding]:
    return findings(select_records(records, runs(context)))
