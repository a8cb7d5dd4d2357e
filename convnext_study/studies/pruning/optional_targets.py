"""What the study can train beside its usual targets: iterative rounds, and designed architectures.

``--networks vgg16_eighth=usual+rounds`` asks for them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.decide import STAGE_SHARES
from convnext_study.studies.pruning.groups import widths_left
from convnext_study.studies.pruning.sizes import Images, groups_in, size_of
from convnext_study.studies.pruning.targets import (
    CONTROL,
    HALF,
    SCRATCH_B,
    SCRATCH_E,
    SPARSE,
    TICKET,
    Target,
    rule_target,
)

COUNT = 3  # of rounds, ours: each prunes 42 % of what is left, together as much as at once
SCRATCH = (SCRATCH_E, SCRATCH_B)


def optional_targets(*, penalty: float | None, macs: int | None) -> list[Target]:
    """Of any network; what is guided by a slimmed network only where it can be slimmed.

    Args:
        penalty: of network slimming, None for a network without BatchNorm.
        macs: of the slimmed network and of the guided one.
    """
    share = {"ratio": 1 - (1 - SPARSE) ** (1 / COUNT)}
    rounds = Target(
        "rounds",
        f"{COUNT} rounds, rewound",
        "magnitude-round",
        share,
        (TICKET, CONTROL),
        optional=True,
        rounds=COUNT,
    )
    on = f"{COUNT} rounds, trained on"
    found = [
        rounds,
        replace(rounds, name="rounds_on", label=on, between="inherited"),
        Target(
            "patterns",
            f"guided patterns {SPARSE:.0%}",
            "guided-patterns",
            {"ratio": SPARSE},
            (SCRATCH_E,),
            optional=True,
        ),
    ]
    if penalty is not None and macs is not None:
        found.append(_by_shares("guided", "guided widths", penalty, macs, macs))
    return found


def transferred_targets(
    label: str, model: ModelRef, images: Images, *, penalty: float, macs: int
) -> list[Target]:
    """Another network of the slimmed one's shares, and the same with half of each layer.

    Args:
        label: the other network's.
        model: the other network.
        images: what it sees.
        penalty: of network slimming.
        macs: of the slimmed network.
    """
    groups = [one for one in groups_in(model, images) if one.stage >= 0 and one.producers]
    half = widths_left(groups, {one.name: HALF for one in groups}, keep_one=True)
    uniform = rule_target("transferred_uniform", f"{label} uniform", half, model, images)
    assert uniform.model is not None  # noqa: S101
    budget = size_of(uniform.model, images).macs
    transferred = _by_shares("transferred", f"{label} transferred", penalty, macs, budget)
    return [
        replace(transferred, design=model, arms=(SCRATCH_E,)),
        replace(uniform, arms=(SCRATCH_E,), optional=True, control=True),
    ]


def _by_shares(name: str, label: str, penalty: float, macs: int, design_macs: int) -> Target:
    amount: Mapping[str, Any] = {"macs": macs, "design_macs": design_macs}
    return Target(
        name,
        label,
        STAGE_SHARES,
        amount,
        SCRATCH,
        sparsity={"slimming": penalty},
        optional=True,
    )
