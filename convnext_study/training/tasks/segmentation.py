"""Semantic segmentation, with a network that has one output or several exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from convnext_study.data import open_data
from convnext_study.data.dataset import IGNORE, padded_side
from convnext_study.data.sources import OF_PIXELS
from convnext_study.data.transforms.joint import Crop, TrainTransform, WholeImage
from convnext_study.data.workers import Transform
from convnext_study.imports import TaskError
from convnext_study.runs.metrics import Metric, NoResultError
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.base import Evidence, Weights, parse
from convnext_study.training.tasks.exits import ExitsTask, enlarged, exit_metrics

PRIMARY = "miou"


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Each image's confusion matrix, (n, classes, classes): pixel counts by label and prediction.

    Ignored pixels are left out.
    """
    count = len(labels)
    image = torch.arange(count, device=labels.device).view(-1, 1, 1)
    cells = (image * classes + labels) * classes + predictions
    labelled = labels != IGNORE
    counts = torch.bincount(cells[labelled], minlength=count * classes**2)
    return counts.view(count, classes, classes)


def overlap_of(confused: Tensor) -> Tensor:
    """Intersections, unions and labelled pixels, (n, classes, 3), from confusion matrices."""
    right = confused.diagonal(dim1=1, dim2=2)
    labelled = confused.sum(2)
    return torch.stack([right, labelled + confused.sum(1) - right, labelled], -1)


def miou_metrics(counts: Tensor, groups: Tensor | None = None) -> tuple[Mapping[str, Metric], str]:
    """Metrics by name, and the primary one's name, from `overlap_of`: (images, exits, classes, 3).

    ``groups`` (images,) says which images belong together; None: independent.

    mIoU is the mean over classes of summed intersections over summed unions, over all images; a
    class that labels no pixel of the set is left out. The primary metric is the mean over exits.

    Raises NoResultError if no pixel is labelled.
    """
    labelled = counts[..., 2].sum((0, 1)) > 0
    if not labelled.any():
        raise NoResultError(
            "mIoU: no validation pixel has a class, so there is nothing to measure; label some"
        )
    pairs = counts[..., :2] * labelled.view(1, 1, -1, 1)
    return exit_metrics(pairs, PRIMARY, "mIoU", groups)


class SegmentationArgs(BaseModel):
    """Arguments of the task ``segmentation``.

    Args:
        crop: height and width of training images; None: those of the validation images.
        scales: each training image is first scaled by one of these.
        class_weights: the weight of each class in the loss; None: all 1.
        exit_weights: the weight of each exit's loss in their sum; None: all 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    class_weights: Weights | None = None
    exit_weights: Weights | None = None


class Segmentation(ExitsTask):
    """Cross entropy of the exits' logits, interpolated to the labels' size; mean intersection over
    union (mIoU) of each exit on whole images.

    Raises TaskError if the run's arguments do not fit.
    """

    def __init__(self, run: Run, runtime: Runtime) -> None:
        self.args = parse(SegmentationArgs, run.task)
        data = open_data(run.data, OF_PIXELS, corrupt_images=runtime.corrupt_images)
        super().__init__(run, runtime, data, self.args.exit_weights)
        height, width = self.args.crop or self.data.shape
        self._crop = Crop(height, width, self.args.scales, self.recipe.flip)
        self._weights = self._class_weights()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one validation image, padding included."""
        height, width = map(padded_side, self.data.shape)
        return (3, height, width)

    def image_losses(self, exits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Each image's loss, (n,): the weighted sum over exits of the cross entropy, which is
        averaged over labelled pixels by class weight.

        The usual mean over the pixels of a whole batch would depend on how the batch is split.
        """
        targets, weights = labels.long(), self._weights.to(labels.device)
        total = weights[targets].sum((1, 2)).clamp_min(1e-6)
        losses = torch.zeros(len(labels), device=labels.device)
        for weight, logits in zip(self.exit_weights(len(exits)), exits, strict=True):
            pixel_losses = F.cross_entropy(
                enlarged(logits, *labels.shape[1:]),
                targets,
                weights[: self.data.num_classes],
                ignore_index=IGNORE,
                label_smoothing=self.recipe.label_smoothing,
                reduction="none",
            )
            losses = losses + weight * pixel_losses.sum((1, 2)) / total
        return losses

    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """``overlap``, (n, exits, classes, 3): intersections, unions and labelled pixels."""
        predictions = [enlarged(logits, *labels.shape[1:]).argmax(1) for logits in exits]
        classes = self.data.num_classes
        overlap = [overlap_of(confusion(predicted, labels, classes)) for predicted in predictions]
        return {"overlap": torch.stack(overlap, 1)}

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """mIoU of each exit, and their mean, the primary metric."""
        return miou_metrics(evidence["overlap"], self.groups_of(evidence))

    def transforms(self) -> tuple[Transform, Transform]:
        """Crops of training images; whole validation images."""
        return TrainTransform(self.data, self._crop), WholeImage(self.data)

    def _class_weights(self) -> Tensor:
        """(256,): the weight of each class; 0 for indices that are no class."""
        values, classes = self.args.class_weights, self.data.num_classes
        if values is not None and len(values) != classes:
            raise TaskError(
                f"class_weights: has {len(values)} numbers, but {self.data.uri} has {classes} "
                "classes"
            )
        weights = torch.zeros(IGNORE + 1)
        weights[:classes] = 1.0 if values is None else torch.tensor(values)
        return weights
