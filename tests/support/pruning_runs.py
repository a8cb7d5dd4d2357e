"""Runs of the pruning study that take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convnext_study.experiments.context import Context
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import ModelRef, Result, Run, TaskRef
from convnext_study.studies.pruning.arms import REDUCED, schedules_for
from convnext_study.studies.pruning.removal import OWN
from convnext_study.studies.pruning.spec import Spec, VggSpec
from convnext_study.training.loop import train

TINY = VggSpec(widths=(4, "M", 6, "M", 8), head="512", hidden=(8,))
WIDTHS = {"stem.conv": 2, "stages.0.blocks.0.conv": 3, "stages.1.blocks.0.conv": 4}


def tiny_run(spec: Spec = TINY, seed: int = 0, **changes: Any) -> Run:
    """A network of the study, one epoch of digits at 16 pixels."""
    fields = {"epochs": 1, "global_batch_size": 256, "lr": 0.1, **changes}
    recipe = schedules_for(REDUCED, None, fields, 16).base
    return Run(
        study="test",
        name="tiny",
        model=ModelRef(builder=OWN, args=spec.to_dict()),
        recipe=recipe.model_dump(mode="json"),
        data="digits",
        seed=seed,
    )


def arm_of(parent: Run, method: str, weights: str = "inherited", **amount: Any) -> Run:
    """What follows a run."""
    task = TaskRef(name="pruning-arm", args={"method": method, "weights": weights, **amount})
    about = {"task": task, "init_from": parent.key, "name": f"{parent.name}-{method}-{weights}"}
    return parent.model_copy(update=about)


def prepared(parent: Run, **sparsity: Any) -> Run:
    """The same network, trained to be pruned."""
    return parent.model_copy(update={"task": TaskRef(name="pruning-sparse", args=sparsity)})


def train_in(folder: Path, *runs: Run) -> list[Result]:
    """Train runs one after the other, as a study does."""
    return [train(run, folder / "runs" / run.id) for run in runs]


def context(**fields: Any) -> Context:
    return Context(road=get_roadmap("nano"), **fields)
