"""An example of your own: a step that sets a field of the network, and a network of your own.

    convnext-study study example_own_step --seeds 3
    convnext-study study leave_one_out --extra-steps ablations/example_own_step.py

The first trains both: they are rows of every table and figure of the folder. The second
appends ``STEPS`` to the road and measures what every step, yours included, contributes.
docs/your_own_step.md explains it.

Runs: 3 per seed. Cost on the nano road: about a minute per seed on two cores.

Expect: a network of three convolutions is far behind; nothing is claimed for the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convnext_study.experiments.context import Context
from convnext_study.roadmap import Step
from convnext_study.roadmap.extensions import SECTION
from convnext_study.runs.records import Run

if TYPE_CHECKING:
    from torch import nn

WIDER_INSIDE = Step(
    name="expansion_6",
    label="expansion 4 → 6",
    section=SECTION,
    rationale="The inverted block becomes six times as wide inside, as in MobileNetV2.",
    overrides={"expansion": 6},
)

STEPS = (WIDER_INSIDE,)


def plain(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """Three convolutions. Any module from images to logits will do; torch is imported here."""
    from torch import nn

    width = args["width"]
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


def runs(context: Context) -> list[Run]:
    own = context.network("plain", "three convolutions", f"{__file__}:plain", {"width": 24})
    rows = ["separate_downsampling", *(step.name for step in STEPS)]
    return [*context.runs(rows), *own]
