"""Two lists of lines side by side, at most 80 columns wide, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest

from rich.text import Text

from convnext_study.report.show.layers import Line

WIDTH = 79
SIDE = 38  # two of them and the bar between fill the width
BAR = " │ "
REMOVED, ADDED = "-", "+"
Pair = tuple[Line | None, Line | None]
_COLUMNS = f"{'channels':>9} {'map':>3} {'MMACs':>5}"


def names(before: str, after: str) -> Text:
    """Which network stands on which side; the signs are those of the lines that change."""
    left = f"{REMOVED} before: {before}"
    return Text(f"{left:<{SIDE}}{BAR}{ADDED} after: {after}\n", "bold")


def compare(title: str, before: Sequence[Line], after: Sequence[Line]) -> Text:
    """A part of a network before and after a step; changed lines are marked on both sides."""
    text = Text()
    text.append(f"{title}\n", "bold")
    _rows(text, _aligned(before, after), (REMOVED, ADDED))
    return text


def beside(parts: Mapping[str, Sequence[Line]]) -> Text:
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


def _aligned(before: Sequence[Line], after: Sequence[Line]) -> list[Pair]:
    """Pairs that stand on one row, None for a gap: layer by layer where only sizes change,
    else so that equal lines meet."""
    if [line.name for line in before] == [line.name for line in after]:
        return list(zip(before, after, strict=True))
    pairs: list[Pair] = []
    # Parts are short and their lines repeat, which difflib would take for noise.
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        pairs += zip_longest(before[i:i_end], after[j:j_end])
    return pairs


def _cell(line: Line | None, mark: str, colour: str) -> tuple[str, str]:
    """The text of one side, as wide as a side, and its style."""
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
