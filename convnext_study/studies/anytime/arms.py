"""What is compared: networks with one exit and with several, heads, masks, and controls.

The arms are the paper's, and three controls of ours: smaller and larger networks with one exit,
masks by chance, and exits that are there in training alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TASK = "anytime"
AUXILIARY = 0.4  # weight of exits for training alone, as of PSPNet's (Zhao et al., 2017)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A network of the comparison.

    Args:
        name: of its runs.
        label: for tables.
        section: of the table.
        parent: the arm that it is compared with in the table.
        spec: fields of `AnytimeSpec` that are set.
        task: the task's name.
        exit_weights: of each exit's loss.
        shares_of: the arm whose shares its random masks take.
        backbone: in the place of the one that was asked for: narrower or wider.
        adopted: whether the next arm goes on from it.
    """

    name: str
    label: str
    section: str
    parent: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    task: str = TASK
    exit_weights: tuple[float, ...] | None = None
    shares_of: str | None = None
    backbone: str | None = None
    adopted: bool = True


_ONE, _SEVERAL = "One exit", "Several exits: the mean of their mIoU"
EE = Arm(name="ee", label="early exits (EE)", section=_SEVERAL, spec={"heads": "original"})
RH = Arm(name="rh", label="EE, redesigned heads (RH)", section=_SEVERAL, parent="ee")
CA = Arm(
    name="ca",
    label="RH, confidence adaptivity (CA)",
    section=_SEVERAL,
    parent="rh",
    spec={"masks": "confidence"},
)
RANDOM = Arm(
    name="random",
    label="RH, random masks at CA's shares",
    section=_SEVERAL,
    parent="ca",
    spec={"masks": "random", "random_shares": [1.0, 1.0, 1.0]},  # until it has CA's
    task="anytime-random-masks",
    shares_of="ca",
    adopted=False,
)
DEEP = Arm(
    name="deep",
    label="one exit, deep supervision",
    section=_ONE,
    parent="plain",
    spec={"heads": "original"},
    task="anytime-deep-supervision",
    exit_weights=(*[AUXILIARY] * 3, 1.0),
    adopted=False,
)
# Networks of one family: a backbone's smaller and larger relations.
RELATIONS = {
    "hrnet_digits": {"narrow": "hrnet_digits_narrow", "wide": "hrnet_digits_wide"},
    "hrnet_w18_small_v2": {"wide": "hrnet_w48"},
}


def arms_of(backbone: str) -> tuple[Arm, ...]:
    """The arms on a backbone: a short network with one exit where it has no smaller relation."""
    relations = RELATIONS.get(backbone, {})
    others = [
        Arm(
            name=f"plain_{size}",
            label=f"one exit, {size}",
            section=_ONE,
            parent="plain",
            spec={"exits": [4]},
            backbone=other,
            adopted=False,
        )
        for size, other in relations.items()
    ]
    if "narrow" not in relations:
        others.append(
            Arm(
                name="plain_short",
                label="one exit, after two stages",
                section=_ONE,
                parent="plain",
                spec={"exits": [2], "heads": "original"},
                adopted=False,
            )
        )
    plain = Arm(name="plain", label="one exit", section=_ONE, spec={"exits": [4]})
    return (plain, *others, DEEP, EE, RH, CA, RANDOM)
