"""Runs that take seconds."""

from __future__ import annotations

from typing import Any

from convnext_study.models.builders import ROADMAP_BUILDER
from convnext_study.recipes import MODERN_SMALL
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import ModelRef, Run


def make_tiny_run(step: str = "layer_norm", **changes: Any) -> Run:
    """A row of the nano road, narrower still, two epochs on digits: a few seconds."""
    spec = get_roadmap("nano").upto(step).replace(width=8, stem_stride=4, kernel=3)
    fields = {
        "epochs": 2,
        "warmup_epochs": 0,
        "global_batch_size": 128,
        "drop_path": 0.1,
        **changes,
    }
    return Run(
        study="test",
        name="tiny",
        model=ModelRef(builder=ROADMAP_BUILDER, args=spec.to_dict()),
        recipe=MODERN_SMALL.replace(**fields).model_dump(mode="json"),
        data="digits",
        seed=0,
    )
