"""An anytime network as data (no torch here), as in a run's record.

The defaults are the small network for the embedded data set. The authors' numbers are in
``published.toml``.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from convnext_study.roadmap.spec import Spec, SpecError

FLEX_WIDTH = 64  # for backbones without one by the authors; ours
BATCHNORM_MOMENTUM = 0.01  # the authors', as torch counts it

CHOICES: dict[str, tuple[str, ...]] = {
    "heads": ("original", "flex"),
    "masks": ("none", "confidence", "entropy", "heatmap", "random"),
}


@functools.cache
def published() -> dict[str, Any]:
    """The authors' networks, counts, recipe and results, from ``published.toml``."""
    return tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))


class HRNetSize(NamedTuple):
    """The structure of an HRNet of ours."""

    stem: int  # channels of the two stem convolutions
    bottleneck: int  # width of stage 1's bottlenecks, whose output is four times as wide
    stage1_blocks: int
    widths: tuple[int, int, int, int]  # of the branches at 1/4, 1/8, 1/16, 1/32
    blocks: int  # basic blocks in each branch of a module
    modules: tuple[int, int, int]  # exchange modules of stages 2, 3 and 4
    flex_width: int  # hidden channels of flex heads


# Ours, for minutes on a laptop; the narrow and wide ones for one-exit baselines.
HRNETS = {
    "hrnet_digits": HRNetSize(16, 8, 1, (8, 16, 24, 32), 1, (1, 1, 1), 16),
    "hrnet_digits_narrow": HRNetSize(8, 4, 1, (4, 8, 12, 16), 1, (1, 1, 1), 8),
    "hrnet_digits_wide": HRNetSize(32, 16, 1, (16, 32, 48, 64), 1, (1, 1, 1), 32),
}


@dataclass(frozen=True, kw_only=True)
class AnytimeSpec(Spec):
    """The structure of an anytime network. Hashable, and unchanged by a round trip through JSON.

    Args:
        backbone: one of `HRNETS`, an HRNet of timm's (``hrnet_w48``), or any model of timm or of
            this package with ``features_only``, whose stages can be run one by one.
        heads: ``original`` (EE), or ``flex`` (RH): heads that see more context, at all exits but
            the backbone's last.
        flex_width: hidden channels of flex heads; None takes the backbone's published width.
        exits: numbers of the exits, from 1. Stages after the last are left out, so that ``(4,)``
            is the plain network and ``(2,)`` a shorter one.
        pretrained: whether the backbone starts from timm's weights, which are downloaded.
        masks: ``none``; ``confidence`` (CA): computed where the exit before is not confident;
            ``entropy``, in the authors' code and not in their paper's setting: computed where the
            entropy of the classes is at least the threshold; ``heatmap``, of joints: where the
            largest heatmap is, ours; ``random``: as many random positions, a control.
        threshold: positions with a largest probability above it are confident; with ``entropy``, in
            nats, and ``heatmap`` those below it.
        grid: one in this many positions, along each axis, is always computed, as in the authors'
            code; 0: none.
        random_shares: with random masks, the share of positions computed for each exit but the
            first.
        merge: confident positions keep the logits of the exit before.
        head_momentum: of the heads' BatchNorms, by torch's definition. The authors' is 0.01, as in
            the backbone.

    Raises:
        SpecError: an invalid value, in one line that names the field.
    """

    backbone: str = "hrnet_digits"
    heads: str = "flex"
    flex_width: int | None = None
    exits: tuple[int, ...] = (1, 2, 3, 4)
    pretrained: bool = False
    masks: str = "none"
    threshold: float = dataclasses.field(
        default_factory=lambda: float(published()["mask"]["threshold"])
    )
    grid: int = 0
    random_shares: tuple[float, ...] = ()
    merge: bool = True
    head_momentum: float = 0.1

    @classmethod
    def kind(cls) -> str:
        """The network's name in errors."""
        return "an anytime network"

    def check(self) -> None:
        """Raises SpecError."""
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise SpecError(f"{name}: {value!r} is unknown; use one of {', '.join(allowed)}")
        if not isinstance(self.backbone, str) or not self.backbone:
            raise SpecError(f"backbone: {self.backbone!r}; name a model, such as hrnet_w48")
        _check_exits(self.exits)
        width = self.flex_width
        if width is not None and (type(width) is not int or width < 1):
            raise SpecError(f"flex_width: {width!r}; use a whole number of at least 1, or null")
        if not _is_share(self.threshold) and not (self.masks == "entropy" and self.threshold > 0):
            raise SpecError(f"threshold: {self.threshold!r}; use a probability from 0 to 1")
        if type(self.grid) is not int or self.grid < 0:
            raise SpecError(f"grid: {self.grid!r}; use a whole number of positions, or 0 for none")
        if not _is_share(self.head_momentum):
            raise SpecError(f"head_momentum: {self.head_momentum!r}; use a number from 0 to 1")
        for name in ("merge", "pretrained"):
            if type(getattr(self, name)) is not bool:
                raise SpecError(f"{name}: {getattr(self, name)!r}; use true or false")
        if self.masks == "none" and self.random_shares:
            raise SpecError(
                "random_shares: applies only to masks random; leave it empty, or "
                "set masks to random"
            )
        if self.masks == "random":
            _check_shares(self.random_shares, self.exits)

    def width_of_flex_heads(self) -> int:
        """Hidden channels of flex heads."""
        widths = {name: size.flex_width for name, size in HRNETS.items()}
        widths |= {b["timm"]: b["flex_width"] for b in published()["backbone"].values()}
        return self.flex_width or widths.get(self.backbone, FLEX_WIDTH)


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _check_exits(exits: Any) -> None:
    valid = isinstance(exits, tuple) and all(type(exit) is int and exit >= 1 for exit in exits)
    if not valid or not exits or list(exits) != sorted(set(exits)):
        raise SpecError(f"exits: {exits!r}; use exit numbers from 1 in ascending order, as [1, 2]")


def _check_shares(shares: Any, exits: tuple[int, ...]) -> None:
    valid = isinstance(shares, tuple) and len(shares) == len(exits) - 1
    if not valid or not all(_is_share(share) for share in shares):
        raise SpecError(
            f"random_shares: {shares!r}; use one number from 0 to 1 for each exit after the first"
        )
    if list(shares) != sorted(shares, reverse=True):
        raise SpecError(
            f"random_shares: {shares!r}; they cannot increase: what was skipped stays skipped"
        )
