"""The numbers that the paper states, with its errata."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What the paper prints of a network on CIFAR-10: top-1 in percent, or words, and its MB."""

    top1: float | str
    mb: float


_LARGE = Published(95.15, 33.0)  # the paper does not say how this network was widened


PAPER = {
    "depths": Published("ResNet-18 + 1.32", 5.3),
    "large": _LARGE,
    "large_paths": _LARGE,
    "resnet18": Published("", 43.4),
    "se_resnet18": Published(94.50, 45.1),
}


ERRATUM = (
    "The paper prints 43.4 MB for ResNet-18. No standard ResNet-18 has that size in MB or MiB: "
    "with a 3x3 stem and 10 classes it has 11,173,962 parameters, 44.70 MB."
)
