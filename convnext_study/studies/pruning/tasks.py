"""The tasks of this study, both of them image classification.

``pruning-sparse`` trains a large network for pruning. ``pruning-arm`` starts from a finished run,
prunes its network, and trains the pruned one from inherited, rewound or new weights.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from convnext_study.data.loader import train_batches
from convnext_study.data.rng import fold_in, generator, seed_everything
from convnext_study.imports import TaskError
from convnext_study.recipes import Recipe
from convnext_study.runs.metrics import NETWORK, Cost
from convnext_study.runs.records import ModelRef, Run
from convnext_study.studies.pruning.arms import with_epochs
from convnext_study.studies.pruning.costs import (
    Images,
    budget_flops,
    scratch_b_epochs,
    untrained,
)
from convnext_study.studies.pruning.methods import magnitude
from convnext_study.studies.pruning.methods.architectures import add_penalty_gradient
from convnext_study.studies.pruning.methods.selection import factors_of, proximal_step
from convnext_study.studies.pruning.prune import MethodArgs, Pruned, Trained, prune
from convnext_study.studies.pruning.removal import network_of, same_architecture
from convnext_study.studies.pruning.trained_weights import WEIGHTS_FILE, TrainedWeights, put_weights
from convnext_study.training.optimizer import learning_rate
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Parent, load_weights
from convnext_study.training.tasks.base import parse
from convnext_study.training.tasks.classification import Classification

ARM_TASK, SPARSE_TASK = "pruning-arm", "pruning-sparse"


class SparsityArgs(BaseModel):
    """Arguments of the task ``pruning-sparse``; one method's are set.

    ``slimming`` is the penalty on BatchNorm's scales, ``selection`` that on the factors of residual
    branches (`selection.factored_ref`), ``soft_filters`` the share of filters that is set to zero
    after every epoch, with ``at_start`` also before the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slimming: float = Field(default=0.0, ge=0)
    selection: float = Field(default=0.0, ge=0)
    soft_filters: float = Field(default=0.0, ge=0, lt=1)
    at_start: bool = False


class SparseTraining(Classification):
    """Training of a large network in preparation for pruning."""

    def __init__(self, run: Run, runtime: Runtime) -> None:
        super().__init__(run, runtime)
        self.args = parse(SparsityArgs, run.task)

    def begin(self, model: nn.Module) -> None:
        """Set the smallest filters to zero before the first epoch, if the method does."""
        if self.args.at_start:
            self.after_epoch(model, -1)

    def before_step(self, model: nn.Module, step: int) -> None:
        """Add the penalty's gradient; update the factors, which the optimizer does not."""
        if self.args.slimming:
            add_penalty_gradient(model, self.args.slimming)
        if self.args.selection:
            lr = learning_rate(self.recipe, step, self.steps_per_epoch)
            proximal_step(factors_of(model), lr, self.args.selection)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Set the smallest filters to zero; after the last epoch they stay zero."""
        if self.args.soft_filters:
            magnitude.apply_masks(model, magnitude.soft_filter_masks(model, self.args.soft_filters))


class ArmArgs(MethodArgs):
    """Arguments of the task ``pruning-arm``.

    ``weights`` are ``inherited`` from the trained network; ``rewound`` to the start of its
    training, under masks; ``random``; ``redrawn`` for the masks (`magnitude.draw_masked`). With the
    ``length`` ``scratch_b`` the number of epochs makes the pruned network's training cost as much
    as the recipe's of the run's own network, by the authors' rule. ``trained`` are the weights to
    prune if no parent run trains any.
    """

    trained: TrainedWeights | None = None
    weights: Literal["inherited", "rewound", "random", "redrawn"]
    length: Literal["stated", "scratch_b"] = "stated"


class TrainingArm(Classification):
    """Training of a pruned network. Raises TaskError if the run has neither parent nor weights."""

    def __init__(self, run: Run, runtime: Runtime) -> None:
        super().__init__(run, runtime)
        self.args = parse(ArmArgs, run.task)
        self._weight_masks: magnitude.Masks = {}
        self._model = run.model

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The pruned network with the arm's initial weights."""
        source, parent_seed = self.args.source, self.run.seed
        if self.args.trained is not None:
            model = self.args.trained.network
            whole = self.fresh(model)
            file = str(self.run.metadata.get(WEIGHTS_FILE, ""))
            put_weights(whole, self.args.trained, file, self.data.num_classes)
        elif parent is not None:
            built = parent.record.result and parent.record.result.model
            model, parent_seed = built or parent.run.model, parent.run.seed
            whole = self.fresh(model) if source is None else network_of(model, source.classes)
            load_weights(whole, parent)
        else:
            raise TaskError(
                f"task {ARM_TASK}: {self.run.name} does not name its parent run (init_from)"
            )
        design, seed = untrained(self.run.model, self._images), self.run.seed
        images = source or self._images
        trained = Trained(whole.eval(), model, images, self._samples, seed, design)
        pruned = prune(trained, self.args)
        if pruned.model is not None:
            return self._narrow(pruned, pruned.model)
        return self._mask(whole, model, pruned.masks, parent_seed).train()

    def built(self) -> ModelRef | None:
        """The pruned network, if it is not the run's own."""
        return None if self._model == self.run.model else self._model

    def schedule(self, recipe: Recipe) -> Recipe:
        """The recipe, for Scratch-B with the epochs that the pruned network's budget gives."""
        recipe = super().schedule(recipe)
        if self.args.length == "stated":
            return recipe
        unmasked = {name: int(mask.sum()) for name, mask in self._weight_masks.items()}
        large_budget = untrained(self.run.model, self._images).cost.budget
        pruned = untrained(self._model, self._images)
        budget = budget_flops(pruned.outline(), pruned.images.shape, unmasked)
        return with_epochs(recipe, scratch_b_epochs(large_budget, budget, recipe.epochs))

    def before_step(self, model: nn.Module, step: int) -> None:
        """Zero the gradients of masked weights."""
        magnitude.mask_gradients(model, self._weight_masks)

    def after_step(self, model: nn.Module, step: int, skipped: Tensor) -> None:
        """Zero the masked weights, whatever the optimizer did."""
        magnitude.apply_masks(model, self._weight_masks)

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """The costs; a masked network's also have its ``nonzero`` parameters, but all MACs."""
        costs = super().costs(model)
        if not self._weight_masks:
            return costs
        cost = costs[NETWORK]
        nonzero = cost.params - sum(int((~mask).sum()) for mask in self._weight_masks.values())
        return {**costs, NETWORK: Cost.model_validate({**cost.model_dump(), "nonzero": nonzero})}

    def _narrow(self, pruned: Pruned, model: ModelRef) -> nn.Module:
        """The narrowed network, initialised as a run of its own or with the inherited weights."""
        weights, method = self.args.weights, self.args.method
        fitting = ("random",) if pruned.network is None else ("inherited", "random")
        if weights not in fitting:
            what = "designs an architecture" if pruned.network is None else "removes channels"
            raise TaskError(
                f"task {ARM_TASK}: {method} {what}, but no {weights} weights come with it; use "
                f"{' or '.join(fitting)}"
            )
        if not same_architecture(self.run.model, model):
            self._model = model
        net = self._seeded(self._model, self.run.seed)
        if pruned.network is not None and weights == "inherited":
            net.load_state_dict(pruned.network.state_dict())
        return net

    def _mask(
        self, net: nn.Module, model: ModelRef, masks: magnitude.Masks, parent_seed: int
    ) -> nn.Module:
        weights, seed = self.args.weights, self.run.seed
        self._weight_masks = {name: mask.to(self.runtime.device) for name, mask in masks.items()}
        if weights != "inherited":
            other = fold_in(seed, "other weights")
            net = self._seeded(model, parent_seed if weights == "rewound" else other)
        if weights == "redrawn":
            magnitude.draw_masked(net, masks, generator(fold_in(seed, "redrawn")))
        magnitude.apply_masks(net, masks)
        return net

    def _seeded(self, model: ModelRef, seed: int) -> nn.Module:
        """A network as a run with that seed initialises it."""
        seed_everything(fold_in(seed, "weights"))
        return self.fresh(model)

    @property
    def _images(self) -> Images:
        return Images(self.image_shape[1], self.data.num_classes)

    def _samples(self, per_class: int) -> list[tuple[Tensor, Tensor]]:
        """Training images of the first epoch and labels, the same in every process, on the CPU."""
        missing, batches = per_class * self.data.num_classes, []
        for batch in train_batches(self.data, self.recipe, self.run.seed, 0):
            images, labels = self._prepare(batch)
            batches.append((images.float().cpu().contiguous(), labels.cpu()))
            missing -= len(images)
            if missing <= 0:
                break
        return batches
