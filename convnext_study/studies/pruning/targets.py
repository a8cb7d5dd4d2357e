"""What is pruned of a network, and which arms follow: the study's design, before any run is made.

A target is a method and an amount. For predefined methods the architecture is known beforehand, so
arms that start from random weights need no trained network; for automatic ones it is the trained
network's to say, and only the budget is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from convnext_study.recipes import Recipe
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.apply import pruned_ref
from convnext_study.studies.pruning.arm_names import (
    ALL,
    FINE_TUNED,
    INHERITED,
    LOTTERY,
    SCRATCH_B,
    SCRATCH_E,
)
from convnext_study.studies.pruning.groups import Group, widths_left
from convnext_study.studies.pruning.methods.controls import kept_of, random_widths
from convnext_study.studies.pruning.sizes import Images, groups_in, network_of, size_of

HALF, THREE_QUARTERS = 0.5, 0.75  # of the channels of each layer, that go
SPARSE = 0.8  # of the weights
SOFT = 0.3  # of the filters, the paper's


@dataclass(frozen=True)
class Source:
    """Other data, on which the network is trained whose shares are transferred.

    Args:
        data: as on the command line.
        recipe: how the network is trained there.
        images: what it sees there.
    """

    data: str
    recipe: Recipe
    images: Images


@dataclass(frozen=True)
class Target:
    """A method, how much it prunes, and the arms that are trained of what is left.

    Args:
        name: part of its runs' names.
        label: for people.
        method: as a run's task names it.
        amount: further arguments of the method.
        arms: in the order of tables.
        model: what is left, where that is known beforehand.
        ratio: the large network's budget over the pruned one's, by which Scratch-B is as long.
        capped: whether Scratch-B is never longer than twice.
        sparsity: how the large network is trained so that it can be pruned; nothing: as usual.
        control: whether it is none of the methods, but what they are compared with.
        published: the published network that it is.
        optional: whether it is trained only where the command line names it.
        rounds: in which weights are pruned, each from the round before; the arms follow the last.
        between: weights that the rounds in between train: ``rewound`` or ``inherited``.
        design: the network whose widths are designed, where it is not the pruned one.
        from_trained: whether the training that prepares for pruning starts from the dense network.
        source: where the trained network comes from, if from other data.
    """

    name: str
    label: str
    method: str
    amount: Mapping[str, Any]
    arms: Sequence[str]
    model: ModelRef | None = None
    ratio: float = 1.0
    capped: bool = False
    sparsity: Mapping[str, float] = field(default_factory=dict)
    control: bool = False
    published: str | None = None
    optional: bool = False
    rounds: int = 1
    between: str = "rewound"
    design: ModelRef | None = None
    from_trained: bool = False
    source: Source | None = None

    @property
    def is_masked(self) -> bool:
        """Whether weights are masked, and nothing removed."""
        return self.method in ("magnitude", "magnitude-round", "guided-patterns", "soft-filters")

    @property
    def is_decided_by_parent(self) -> bool:
        """Whether only the trained network says which architecture is left."""
        return self.model is None and not self.is_masked


def small_targets(model: ModelRef, images: Images, *, penalty: float) -> list[Target]:
    """Of any network: half of each layer by every method, and masks. Ours.

    Automatic methods and controls are brought to the budget of the halves, so that all compare.

    Args:
        model: the large network.
        images: what it sees.
        penalty: of network slimming.
    """
    groups = [group for group in groups_in(model, images) if group.stage >= 0]
    filters = [group for group in groups if group.producers]
    half, quarter = (
        widths_left(filters, {group.name: share for group in filters}, keep_one=True)
        for share in (HALF, THREE_QUARTERS)
    )
    found = [
        _predefined("half", "half (L1)", "l1-norm", half, ALL, model, images),
        replace(
            _predefined("quarter", "quarter (L1)", "l1-norm", quarter, ALL, model, images),
            optional=True,
        ),
    ]
    few = (FINE_TUNED, INHERITED)
    if all(len(group.consumers) == 1 and not group.concatenated for group in filters):
        found += [
            _predefined(method, f"half ({label})", method, half, few, model, images)
            for method, label in (("thinet", "ThiNet"), ("regression", "regression"))
        ]
    found += [
        _predefined(
            f"half_{word}", f"half ({word} filters)", f"l1-{word}", half, few, model, images
        )
        for word in ("random", "smallest")
    ]
    target = found[0]
    if any(group.norms for group in groups):
        macs = size_of(_known(target), images).macs
        found.append(
            Target(
                "slimming",
                "slimmed",
                "slimming",
                {"macs": macs},
                (FINE_TUNED, INHERITED, SCRATCH_E, SCRATCH_B),
                sparsity={"slimming": penalty},
            )
        )
    found.append(_random_control(target, filters, model, images))
    masked = {"ratio": SPARSE}
    found += [
        Target(
            "sparse",
            f"magnitude {SPARSE:.0%}",
            "magnitude",
            masked,
            (FINE_TUNED, INHERITED, SCRATCH_E, *LOTTERY),
        ),
        Target(
            "soft",
            f"soft filters {SOFT:.0%}",
            "soft-filters",
            {"ratio": SOFT},
            (FINE_TUNED, SCRATCH_E),
            sparsity={"soft_filters": SOFT},
            from_trained=True,
        ),
    ]
    return found


def rule_target(
    name: str, label: str, widths: Mapping[str, int], model: ModelRef, images: Images
) -> Target:
    """Predefined widths by the L1-norm, with every arm."""
    return _predefined(name, label, "l1-norm", widths, ALL, model, images)


def _predefined(
    name: str,
    label: str,
    method: str,
    widths: Mapping[str, int],
    arms: Sequence[str],
    model: ModelRef,
    images: Images,
) -> Target:
    left = pruned_ref(model, kept_of(widths), images.shape)
    ratio = size_of(model, images).budget / size_of(left, images).budget
    return Target(name, label, method, {"widths": dict(widths)}, arms, model=left, ratio=ratio)


def _random_control(
    target: Target, filters: Sequence[Group], model: ModelRef, images: Images
) -> Target:
    """Widths drawn at random, of the same MACs; their filters by the L1-norm."""
    macs = size_of(_known(target), images).macs
    net = network_of(model, images.classes)
    widths = random_widths(net, filters, macs, images.shape, seed=0)
    arms = (INHERITED, SCRATCH_E)
    label = "random widths"
    return replace(
        _predefined("random_widths", label, "l1-norm", widths, arms, model, images), control=True
    )


def _known(target: Target) -> ModelRef:
    assert target.model is not None  # noqa: S101
    return target.model
