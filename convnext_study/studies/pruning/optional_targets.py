"""What the study can train beside its usual targets: iterative rounds, and designed architectures.

``--networks vgg16_eighth=usual+rounds`` asks for them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convnext_study.errors import UserError
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.arm_names import CONTROL, SCRATCH_B, SCRATCH_E, TICKET
from convnext_study.studies.pruning.decide import STAGE_SHARES
from convnext_study.studies.pruning.groups import widths_left
from convnext_study.studies.pruning.sizes import Images, groups_in, size_of
from convnext_study.studies.pruning.targets import HALF, SPARSE, Source, Target, rule_target

COUNT = 3  # of rounds, ours: each prunes 42 % of what is left, together as much as at once
SCRATCH = (SCRATCH_E, SCRATCH_B)
GUIDED, TRANSFERRED = "guided", "transferred"
FROM = "_from_"  # in the name of a target whose shares come from other data


def optional_targets(slimmed: Sequence[Target] = ()) -> list[Target]:
    """Of any network; ``slimmed`` are its targets of network slimming, each of which guides one."""
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
    return found + [_guided(target) for target in slimmed]


def transferred_targets(
    label: str, model: ModelRef, images: Images, slimmed: Target
) -> list[Target]:
    """Another network of the slimmed one's shares, and the same with half of each layer.

    Args:
        label: the other network's.
        model: the other network.
        images: what it sees.
        slimmed: the target of network slimming whose shares are taken.
    """
    groups = [one for one in groups_in(model, images) if one.stage >= 0 and one.producers]
    half = widths_left(groups, {one.name: HALF for one in groups}, keep_one=True)
    uniform = rule_target("transferred_uniform", f"{label} uniform", half, model, images)
    assert uniform.model is not None  # noqa: S101
    budget = size_of(uniform.model, images).macs
    return [
        _by_shares(slimmed, TRANSFERRED, f"{label} transferred", budget, design=model),
        replace(uniform, arms=SCRATCH, optional=True, control=True),
    ]


def from_other_data(target: Target, there: Target, source: Source) -> Target:
    """A guided or transferred target whose shares are those of a network slimmed on other data.

    Args:
        target: with the slimmed network of the study's own data.
        there: the same target where the other data is the study's.
        source: the other data, and how the network is trained on it.

    Raises UserError for a target that takes weights, and not an architecture alone.
    """
    if target.method != STAGE_SHARES:
        raise UserError(
            f"{target.name}@{source.data}: only guided and transferred architectures can come from "
            "other data; leave the part from @ on"
        )
    scheme = source.data.partition(":")[0]
    images = {"side": source.images.side, "classes": source.images.classes}
    amount = {**target.amount, "source": images}
    if "macs" in there.amount:
        amount["macs"] = there.amount["macs"]
    return replace(
        target,
        name=f"{target.name}{FROM}{scheme}",
        label=f"{target.label} (from {scheme})",
        amount=amount,
        sparsity=there.sparsity,
        source=source,
    )


def _guided(slimmed: Target) -> Target:
    """``guided`` of ``slimming``, ``guided_70`` of ``slim_70``; of as many MACs."""
    _, _, which = slimmed.name.partition("_")
    name, label = GUIDED, "guided widths"
    if which:
        name, label = f"{GUIDED}_{which}", f"{label}, slimmed by {which} %"
    return _by_shares(slimmed, name, label, slimmed.amount.get("macs"))


def _by_shares(
    slimmed: Target, name: str, label: str, macs: int | None, design: ModelRef | None = None
) -> Target:
    amount = dict(slimmed.amount) if macs is None else {**slimmed.amount, "design_macs": macs}
    return Target(
        name,
        label,
        STAGE_SHARES,
        amount,
        SCRATCH,
        sparsity=slimmed.sparsity,
        optional=True,
        design=design,
    )
