"""The ordered road maps: section 2 of "A ConvNet for the 2020s", from its first step to its last.

``t`` is ResNet-50 to ConvNeXt-T (Table 10), ``b`` ResNet-200 to ConvNeXt-B (Table 11), ``nano``
has the same steps from a narrow, shallow base for 64x64 images, and is ours.
"""

from __future__ import annotations

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.roadmap import Roadmap, Step, StepError, Variant
from convnext_study.roadmap.spec import RESNET50, RESNET200, RESNET_NANO
from convnext_study.roadmap.steps import (
    DEPTHWISE_CONV,
    ENHANCED_RECIPE,
    FEWER_ACTIVATIONS,
    FEWER_NORMS,
    GELU,
    INCREASE_WIDTH,
    INVERT_DIMENSIONS,
    KERNELS,
    LAYER_NORM,
    MOVE_UP_DEPTHWISE,
    PATCHIFY_STEM,
    SEPARATE_DOWNSAMPLING,
    STAGE_RATIO,
)

__all__ = ["DEFAULT_REGIME", "ROADMAPS", "Roadmap", "Step", "StepError", "Variant", "get_roadmap"]

# The steps that all road maps share, in the paper's order.
_SHARED = (
    INVERT_DIMENSIONS,
    MOVE_UP_DEPTHWISE,
    *KERNELS,
    GELU,
    FEWER_ACTIVATIONS,
    FEWER_NORMS,
    LAYER_NORM,
)

T = Roadmap(
    regime="t",
    title="ResNet-50 to ConvNeXt-T (Table 10)",
    base=RESNET50,
    base_label="ResNet-50 (PyTorch)",
    steps=(
        ENHANCED_RECIPE,
        STAGE_RATIO,
        PATCHIFY_STEM,
        DEPTHWISE_CONV,
        INCREASE_WIDTH,
        *_SHARED,
        SEPARATE_DOWNSAMPLING,
    ),
)

B = Roadmap(
    regime="b",
    title="ResNet-200 to ConvNeXt-B (Table 11)",
    base=RESNET200,
    base_label="ResNet-200",
    steps=(
        ENHANCED_RECIPE.replace("ResNet-200 (enhanced recipe)", name="resnet200"),
        STAGE_RATIO.replace("stage ratio and increase width", depths=(3, 3, 27, 3), width=84),
        PATCHIFY_STEM,
        DEPTHWISE_CONV,
        INCREASE_WIDTH.replace("increase width", width=128),
        *_SHARED,
        SEPARATE_DOWNSAMPLING.replace("separate d.s. conv (ConvNeXt-B)", recipe="modern-b"),
    ),
)

NANO = Roadmap(
    regime="nano",
    title="the same steps from a narrow, shallow base, for 64x64 images (ours)",
    base=RESNET_NANO,
    base_label="ResNet-nano (classic recipe)",
    steps=(
        ENHANCED_RECIPE.replace("ResNet-nano (enhanced recipe)", name="resnet"),
        STAGE_RATIO.replace("stage ratio", depths=(1, 1, 3, 1)),
        PATCHIFY_STEM,
        DEPTHWISE_CONV,
        INCREASE_WIDTH.replace("increase width", width=12),
        *_SHARED,
        SEPARATE_DOWNSAMPLING.replace("separate d.s. conv (ConvNeXt-nano)"),
    ),
    image_size=64,
    num_classes=10,
)

DEFAULT_REGIME = "nano"  # for all commands: minutes on a laptop
ROADMAPS: dict[str, Roadmap] = {road.regime: road for road in (T, B, NANO)}


def get_roadmap(regime: str) -> Roadmap:
    """The road map of that name. Raises StepError if there is none."""
    if regime not in ROADMAPS:
        raise StepError(f"{regime}: no such road map{did_you_mean(regime, list(ROADMAPS))}")
    return ROADMAPS[regime]
