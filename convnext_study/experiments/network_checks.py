"""Detects networks that cannot be trained as requested, before anything runs.

The road map's are checked by their specs; others are built once and called with a blank image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from convnext_study import cost
from convnext_study.cost.closed_form import sides
from convnext_study.data.sources import DatasetSize
from convnext_study.errors import UserError
from convnext_study.imports import TaskError
from convnext_study.models.builders import (
    FILE_BUILDER,
    ROADMAP_BUILDER,
    TIMM_BUILDER,
    describe_builder,
    get_builder,
)
from convnext_study.recipes import Recipe, make_recipe
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.records import ModelRef, Run
from convnext_study.training.tasks import task_class

if TYPE_CHECKING:
    from torch import nn

CLASSIFICATION = "classification"
_TORCH_MESSAGE = "more than 1 value per channel"  # part of it
ONE_VALUE = (
    "BatchNorm would see one value per channel, a single image on a 1x1 map, which has no "
    "variance; use a larger --batch-size or --micro-batch-size, or a larger --image-size"
)


def check_networks(
    runs: Sequence[Run], size_of: Callable[[str], DatasetSize], bn_images: Callable[[Recipe], int]
) -> None:
    """Raises UserError, one line, for a network that cannot be trained for a single step.

    Args:
        runs: to be trained. For tasks other than classification only those networks are built that
            are not this package's.
        size_of: a data set's size, by its URI.
        bn_images: how many images BatchNorm sees at a time, by the recipe.
    """
    seen: set[str] = set()
    for run in runs:
        recorded, data = make_recipe(run.recipe), size_of(run.data)
        recipe = recorded.for_images(data.train)
        classes, side = data.classes, recipe.image_size or data.image_size
        count = min(map(bn_images, (recorded, recipe)))  # also raises if either cannot be split
        case = [run.model.model_dump(), run.task.name, classes, side, count > 1]
        if (key := json.dumps(case, sort_keys=True)) in seen:
            continue
        seen.add(key)
        if run.task.name == CLASSIFICATION and run.model.builder == ROADMAP_BUILDER:
            _check_row(run, side, count)  # without importing torch, which takes seconds
        else:
            _check_built(run, recipe, (classes, side, count))


def _check_built(run: Run, recipe: Recipe, sizes: tuple[int, int, int]) -> None:
    """``sizes``: classes, side, and how many images BatchNorm sees."""
    from convnext_study.training.tasks.classification import Classification
    from convnext_study.training.tasks.exits import ExitsTask, check_recipe

    task = task_class(run.task.name)
    if not isinstance(task, type):
        return
    if issubclass(task, Classification):
        if run.model.builder == ROADMAP_BUILDER:
            _check_row(run, *sizes[1:])
        else:
            _check_forward(run, _build(run.model, sizes[0], recipe), sizes)
    elif issubclass(task, ExitsTask):
        check_recipe(recipe, run.task.name)
        if _is_foreign(run.model) or sizes[-1] == 1:
            _check_exits(run, _build(run.model, sizes[0], recipe), sizes)


def _is_foreign(model: ModelRef) -> bool:
    return model.builder in (FILE_BUILDER, TIMM_BUILDER) or ":" in model.builder


def _check_row(run: Run, side: int, count: int) -> None:
    spec = NetSpec.from_dict(run.model.args)
    last = sides(spec, side)[-1]
    if spec.norm == "batch" and count * last * last == 1:
        raise UserError(f"{run.name}: {ONE_VALUE}")


def _build(model: ModelRef, classes: int, recipe: Recipe) -> nn.Module:
    args = {name: value for name, value in model.args.items() if name != "pretrained"}
    net = get_builder(model.builder)(
        args, num_classes=classes, drop_path=recipe.drop_path, init=recipe.init
    )
    if not any(weight.requires_grad for weight in net.parameters()):
        raise TaskError(
            f"{describe_builder(model.builder, model.args)}: its network has no trainable weights"
        )
    return net


def _check_exits(run: Run, net: nn.Module, sizes: tuple[int, int, int]) -> None:
    """Checks BatchNorm with a single image; the task itself checks the maps' shapes."""
    import torch

    _, side, count = sizes
    if count == 1:
        try:
            net.train()(torch.zeros(1, 3, side, side))
        except ValueError as error:
            if _TORCH_MESSAGE in str(error):
                raise UserError(f"{run.name}: {ONE_VALUE}") from error


def _check_forward(run: Run, net: nn.Module, sizes: tuple[int, int, int]) -> None:
    import torch

    from convnext_study.training.tasks.base import network_output
    from convnext_study.training.tasks.classification import check_logits

    classes, side, count = sizes
    images = torch.zeros(min(count, 2), 3, side, side)
    name = describe_builder(run.model.builder, run.model.args)
    try:
        logits = network_output(net.train(count == 1), images, f"{run.name}: {name}")
    except TaskError as error:
        if _TORCH_MESSAGE in str(error):
            raise UserError(f"{run.name}: {ONE_VALUE}") from error
        raise
    check_logits(logits, (len(images), classes), run.model)
    try:
        cost.count(net, (3, side, side))  # fail here, and not at the end of a run
    except Exception as error:
        raise TaskError(f"{run.name}: {name}: {error}") from error
    if not logits.requires_grad:
        raise TaskError(f"{name}: its logits do not depend on any trainable weight")
