"""A class for every pixel, by a network with one output or with several exits."""

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
    """The confusion matrix of each image, (n, classes, classes): pixels by label, by prediction.

    Pixels that are labelled as ignored are left out.
    """
    count = len(labels)
    image = torch.arange(count, device=labels.device).view(-1, 1, 1)
    cell = (image * classes + labels) * classes + predictions
    known = labels != IGNORE
    found = torch.bincount(cell[known], minlength=count * classes**2)
    return found.view(count, classes, classes)


def overlap_of(confused: Tensor) -> Tensor:
    """(n, classes, 3) of (n, classes, classes): intersections, unions and labelled pixels."""
    right = confused.diagonal(dim1=1, dim2=2)
    labelled = confused.sum(2)
    return torch.stack([right, labelled + confused.sum(1) - right, labelled], -1)


def miou_metrics(counts: Tensor, groups: Tensor | None = None) -> tuple[Mapping[str, Metric], str]:
    """Metrics by name and the primary one's, from the (images, exits, classes, 3) of `overlap_of`.

    ``groups`` (images,) says which images belong together; None: independent.

    mIoU is the mean over classes of what the intersections of all images are of their unions; a
    class that no image of the set is labelled with is left out. The primary one is the plain mean
    over the exits.

    Raises NoResultError where no pixel is labelled.
    """
    labelled = counts[..., 2].sum((0, 1)) > 0
    if not labelled.any():
        raise NoResultError(
            "mIoU: no pixel of the validation part has a class, so there is nothing to measure; "
            "label some"
        )
    pairs = counts[..., :2] * labelled.view(1, 1, -1, 1)
    return exit_metrics(pairs, PRIMARY, "mIoU", groups)


class SegmentationArgs(BaseModel):
    """Arguments of the task ``segmentation``.

    Args:
        crop: height and width of training images; None: those of the validation images.
        scales: training images are first scaled by one of these.
        class_weights: of each class in the loss; None: all 1.
        exit_weights: of each exit's loss in their sum; None: all 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    class_weights: Weights | None = None
    exit_weights: Weights | None = None


class Segmentation(ExitsTask):
    """Cross entropy of the exits' logits, which are interpolated to the labels' size; mean
    intersection over union (mIoU) of each exit on whole images.

    Raises TaskError where the run's arguments do not fit.
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
        """Channels, height and width of one validation image, with its margin."""
        height, width = map(padded_side, self.data.shape)
        return (3, height, width)

    def image_losses(self, exits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The loss of each image, (n,): over its exits the weighted sum of cross entropies, which
        are means over the pixels that have a class, by the weights of their classes.

        A mean over a whole batch's pixels, as is common, would depend on how the batch is split.
        """
        wanted, weights = labels.long(), self._weights.to(labels.device)
        total = weights[wanted].sum((1, 2)).clamp_min(1e-6)
        losses = torch.zeros(len(labels), device=labels.device)
        for weight, logits in zip(self.exit_weights(len(exits)), exits, strict=True):
            each = F.cross_entropy(
                enlarged(logits, *labels.shape[1:]),
                wanted,
                weights[: self.data.num_classes],
                ignore_index=IGNORE,
                label_smoothing=self.recipe.label_smoothing,
                reduction="none",
            )
            losses = losses + weight * each.sum((1, 2)) / total
        return losses

    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """``overlap``, (n, exits, classes, 3): intersections, unions and labelled pixels."""
        said = [enlarged(logits, *labels.shape[1:]).argmax(1) for logits in exits]
        classes = self.data.num_classes
        overlap = [overlap_of(confusion(one, labels, classes)) for one in said]
        return {"overlap": torch.stack(overlap, 1)}

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """mIoU of each exit, and their mean, which is primary."""
        return miou_metrics(evidence["overlap"], self.groups_of(evidence))

    def transforms(self) -> tuple[Transform, Transform]:
        """Crops of training images; whole validation images."""
        return TrainTransform(self.data, self._crop), WholeImage(self.data)

    def _class_weights(self) -> Tensor:
        """(256,): of each class, and 0 of what is none."""
        given, classes = self.args.class_weights, self.data.num_classes
        if given is not None and len(given) != classes:
            raise TaskError(
                f"class_weights: {len(given)} numbers, and {self.data.uri} has {classes} classes"
            )
        weights = torch.zeros(IGNORE + 1)
        weights[:classes] = 1.0 if given is None else torch.tensor(given)
        return weights
