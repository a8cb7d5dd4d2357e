"""Where a network's parameters are, from the spec alone: paths, 1x1 convolutions, and the rest.

No torch and none of the code that builds the network, so that agreement with it means something.
"""

from __future__ import annotations

from dataclasses import dataclass

from convnext_study.studies.multipath.spec import SE_REDUCTION, STAGES, MultipathSpec


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
