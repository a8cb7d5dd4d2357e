"""Image classification: the task of the road map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.cost.closed_form import closed_form
from convnext_study.data import open_data
from convnext_study.data.loader import Batch, check_split
from convnext_study.data.sources import OF_IMAGES
from convnext_study.data.transforms.image import image_size, train_transform, val_transform
from convnext_study.data.workers import Transform
from convnext_study.imports import TaskError
from convnext_study.models.builders import ROADMAP_BUILDER, describe_builder
from convnext_study.recipes import make_recipe
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.metrics import NETWORK, Cost, Metric, Samples
from convnext_study.runs.records import ModelRef, Run
from convnext_study.training.regularization import Mixing
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.base import Evidence, ImageTask

EVAL_BATCH = 256
PRIMARY = "top1"


def check_logits(logits: object, shape: tuple[int, int], model: ModelRef) -> None:
    """Raises TaskError, one line with the builder's name, unless logits are (n, classes) floats."""
    if isinstance(logits, Tensor) and logits.shape == shape and logits.is_floating_point():
        return
    output = f"an object of type {type(logits).__name__}"
    if isinstance(logits, Tensor):
        output = f"{tuple(logits.shape)} of {logits.dtype}"
    name = describe_builder(model.builder, model.args)
    raise TaskError(
        f"{name}: its network returns {output} as logits; return {shape}, floating point"
    )


class Classification(ImageTask):
    """Cross entropy with the recipe's label smoothing, Mixup and CutMix; top-1 accuracy."""

    def __init__(self, run: Run, runtime: Runtime) -> None:
        data = open_data(
            run.data,
            OF_IMAGES,
            download=runtime.download,
            corrupt_images=runtime.corrupt_images,
        )
        super().__init__(run, runtime, data, eval_batch=EVAL_BATCH)
        check_split(self.data, make_recipe(run.recipe), self._sharding)
        mixes = self.recipe.mixes
        self._mixing = Mixing(self.recipe, self.num_classes, run.seed) if mixes else None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input."""
        size = image_size(self.data, self.recipe)
        return (3, size, size)

    def transforms(self) -> tuple[Transform, Transform]:
        """The recipe's transforms of training and of validation images."""
        return train_transform(self.data, self.recipe), val_transform(self.data, self.recipe)

    def early_transform(self) -> tuple[int, Transform] | None:
        """The first epochs' transform of training images, if the recipe has another size there."""
        early = self.recipe.early_epochs
        return (early, train_transform(self.data, self.recipe.at_epoch(0))) if early else None

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy over the batch, after Mixup and CutMix, and the number of images."""
        images, labels = self.prepared(batch)
        if self._mixing is not None:
            # The mixed targets include label smoothing already.
            images, soft = self._mixing(images, labels, batch.positions, batch.step)
            return F.cross_entropy(self._logits(model, images), soft), len(labels)
        smoothing = self.recipe.label_smoothing
        logits = self._logits(model, images)
        return F.cross_entropy(logits, labels, label_smoothing=smoothing), len(labels)

    def scores(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """The only exit's logits, (n, classes). Raises TaskError for other outputs."""
        return [self._logits(model, images).float()]

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        logits, shape = model(images), (len(images), self.data.num_classes)
        check_logits(logits, shape, self.run.model)
        return cast(Tensor, logits)

    def image_losses(self, exits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Each validation image's cross entropy, (n,), without label smoothing."""
        return F.cross_entropy(exits[0], labels, reduction="none")

    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """``right``, (n,): whether the largest logit is that of the image's class."""
        return {"right": exits[0].argmax(1) == labels}

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Top-1 accuracy; images of the same object are resampled together."""
        right = evidence["right"]
        samples = Samples.of_bits(right.numpy(), self.groups_of(evidence))
        value = 100 * float(right.double().mean())
        return {PRIMARY: Metric(value=value, label="top-1", samples=samples)}, PRIMARY

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """As in every task, but for road-map networks computed from the spec, which is instant."""
        if self.run.model.builder != ROADMAP_BUILDER or self.built() is not None:
            return super().costs(model)
        spec = NetSpec.from_dict(self.run.model.args)
        counted = closed_form(spec, self.image_shape[-1], self.data.num_classes)
        return {NETWORK: Cost(**asdict(counted))}
