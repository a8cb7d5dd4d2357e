"""Intersection over union: counted image by image, so that an interval can draw images anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from convnext_study.data.dense.dataset import IGNORE
from convnext_study.runs.metrics import Metric, Samples

PRIMARY = "miou"


class Overlap:
    """What each image's confusion matrix holds of each exit: intersections and unions."""

    def __init__(self, classes: int) -> None:
        self._classes, self._found = classes, list[Tensor]()

    def add(self, predictions: Sequence[Tensor], labels: Tensor) -> None:
        """Of each exit the classes (n, H, W) that it predicts, and those that there are."""
        exits = [confusion(one, labels, self._classes) for one in predictions]
        self._found.append(torch.stack([overlap_of(one) for one in exits], 1).cpu())

    @property
    def counts(self) -> Tensor:
        """(images, exits, classes, 3) int64: intersections, unions and labelled pixels."""
        return torch.cat(self._found) if self._found else torch.zeros(0)


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


def miou_metrics(counts: Tensor, losses: Tensor) -> dict[str, Any]:
    """The metrics of (images, exits, classes, 3) counts and each image's loss, for an Evaluation.

    mIoU is the mean over classes of what the intersections of all images are of their unions; a
    class that no image of the set is labelled with is left out. The primary one is the plain mean
    over the exits.
    """
    labelled = counts[..., 2].sum((0, 1)) > 0
    pairs = counts[..., :2] * labelled.view(1, 1, -1, 1)
    found = {PRIMARY: _miou(pairs.flatten(1, 2), "mIoU")}
    exits = pairs.shape[1]
    if exits > 1:
        found[PRIMARY] = found[PRIMARY].model_copy(update={"label": "mIoU, mean of exits"})
        for number, one in enumerate(pairs.unbind(1), 1):
            found[f"{PRIMARY}_exit{number}"] = _miou(one, f"mIoU, exit {number}")
    loss = Metric(
        value=float(losses.double().mean()),
        label="validation loss",
        unit="",
        higher_is_better=False,
    )
    return {"metrics": {**found, "val_loss": loss}, "primary": PRIMARY}


def _miou(pairs: Tensor, label: str) -> Metric:
    """From (images, classes, 2) intersections and unions."""
    inside, union = pairs.sum(0).double().unbind(-1)
    shares = (inside / union)[union > 0]
    value = 100 * float(shares.mean()) if len(shares) else 0.0
    return Metric(value=value, label=label, samples=Samples.of_ratio(pairs.numpy()))
