"""The same networks at equal cost: each width is set so that the MACs come nearest to a target."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from convnext_study.cost import closed_form
from convnext_study.errors import UserError
from convnext_study.models.builders import ROADMAP_BUILDER
from convnext_study.report.tables.formatting import common_prefix
from convnext_study.roadmap import Roadmap
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.records import ModelRef, Run

KIND = "equal_macs"
END = "end"
MAX_WIDTH = 100_000  # channels, above any network
MAX_MACS = 1e18  # above any network's

Macs = Callable[[NetSpec], int]


def counter(image_size: int, num_classes: int) -> Macs:
    """Counts a spec's MACs per image of that side."""
    return lambda spec: closed_form(spec, image_size, num_classes).macs


def parse_target(text: str, road: Roadmap, macs: Macs) -> int:
    """MACs from ``end`` (those of the road's last network) or a number such as 4.5e9.

    Raises UserError.
    """
    if text == END:
        return macs(road.variant(road.adopted()[-1]).spec)
    try:
        target = float(text)
    except ValueError:
        target = 0.0
    if not 1 <= target <= MAX_MACS:
        raise UserError(
            f"match-macs: {text!r:.40}; use {END}, or a number of MACs per image such as 4.5e9"
        )
    return round(target)


def nearest_width(spec: NetSpec, target: int, macs: Macs) -> NetSpec:
    """The spec with the width whose MACs are nearest to ``target``; MACs grow with width.

    Raises UserError if the target is too large for any width.
    """
    widths = range(1, MAX_WIDTH)
    index = bisect_left(widths, target, key=lambda width: macs(spec.replace(width=width)))
    if index == len(widths):
        raise UserError(f"match-macs: {target:,} MACs are more than any width gives; use fewer")
    candidates = [spec.replace(width=width) for width in widths[max(index - 1, 0) : index + 1]]
    return min(candidates, key=lambda candidate: abs(macs(candidate) - target))


def match_macs(run: Run, target: int, macs: Macs) -> Run:
    """The run with the matching width; its metadata and label say what was adjusted.

    Raises UserError for a network that is not the road map's: its width cannot be set.
    """
    if run.model.builder != ROADMAP_BUILDER:
        raise UserError(
            f"match-macs: {run.name} is your own network, so its width is unknown; leave it out"
        )
    spec = NetSpec.from_dict(run.model.args)
    new = nearest_width(spec, target, macs)
    change = f"{spec.width} → {new.width}" if new != spec else f"{spec.width}, unchanged"
    factor, letter = common_prefix([target])
    suffix = f"-at-{target / factor:.4g}{letter}"  # enough digits to tell targets apart: ``2.245M``
    parent = run.metadata.get("parent")
    metadata: dict[str, Any] = {
        **run.metadata,
        "study_kind": KIND,
        "label": f"{run.metadata.get('label', run.name)} (width {change})",
        "parent": parent + suffix if parent else None,
        "published": False,
        "equal_macs": {
            "target": target,
            "macs": macs(new),
            "width": new.width,
            "width_before": spec.width,
            "macs_before": macs(spec),
        },
    }
    return run.model_copy(
        update={
            "study": f"{run.study}{suffix}",
            "name": run.name + suffix,
            "model": ModelRef(builder=ROADMAP_BUILDER, args=new.to_dict()),
            "metadata": metadata,
        }
    )
