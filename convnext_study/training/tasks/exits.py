"""Tasks on maps, by a network with one output or with several exits: what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.cost import Cost as Counted
from convnext_study.data.dataset import DatasetPair
from convnext_study.imports import TaskError
from convnext_study.recipes import Recipe, RecipeError
from convnext_study.runs.metrics import Cost
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.base import ImageTask


class ExitsTask(ImageTask):
    """A loss summed over a network's exits, and metrics of each.

    A network gives maps (n, ``outputs``, h, w) of any size, or a sequence of them, from the first
    exit to the last. What an exit costs it may tell by ``exit_costs(image_shape)``: a `cost.Cost`
    for each, with all that is computed before it.

    Args:
        run: what is trained.
        runtime: on what.
        data: images with arrays.
        outputs: channels of the network's output.
        exit_weights: of each exit in the sum; None: all 1.
        eval_batch: validation images that are taken at a time.
    """

    def __init__(
        self,
        run: Run,
        runtime: Runtime,
        data: DatasetPair,
        *,
        outputs: int,
        exit_weights: Sequence[float] | None,
        eval_batch: int,
    ) -> None:
        super().__init__(run, runtime, data, outputs=outputs, eval_batch=eval_batch)
        check_recipe(self.recipe, run.task.name)
        self._given = exit_weights

    def scores(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """The maps of every exit, (n, outputs, h, w) each. Raises TaskError for other outputs."""
        output = model(images)
        exits = [output] if isinstance(output, Tensor) else list(output)
        if self._given is not None and len(self._given) != len(exits):
            raise TaskError(f"exit_weights: {len(self._given)} numbers, and {len(exits)} exits")
        for one in exits:
            if one.ndim != 4 or one.shape[1] != self._outputs:
                raise TaskError(
                    f"builder {self.run.model.builder!r}: gives {tuple(one.shape)}, and the task "
                    f"{self.run.task.name} needs (n, {self._outputs}, h, w)"
                )
        return exits

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """Of the network, and up to each exit, ``exit1`` and so on, where the network tells."""
        found = super().costs(model)
        tell: Callable[[tuple[int, int, int]], Sequence[Counted]] | None
        tell = getattr(model, "exit_costs", None)
        for number, one in enumerate(tell(self.image_shape) if tell else (), 1):
            found[f"exit{number}"] = Cost(
                macs=one.macs, params=one.params, activations=one.activations
            )
        return found

    def exit_weights(self, exits: int) -> Sequence[float]:
        """Of each exit's loss in their sum."""
        return [1.0] * exits if self._given is None else self._given


def check_recipe(recipe: Recipe, task: str) -> None:
    """Raises RecipeError, one line, for settings that a task on maps would leave unused."""
    for name in ("mixup", "cutmix", "rand_augment", "color_jitter", "random_erasing", "image_size"):
        if value := getattr(recipe, name):
            raise RecipeError(
                f"recipe {recipe.name}: {name} {value!r}: the task {task} has no use for it; leave "
                f"it out"
            )


def enlarged(maps: Tensor, height: int, width: int) -> Tensor:
    """(n, channels, h, w) in float32, interpolated to another size."""
    maps = maps.float()
    if maps.shape[2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
