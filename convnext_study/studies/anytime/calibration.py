"""Whether an exit's confidence is the share of its pixels that are right."""

from __future__ import annotations

import torch
from torch import Tensor

from convnext_study.data.dense.dataset import IGNORE

BINS = 15  # of equal width in confidence (Guo et al., 2017)


def reliability(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each image, (n, bins, 3): labelled pixels by confidence, their confidences' sum, and how
    many are right.

    Args:
        logits: (n, classes, h, w), at the labels' size.
        labels: (n, h, w), `IGNORE` where there is none.
    """
    confidence, said = logits.softmax(1).max(1)
    known = labels != IGNORE
    place = (confidence * BINS).long().clamp(max=BINS - 1)
    image = torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
    cell = (image * BINS + place)[known]
    sums = [
        torch.bincount(cell, weights, minlength=len(labels) * BINS)
        for weights in (
            torch.ones_like(cell, dtype=torch.float64),
            confidence[known].double(),
            (said == labels)[known].double(),
        )
    ]
    return torch.stack(sums, -1).view(len(labels), BINS, 3)


def calibration_error(counts: Tensor) -> float:
    """The expected calibration error in percent (Naeini et al., 2015), of (bins, 3) sums: the mean
    over pixels of how far the confidence of their bin is from its share of right ones."""
    pixels, confidence, right = counts.double().unbind(-1)
    return 100 * float((confidence - right).abs().sum() / pixels.sum().clamp_min(1))
