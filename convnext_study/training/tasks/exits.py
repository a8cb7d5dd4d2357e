"""Tasks on maps, by a network with one output or with several exits: what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.cost import Cost as Counted
from convnext_study.data.dataset import DatasetPair
from convnext_study.imports import TaskError
from convnext_study.recipes import Recipe, RecipeError
from convnext_study.runs.metrics import Cost, Metric, Samples
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.base import ImageTask

EVAL_BATCH = 32  # validation images that are taken at a time, where all are of one size


class ExitsTask(ImageTask):
    """A loss summed over a network's exits, and metrics of each.

    A network gives maps (n, num_classes, h, w) of any size, or a sequence of them, from the first
    exit to the last. What an exit costs it may tell by ``exit_costs(image_shape)``: a `cost.Cost`
    for each, with all that is computed before it.

    Args:
        run: what is trained.
        runtime: on what.
        data: images with arrays.
        exit_weights: of each exit in the sum; None: all 1.
    """

    def __init__(
        self,
        run: Run,
        runtime: Runtime,
        data: DatasetPair,
        exit_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(run, runtime, data, eval_batch=EVAL_BATCH if data.one_size else 1)
        check_recipe(self.recipe, run.task.name)
        self._given = exit_weights

    def scores(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """The maps of every exit, (n, classes, h, w) each. Raises TaskError for other outputs."""
        output = model(images)
        exits = [output] if isinstance(output, Tensor) else list(output)
        if self._given is not None and len(self._given) != len(exits):
            raise TaskError(f"exit_weights: {len(self._given)} numbers, and {len(exits)} exits")
        for one in exits:
            if one.ndim != 4 or one.shape[1] != self.num_classes:
                raise TaskError(
                    f"builder {self.run.model.builder!r}: gives {tuple(one.shape)}, and the task "
                    f"{self.run.task.name} needs (n, {self.num_classes}, h, w)"
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


def exit_metrics(
    counts: Tensor, name: str, label: str, groups: Tensor | None
) -> tuple[Mapping[str, Metric], str]:
    """Metrics by name, ``name`` and ``name_exit1`` and so on, and the primary one's.

    Args:
        counts: (images, exits, classes, 2): a metric is the mean over classes of the sum of the
            first counts by that of the second, in percent; a class without any is left out.
        name: of the primary one, the plain mean over the exits.
        label: of the metric.
        groups: (images,), which of them belong together; None: they are independent.
    """
    exits = counts.shape[1]
    if exits == 1:
        return {name: _ratio(counts[:, 0], label, groups)}, name
    found = {name: _ratio(counts.flatten(1, 2), f"{label}, mean of exits", groups)}
    for number, one in enumerate(counts.unbind(1), 1):
        found[f"{name}_exit{number}"] = _ratio(one, f"{label}, exit {number}", groups)
    return found, name


def _ratio(counts: Tensor, label: str, groups: Tensor | None) -> Metric:
    """From (images, classes, 2)."""
    first, second = counts.sum(0).double().unbind(-1)
    value = 100 * float((first / second)[second > 0].mean())
    return Metric(value=value, label=label, samples=Samples.of_ratio(counts.numpy(), groups))
