"""How far confidence can be trusted: the expected calibration error (Guo et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from convnext_study.data.dense.dataset import IGNORE

BINS = 15  # as there


def confidence_bins(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Of each image, (n, bins, 3) float64: pixels of a confidence in a bin, the sum of their
    confidences, and how many of them are right.

    Args:
        probabilities: (n, classes, H, W).
        labels: (n, H, W); pixels of the ignored class are left out.
    """
    confidence, said = probabilities.max(1)
    known = labels != IGNORE
    image = torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
    place = (confidence * BINS).long().clamp_max(BINS - 1) + image * BINS
    found = torch.zeros(len(labels) * BINS, 3, dtype=torch.float64, device=labels.device)
    values = torch.stack([torch.ones_like(confidence), confidence, (said == labels).float()], -1)
    found.index_add_(0, place[known], values[known].double())
    return found.view(len(labels), BINS, 3)


def calibration_error(bins: Tensor) -> float:
    """The mean over pixels of how far their bin's confidence is from its accuracy, from 0 to 1.

    ``bins`` (bins, 3), summed over images; NaN without a pixel.
    """
    pixels, confidence, right = bins.unbind(-1)
    return float((confidence - right).abs().sum() / pixels.sum())
