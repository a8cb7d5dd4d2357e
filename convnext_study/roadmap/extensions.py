"""Extensions of the road: further steps that a user can enable, and users' own steps.

None is a row of the paper's Tables 10 and 11, and none is registered with timm.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.roadmap import Roadmap, Step, StepError

SECTION = "Beyond the road"

LAYER_SCALE = Step(
    name="layer_scale",
    label="layer scale",
    section=SECTION,
    rationale=(
        "A learned factor for each channel of a block's branch, which starts close to zero "
        "(Touvron et al., 2021). The released ConvNeXts have it; the road map does not."
    ),
    overrides={"layer_scale": 1e-6},
)

GRN = Step(
    name="grn",
    label="global response norm",
    section=SECTION,
    rationale=(
        "Before a block's last convolution, each channel is scaled up by its response relative "
        "to the mean of all channels (ConvNeXt V2, Woo et al., 2023). V2 has no layer scale."
    ),
    overrides={"grn": True},
)


def _isotropic(name: str, recipe: str | None = None, **sets: Any) -> Step:
    return Step(
        name=f"isotropic_{name}",
        label=f"isotropic layout ({name.upper() if len(name) == 1 else name})",
        section=SECTION,
        rationale=(
            "One width and one map size throughout, as in a vision Transformer: large patches, "
            "and no downsampling after them (section 3.3)."
        ),
        overrides={"layout": "isotropic", **sets},
        recipe=recipe,
    )


# Table 2: 18, 18 and 36 blocks of 384, 768 and 1024 channels on maps of 14x14; L with layer scale,
# as in its released command.
ISOTROPIC = (
    _isotropic("s", "modern-isotropic-s", depths=(3, 3, 9, 3), width=384),
    _isotropic("b", "modern-isotropic-b", depths=(3, 3, 9, 3), width=768),
    _isotropic("l", "modern-isotropic-l", depths=(3, 3, 27, 3), width=1024, layer_scale=1e-6),
)
# Ours: as many blocks as the end of the nano road, and about as many MACs, on maps of 4x4.
ISOTROPIC_NANO = _isotropic("nano", stem_stride=2, width=48)


def kernel(size: int) -> Step:
    """The step that gives the road's last network another depthwise kernel, up to 31x31.

    The road's own kernel steps come before the micro design; this one comes after.
    """
    return Step(
        name=f"end_kernel_{size}",
        label=f"kernel size → {size}, at the end",
        section=SECTION,
        rationale=f"The depthwise kernel of the road's last network becomes {size}x{size}.",
        overrides={"kernel": size},
    )


KERNELS = tuple(kernel(size) for size in (3, 5, *range(9, 32, 2)))


def extension_steps(road: Roadmap) -> tuple[Step, ...]:
    """The further steps of a road map, in the order in which they are applied."""
    layouts = ISOTROPIC if road.published else (ISOTROPIC_NANO,)
    return (*KERNELS, LAYER_SCALE, GRN, *layouts)


def extension_step(road: Roadmap, name: str) -> Step:
    """The further step of that name. Raises StepError, suggesting the closest one."""
    steps = {step.name: step for step in extension_steps(road)}
    if name not in steps:
        raise StepError(f"{name}: no such step beyond the road{did_you_mean(name, list(steps))}")
    return steps[name]


def extend(road: Roadmap, *steps: Step, adopted: bool = True) -> Roadmap:
    """The road map with further steps after its end.

    Adopted steps build on each other and move the end; others are side branches, each alone. If
    several steps set the same field, the last one wins. Raises StepError for a name that cannot
    name a folder or that the road already has, SpecError for a field that networks do not have.
    """
    names = [step.name for step in road.steps]
    for step in steps:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", step.name):
            raise StepError(
                f"step {step.name!r}: use letters, digits, '_', '.' and '-' in its name"
            )
        if step.name in names:
            raise StepError(
                f"{step.name}: the {road.regime} road map already has a step of that name"
            )
        names.append(step.name)
        road.base.replace(**step.overrides)
    return replace(road, steps=(*road.steps, *(replace(step, adopted=adopted) for step in steps)))


def network_steps(road: Roadmap) -> tuple[str, ...]:
    """Names of the adopted steps that change the network, not the recipe."""
    return tuple(name for name in road.adopted() if road.step(name).overrides)


def sections(road: Roadmap) -> dict[str, tuple[str, ...]]:
    """The network's adopted steps by section of the paper, in the road's order."""
    by_section: dict[str, tuple[str, ...]] = {}
    for name in network_steps(road):
        section = road.step(name).section
        by_section[section] = (*by_section.get(section, ()), name)
    return by_section
