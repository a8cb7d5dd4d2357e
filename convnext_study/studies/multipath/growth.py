"""What widening costs: parameters of networks that are widened by paths or by channels, counted.

Counted from the spec alone, without torch and without the code that builds the network, so that
agreement with it means something. By paths, 3x3 convolutions grow linearly, as the paper states.
The 1x1 convolutions around them, in our reconstruction, join every channel to every channel and
grow quadratically either way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnext_study.report.figures.style import COLOURS, draw_charts, style
from convnext_study.studies.multipath.spec import SE_REDUCTION, SMALL, STAGES, MultipathSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What widening costs (our reconstruction of the small network)"
WAYS = ("paths", "channels")
FACTORS = (1, 2, 3, 4, 6, 8)
PARTS = {"conv3": "3x3 convolutions", "conv1": "1x1 convolutions", "total": "whole network"}
_LINES = {"paths": ("link", "-o"), "channels": ("mark", "--s")}


@dataclass(frozen=True)
class ModuleParts:
    """Parameters of one module, norms included.

    Args:
        paths: of each path: its 1x1 convolution and its 3x3 convolutions.
        attention: among the paths or on the channels.
        fuse: the 1x1 convolution over all paths.
        shortcut: the projection, 0 where it is the identity.
    """

    paths: tuple[int, ...]
    attention: int
    fuse: int
    shortcut: int

    @property
    def total(self) -> int:
        """Parameters of the module."""
        return sum(self.paths) + self.attention + self.fuse + self.shortcut


@dataclass(frozen=True)
class NetParts:
    """Parameters of a network: its stem, its modules in order, its classifier."""

    stem: int
    modules: tuple[ModuleParts, ...]
    head: int

    @property
    def total(self) -> int:
        """Parameters of the network."""
        return self.stem + sum(module.total for module in self.modules) + self.head


def parts(spec: MultipathSpec, *, in_chans: int = 3, num_classes: int = 10) -> NetParts:
    """The parameters of a spec's network, part by part."""
    widths = spec.widths()
    modules: list[ModuleParts] = []
    c_in = widths[0]
    for stage in range(STAGES):
        for index in range(spec.modules):
            strided = stage > 0 and index == 0
            modules.append(_module(spec, c_in, spec.path_widths()[stage], strided))
            c_in = widths[stage]
    return NetParts(_conv(in_chans, widths[0], 3), tuple(modules), (c_in + 1) * num_classes)


def _module(spec: MultipathSpec, c_in: int, width: int, strided: bool) -> ModuleParts:
    channels = width * len(spec.depths)
    shortcut = _conv(c_in, channels, 1) if strided or c_in != channels else 0
    attention = _attention(spec, channels)
    if spec.block == "basic":
        convs = _conv(c_in, width, 3) + (spec.depths[0] - 1) * _conv(width, width, 3)
        return ModuleParts((convs,), attention, 0, shortcut)
    paths = tuple(_conv(c_in, width, 1) + depth * _conv(width, width, 3) for depth in spec.depths)
    return ModuleParts(paths, attention, _conv(channels, channels, 1), shortcut)


def _conv(c_in: int, c_out: int, kernel: int) -> int:
    """A convolution without bias and the BatchNorm after it."""
    return kernel**2 * c_in * c_out + 2 * c_out


def _attention(spec: MultipathSpec, channels: int) -> int:
    if spec.attention == "none":
        return 0
    outer = len(spec.depths) if spec.attention == "path" else channels
    hidden = outer if spec.attention == "path" else max(1, channels // SE_REDUCTION)
    return (outer + 1) * hidden + (hidden + 1) * outer


@dataclass(frozen=True)
class Growth:
    """Parameters of a widened network: 3x3 convolutions in the paths, 1x1 ones, stem and head.

    The 1x1 convolutions are those that compress into each path, the fuse and the shortcuts.
    """

    factor: int
    conv3: int
    conv1: int
    ends: int

    @property
    def total(self) -> int:
        """Parameters of the whole network."""
        return self.conv3 + self.conv1 + self.ends


def growth(way: str, factor: int, spec: MultipathSpec = SMALL) -> Growth:
    """``spec`` with ``factor`` times the channels in all: as many more ``paths``, or ``channels``.

    Norms count with their convolutions. For multi-path modules without attention.
    """
    if way == "paths":
        wide = spec.replace(depths=tuple(sorted(spec.depths * factor)))
    else:
        wide = spec.replace(width=spec.width * factor)
    counted = parts(wide)
    one_deep = sum(9 * width**2 + 2 * width for width in wide.path_widths())
    conv3 = wide.modules * sum(wide.depths) * one_deep
    ends = counted.stem + counted.head
    return Growth(factor, conv3, counted.total - ends - conv3, ends)


def exponent(way: str, part: str) -> float:
    """The power of the channels by which a part grows, over the last doubling."""
    half, whole = (growth(way, factor) for factor in (FACTORS[-1] // 2, FACTORS[-1]))
    return math.log2(getattr(whole, part) / getattr(half, part))


def sentences() -> list[str]:
    """The counts in sentences, every number of them counted here."""
    most = FACTORS[-1]
    lines = []
    for way in WAYS:
        grown = ", ".join(f"{name} ^{exponent(way, part):.2f}" for part, name in PARTS.items())
        total = growth(way, most).total
        lines.append(f"By {way}, parameters grow with the channels to the power: {grown}.")
        lines.append(f"  At {most} times the channels: {total:,} parameters.")
    found = growth("paths", most)
    share = 100 * found.conv1 / found.total
    lines.append(
        f"Widening by paths is linear in the 3x3 convolutions alone. The 1x1 convolutions of our "
        f"reconstruction (compressing, fuse, shortcuts) are quadratic either way, and at {most} "
        f"times the channels {share:.0f} % of the network that was widened by paths."
    )
    return lines


@style()
def figure() -> Figure:
    """Parameters against channels, for both ways of widening and for each part."""
    drawn, charts = draw_charts(list(PARTS.values()), (3.4, 3.6), sharey=True)
    drawn.suptitle(TITLE, fontsize=12, fontweight="bold")
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
    return drawn
