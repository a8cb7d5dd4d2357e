"""Training that makes a large network ready to be pruned: the task ``pruning-sparse``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from convnext_study.runs.records import Run
from convnext_study.studies.pruning.factors import factors_of
from convnext_study.studies.pruning.methods.slimming import add_penalty_gradient
from convnext_study.studies.pruning.methods.soft_filters import zero_filters
from convnext_study.studies.pruning.methods.structure_selection import proximal_step
from convnext_study.training.lr_schedule import learning_rate
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.arguments import parse
from convnext_study.training.tasks.classification import Classification


class SparsityArgs(BaseModel):
    """Arguments of the task ``pruning-sparse``, of which one is given.

    Args:
        slimming: penalty of the scales of BatchNorm.
        selection: penalty of the factors of residual branches (`factors.factored_ref`).
        soft_filters: share of each convolution's filters that is set to zero after every epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slimming: float = Field(default=0.0, ge=0)
    selection: float = Field(default=0.0, ge=0)
    soft_filters: float = Field(default=0.0, ge=0, le=1)


class SparseTraining(Classification):
    """Training of a large network that prepares for pruning."""

    def __init__(self, run: Run, runtime: Runtime) -> None:
        super().__init__(run, runtime)
        self.args = parse(SparsityArgs, run.task)

    def before_step(self, model: nn.Module, step: int) -> None:
        """Add the penalty's gradient; move the factors, which the optimizer leaves alone."""
        if self.args.slimming:
            add_penalty_gradient(model, self.args.slimming)
        if self.args.selection:
            lr = learning_rate(self.recipe, step, self.steps_per_epoch)
            proximal_step(factors_of(model), lr, self.args.selection)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Set the smallest filters to zero; after the last epoch they stay so."""
        if self.args.soft_filters:
            zero_filters(model, self.args.soft_filters)
