"""Layers, costs and recipes side by side, at most 80 columns wide, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from operator import itemgetter
from typing import Any

from rich.constrain import Constrain
from rich.text import Text

from convnext_study.cost import closed_form
from convnext_study.report.show.layers import LayerLine
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import (
    MEGA,
    Prefix,
    common_prefix,
    digits,
    mean_std,
    number,
    signed,
)
from convnext_study.report.tables.render import Screen
from convnext_study.results.paper import PAPER_METRIC
from convnext_study.roadmap import Roadmap, Variant
from convnext_study.roadmap.paper import PublishedRow, published_row

WIDTH = 79
SIDE = 38  # two sides and the bar between them fill the width
BAR = " │ "
REMOVED, ADDED = "-", "+"
Pair = tuple[LayerLine | None, LayerLine | None]
_COLUMNS = f"{'channels':>9} {'map':>3} {'MMACs':>5}"


def names(before: str, after: str) -> Text:
    """Which network is on which side, with the signs of changed lines."""
    left = f"{REMOVED} before: {before}"
    return Text(f"{left:<{SIDE}}{BAR}{ADDED} after: {after}\n", "bold")


def compare(title: str, before: Sequence[LayerLine], after: Sequence[LayerLine]) -> Text:
    """A part of a network before and after a step; changed lines are marked on both sides."""
    text = Text()
    text.append(f"{title}\n", "bold")
    _rows(text, _aligned(before, after), (REMOVED, ADDED))
    return text


def beside(parts: Mapping[str, Sequence[LayerLine]]) -> Text:
    """Two parts of one network, by title."""
    (left, right), (left_lines, right_lines) = parts, parts.values()
    text = Text()
    text.append(f"{left:<{SIDE}}{BAR}{right}\n", "bold")
    _rows(text, list(zip_longest(left_lines, right_lines)), (" ", " "))
    return text


def legend() -> Text:
    """What the names and columns mean."""
    return Text(
        "/2: stride 2   +b: with bias   dwconv: depthwise, one group per channel\n"
        "map: side of the output map   MMACs: 1e6 multiply-accumulates for one image\n",
        "dim",
    )


def _rows(text: Text, pairs: Sequence[Pair], marks: tuple[str, str]) -> None:
    text.append(f"{_COLUMNS:>{SIDE}}{BAR}{_COLUMNS:>{SIDE}}\n", "dim")
    for left, right in pairs:
        same = left == right
        text.append(*_cell(left, " " if same else marks[0], "red"))
        text.append(BAR, "dim")
        text.append(*_cell(right, " " if same else marks[1], "green"))
        text.append("\n")


def _aligned(before: Sequence[LayerLine], after: Sequence[LayerLine]) -> list[Pair]:
    """The pairs of each row, None for a gap: layer by layer where only sizes change, else with
    equal lines aligned."""
    if [line.name for line in before] == [line.name for line in after]:
        return list(zip(before, after, strict=True))
    pairs: list[Pair] = []
    # Parts are short and their lines repeat, which difflib would treat as junk.
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        pairs += zip_longest(before[i:i_end], after[j:j_end])
    return pairs


def _cell(line: LayerLine | None, mark: str, colour: str) -> tuple[str, str]:
    """The text of one side, padded to its width, and its style."""
    if line is None:
        return " " * SIDE, ""
    side = "" if line.side is None else str(line.side)
    cell = f"{mark} {line.name:<16} {line.channels:>9} {side:>3} {_millions(line.macs):>5}"
    return cell, "" if mark == " " else f"bold {colour}"


def _millions(macs: int) -> str:
    if macs == 0:
        return ""
    millions = macs / 1e6
    digits = 2 if millions < 10 else 1 if millions < 1000 else 0
    return f"{millions:.{digits}f}"


_NUMBERS = ("before", "after", "change")
_CostRow = tuple[str, str, str, str, str]  # name, before, after, change, and percent or source


def compare_costs(road: Roadmap, before: Variant | None, variant: Variant, size: int) -> Constrain:
    """Before, after, difference and percent; the paper's accuracy where the paper has the row."""
    new = closed_form(variant.spec, size, road.num_classes)
    old = closed_form(before.spec, size, road.num_classes) if before else None
    prefix = common_prefix([new.macs, old.macs if old else None])
    lines = [
        _cost("MACs", old.macs if old else None, new.macs, prefix, 4),
        _cost("parameters", old.params if old else None, new.params, MEGA, 3),
    ]
    notes: list[str] = []
    paper = published_row(variant.regime, variant.name)
    if paper:
        lines.append(
            _accuracy(published_row(before.regime, before.name) if before else None, paper)
        )
        notes += ["", f"Erratum. {paper.erratum}"] if paper.erratum else []
        notes += ["±: standard deviation over 3 seeds"] if paper.std is not None else []
    columns: list[Column[_CostRow]] = [
        Column(heading, heading, itemgetter(i), "number" if heading in _NUMBERS else "text")
        for i, heading in enumerate((f"Cost at {size}x{size}", *_NUMBERS, ""))
    ]
    return on_screen(Table("cost", "", columns, lines, (*notes, "")))


def _cost(label: str, old: int | None, new: int, prefix: Prefix, decimals: int) -> _CostRow:
    name, after = f"{label}, {prefix.letter}", number(new / prefix.factor, decimals)
    if old is None:
        return (name, "", after, "", "")
    change, share = "none", ""
    if new != old:
        change = signed((new - old) / prefix.factor, decimals)
        share = f"{signed(100 * (new - old) / old, 1)} %"
    return (name, number(old / prefix.factor, decimals), after, change, share)


def _accuracy(old: PublishedRow | None, new: PublishedRow) -> _CostRow:
    after, source = mean_std(new.top1, new.std), "paper, ImageNet-1K"
    if old is None:
        return (PAPER_METRIC.axis, "", after, "", source)
    before, change = mean_std(old.top1, old.std), signed(new.top1 - old.top1)
    return (PAPER_METRIC.axis, before, after, change, source)


def tried_beside(road: Roadmap, variant: Variant, size: int) -> list[Constrain]:
    """The rows with the same parent that set the same fields, where there are several."""
    variants = [row for row in road.variants() if _same_fields(row, variant)]
    if len(variants) < 2:
        return []
    costs = {row.name: closed_form(row.spec, size, road.num_classes) for row in variants}
    papers = {row.name: published_row(row.regime, row.name) for row in variants}
    columns: list[Column[Variant]] = [
        Column("step", "Tried beside it", lambda row: row.name, "text"),
        Column("macs", "MACs", lambda row: costs[row.name].macs, format=digits(4), prefixed=True),
        Column(
            "params", "params", lambda row: costs[row.name].params, format=digits(3), prefixed=True
        ),
        Column(
            "top1",
            f"{PAPER_METRIC.heading} (paper)",
            lambda row: getattr(papers[row.name], "top1", None),
        ),
        Column("adopted", "", lambda row: "adopted" if row.adopted else "", "text"),
    ]
    return [on_screen(Table("tried", "", columns, variants))]


def on_screen(table: Table[Any]) -> Constrain:
    """A table as wide as a screen."""
    return Constrain(Screen(table), WIDTH)


def _same_fields(other: Variant, variant: Variant) -> bool:
    if other.step is None or variant.step is None or not variant.step.overrides:
        return False
    return (
        other.parent == variant.parent
        and other.step.overrides.keys() == variant.step.overrides.keys()
    )
