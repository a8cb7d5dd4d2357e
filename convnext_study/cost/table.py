"""The cost of every row of a road map, with the paper's figures (no torch at import)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from convnext_study.cost.closed_form import closed_form
from convnext_study.cost.counter import verify_spec
from convnext_study.roadmap import Variant, get_roadmap
from convnext_study.roadmap.paper import published_row

PAPER_IMAGE_SIZE = 224


def table(
    regimes: Iterable[str], image_size: int | None = None, verify: bool = False
) -> list[dict[str, Any]]:
    """A row of plain values for every row of the given road maps.

    ``macs``, ``activations`` and ``params`` are exact counts, for one image with sides of
    ``image_size`` pixels (each road map's own by default). ``matches_paper`` says whether the MACs,
    to two decimals of 1e9, equal the paper's figure; it is None if there is nothing to compare: on
    the nano road, and at any size other than the paper's 224.

    Raises:
        StepError: an unknown road map.
        ImageTooSmall: an image that a network would reduce to nothing.
        CountersDisagree: with ``verify``, counters that disagree on a row.
    """
    rows: list[dict[str, Any]] = []
    for road in [get_roadmap(regime) for regime in regimes]:
        size = image_size or road.image_size
        variants = road.variants()
        for row in variants[1:] if verify else ():  # the first two rows are the same network
            verify_spec(f"{road.regime} {row.name}", row.spec, size, road.num_classes)
        rows += [_row(row, size, road.num_classes) for row in variants]
    return rows


def _row(variant: Variant, size: int, num_classes: int) -> dict[str, Any]:
    cost = closed_form(variant.spec, size, num_classes)
    paper = published_row(variant.regime, variant.name)
    comparable = paper is not None and size == PAPER_IMAGE_SIZE
    return {
        "regime": variant.regime,
        "step": variant.name,
        "label": variant.label,
        "macs": cost.macs,
        "params": cost.params,
        "activations": cost.activations,
        "paper_gflops": paper.gflops if paper else None,
        "paper_top1": paper.top1 if paper else None,
        "matches_paper": prints_as(cost.macs, paper.gflops) if paper and comparable else None,
        "erratum": paper.erratum if paper else None,
        "model": variant.model,
    }


def prints_as(macs: int, gflops: float) -> bool:
    """Whether MACs, rounded half up to two decimals of 1e9, equal the printed figure."""
    # In integer hundredths of 1e9: 2.675 as a float would be rounded down.
    return (macs + 5_000_000) // 10_000_000 == round(gflops * 100)
