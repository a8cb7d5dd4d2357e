"""Intersection over union: counted image by image, so that an interval can draw images anew."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from convnext_study.data.dense.dataset import IGNORE
from convnext_study.runs.metrics import Metric, Samples

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


def miou_metrics(counts: Tensor) -> tuple[Mapping[str, Metric], str]:
    """Metrics by name and the primary one's, from the (images, exits, classes, 3) of `overlap_of`.

    mIoU is the mean over classes of what the intersections of all images are of their unions; a
    class that no image of the set is labelled with is left out. The primary one is the plain mean
    over the exits.
    """
    labelled = counts[..., 2].sum((0, 1)) > 0
    pairs = counts[..., :2] * labelled.view(1, 1, -1, 1)
    exits = pairs.shape[1]
    if exits == 1:
        return {PRIMARY: _miou(pairs[:, 0], "mIoU")}, PRIMARY
    found = {PRIMARY: _miou(pairs.flatten(1, 2), "mIoU, mean of exits")}
    for number, one in enumerate(pairs.unbind(1), 1):
        found[f"{PRIMARY}_exit{number}"] = _miou(one, f"mIoU, exit {number}")
    return found, PRIMARY


def _miou(pairs: Tensor, label: str) -> Metric:
    """From (images, classes, 2) intersections and unions."""
    inside, union = pairs.sum(0).double().unbind(-1)
    shares = (inside / union)[union > 0]
    value = 100 * float(shares.mean()) if len(shares) else 0.0
    return Metric(value=value, label=label, samples=Samples.of_ratio(pairs.numpy()))
