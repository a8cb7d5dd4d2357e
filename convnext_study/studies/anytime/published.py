"""The authors' numbers and the exact counts of their networks, read from ``published.toml``."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIGA, GIBI = 10**9, 2**30  # the second is the unit that the authors print as "GFLOPs"


@dataclass(frozen=True)
class CountedNetwork:
    """A network whose cost is known to the last digit, for one image.

    Args:
        name: short, such as ``w48-rh``.
        label: for tables.
        backbone: timm's name of it.
        heads: ``original`` or ``flex``.
        flex_width: channels inside of flex heads, None without them.
        exits: numbers of its exits, from 1.
        input_size: height and width of the image, in pixels.
        macs: up to each exit, with the heads of the earlier ones.
        params: of the whole network.
        head_macs: of each exit's head; empty where not stated.
        head_params: likewise.
        params_to_exit: of all that is computed up to each exit; empty where not stated.
    """

    name: str
    label: str
    backbone: str
    heads: str
    flex_width: int | None
    exits: tuple[int, ...]
    input_size: tuple[int, int]
    macs: tuple[int, ...]
    params: int
    head_macs: tuple[int, ...] = ()
    head_params: tuple[int, ...] = ()
    params_to_exit: tuple[int, ...] = ()


@functools.cache
def published() -> dict[str, Any]:
    """Everything in ``published.toml``, as plain values."""
    return tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))


def counted_networks() -> tuple[CountedNetwork, ...]:
    """Every network that the authors' code builds: with four exits first, then the plain ones."""
    numbers = published()
    return tuple(_counted(row, numbers) for row in (*numbers["count"], *numbers["baseline"]))


def flex_width_of(backbone: str) -> int | None:
    """The published width of flex heads on a backbone of timm's name, None for any other."""
    known = {one["timm"]: int(one["flex_width"]) for one in published()["backbone"].values()}
    return known.get(backbone)


def _counted(row: dict[str, Any], numbers: dict[str, Any]) -> CountedNetwork:
    plain = isinstance(row["macs"], int)
    last = len(numbers["recipe"]["exit_weights"])
    height, width = row["input"]
    return CountedNetwork(
        name=row["name"],
        label=row["label"],
        backbone=numbers["backbone"][row["backbone"]]["timm"],
        heads=row.get("heads", "original"),
        flex_width=row.get("inter"),
        exits=(last,) if plain else tuple(range(1, last + 1)),
        input_size=(height, width),
        macs=(row["macs"],) if plain else tuple(row["macs"]),
        params=row["params"],
        head_macs=tuple(row.get("head_macs", ())),
        head_params=tuple(row.get("head_params", ())),
        params_to_exit=tuple(row.get("params_to_exit", ())),
    )
