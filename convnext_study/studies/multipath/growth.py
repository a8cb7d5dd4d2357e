"""The cost of widening: parameters of the small network, widened by paths or by channels.

They are counted from the spec alone, without torch and the code that builds the network, so that
each checks the other. By paths, 3x3 convolutions grow linearly, as the paper states. The 1x1
convolutions around them, in our reconstruction, connect all channels and grow quadratically in
either case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from convnext_study.report.figures.style import COLOURS, draw_charts, style
from convnext_study.studies.multipath.spec import SMALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What widening costs (our reconstruction of the small network)"
WAYS = ("paths", "channels")
FACTORS = (1, 2, 3, 4, 6, 8)
PARTS = {"conv3": "3x3 convolutions", "conv1": "1x1 convolutions", "total": "whole network"}
IN_CHANS, CLASSES = 3, 10
_LINES = {"paths": ("link", "-o"), "channels": ("mark", "--s")}


@dataclass(frozen=True)
class Growth:
    """Parameters of a widened network: 3x3 convolutions in the paths, 1x1 ones, stem and head.

    The 1x1 convolutions are the compressing ones of each path, the fuse and the shortcuts. Norms
    count with their convolutions.
    """

    conv3: int
    conv1: int
    stem_and_head: int

    @property
    def total(self) -> int:
        """Parameters of the whole network."""
        return self.conv3 + self.conv1 + self.stem_and_head


def growth(way: str, factor: int) -> Growth:
    """`SMALL` with ``factor`` times the channels, widened by ``paths`` or by ``channels``."""
    if way == "paths":
        wide = SMALL.replace(depths=tuple(sorted(SMALL.depths * factor)))
    else:
        wide = SMALL.replace(width=SMALL.width * factor)
    widths = wide.widths()
    conv3 = wide.modules * sum(wide.depths) * sum(_conv(c, c, 3) for c in wide.path_widths())
    # The paths' first ones, and the fuse; a stage's first module has a shortcut too.
    inner = sum(2 * wide.modules * _conv(c, c, 1) for c in widths)
    shortcuts = sum(2 * _conv(c_in, c, 1) - _conv(c, c, 1) for c_in, c in pairwise(widths))
    stem_and_head = _conv(IN_CHANS, widths[0], 3) + (widths[-1] + 1) * CLASSES
    return Growth(conv3, inner + shortcuts, stem_and_head)


def _conv(c_in: int, c_out: int, kernel: int) -> int:
    """A convolution without bias and the BatchNorm after it."""
    return kernel**2 * c_in * c_out + 2 * c_out


def exponent(way: str, part: str) -> float:
    """The power of the number of channels by which a part grows, over the last doubling."""
    half, full = (growth(way, factor) for factor in (FACTORS[-1] // 2, FACTORS[-1]))
    return math.log2(getattr(full, part) / getattr(half, part))


def sentences() -> list[str]:
    """The counts in sentences, with all numbers computed here."""
    largest = FACTORS[-1]
    lines = []
    for way in WAYS:
        powers = ", ".join(f"{name} ^{exponent(way, part):.2f}" for part, name in PARTS.items())
        total = growth(way, largest).total
        lines.append(
            f"In {way}, the number of parameters grows with the number of channels "
            f"to the power: {powers}."
        )
        lines.append(f"  At {largest} times the channels: {total:,} parameters.")
    counts = growth("paths", largest)
    share = 100 * counts.conv1 / counts.total
    lines.append(
        "Widening in paths is linear only in the 3x3 convolutions. The 1x1 convolutions of our "
        "reconstruction (compression, fusion, shortcuts) grow quadratically either way, and at "
        f"{largest} times the channels are {share:.0f} % of the network widened in paths."
    )
    return lines


@style()
def figure() -> Figure:
    """Parameters against channels, for both ways of widening and for each part."""
    chart, charts = draw_charts(list(PARTS.values()), (3.4, 3.6), sharey=True)
    chart.suptitle(TITLE, fontsize=12, fontweight="bold")
    for axes, part in zip(charts, PARTS, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="channels, times the small one's")
        for way, (colour, line) in _LINES.items():
            counts = [getattr(growth(way, factor), part) / 1e6 for factor in FACTORS]
            label = f"by {way}: power {exponent(way, part):.2f}"
            axes.plot(FACTORS, counts, line, color=COLOURS[colour], label=label)
        axes.set_xticks(FACTORS, [str(factor) for factor in FACTORS])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend()
    charts[0].set_ylabel("parameters, millions")
    return chart
