"""What tasks on maps share: the network has one output or several exits."""

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

EVAL_BATCH = 32  # validation images per batch, if all have the same size


class ExitsTask(ImageTask):
    """A loss summed over a network's exits, and metrics of each.

    The network returns maps (n, num_classes, h, w) of any size, or a sequence of them, from the
    first exit to the last. It may define ``exit_costs(image_shape)``, which returns a `cost.Cost`
    per exit, including everything computed before it.

    Args:
        run: what is trained.
        runtime: the machine's resources.
        data: images with arrays.
        exit_weights: the weight of each exit's loss in the sum; None: all 1.
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
        self._exit_weights = exit_weights

    def scores(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """Each exit's maps, (n, classes, h, w). Raises TaskError for other outputs."""
        output = model(images)
        exits = [output] if isinstance(output, Tensor) else list(output)
        count = len(exits) if self._exit_weights is None else len(self._exit_weights)
        if count != len(exits):
            raise TaskError(f"exit_weights: has {count} numbers, but there are {len(exits)} exits")
        for maps in exits:
            if maps.ndim != 4 or maps.shape[1] != self.num_classes:
                raise TaskError(
                    f"builder {self.run.model.builder!r}: returns {tuple(maps.shape)}, but the "
                    f"task {self.run.task.name} needs (n, {self.num_classes}, h, w)"
                )
        return exits

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """The network's cost, and that of each exit (``exit1``, ...) if the network defines it."""
        by_name = super().costs(model)
        exit_costs: Callable[[tuple[int, int, int]], Sequence[Counted]] | None
        exit_costs = getattr(model, "exit_costs", None)
        for number, exit_cost in enumerate(exit_costs(self.image_shape) if exit_costs else (), 1):
            by_name[f"exit{number}"] = Cost(
                macs=exit_cost.macs, params=exit_cost.params, activations=exit_cost.activations
            )
        return by_name

    def exit_weights(self, exits: int) -> Sequence[float]:
        """The weight of each exit's loss in their sum."""
        return [1.0] * exits if self._exit_weights is None else self._exit_weights


def check_recipe(recipe: Recipe, task: str) -> None:
    """Raises RecipeError, one line, for settings that a task on maps does not use."""
    for name in ("mixup", "cutmix", "rand_augment", "color_jitter", "random_erasing", "image_size"):
        if value := getattr(recipe, name):
            raise RecipeError(
                f"recipe {recipe.name}: {name} {value!r}: not supported by the task {task}; leave "
                "it out"
            )


def enlarged(maps: Tensor, height: int, width: int) -> Tensor:
    """(n, channels, h, w) in float32, interpolated to the given size."""
    maps = maps.float()
    if maps.shape[2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


def exit_metrics(
    counts: Tensor, name: str, label: str, groups: Tensor | None
) -> tuple[Mapping[str, Metric], str]:
    """Metrics by name (``name``, ``name_exit1``, ...), and the primary one's name.

    Args:
        counts: (images, exits, classes, 2): a metric is the mean over classes of the summed first
            counts over the summed second ones, in percent; classes that sum to 0 are left out.
        name: the primary metric's, which is the mean over the exits.
        label: the metric's.
        groups: (images,), which images belong together; None: they are independent.
    """
    exits = counts.shape[1]
    if exits == 1:
        return {name: _ratio(counts[:, 0], label, groups)}, name
    metrics = {name: _ratio(counts.flatten(1, 2), f"{label}, mean of exits", groups)}
    for number, exit_counts in enumerate(counts.unbind(1), 1):
        metrics[f"{name}_exit{number}"] = _ratio(exit_counts, f"{label}, exit {number}", groups)
    return metrics, name


def _ratio(counts: Tensor, label: str, groups: Tensor | None) -> Metric:
    """From (images, classes, 2)."""
    first, second = counts.sum(0).double().unbind(-1)
    value = 100 * float((first / second)[second > 0].mean())
    return Metric(value=value, label=label, samples=Samples.of_ratio(counts.numpy(), groups))
