"""Which layers share a set of channels: what is removed together (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convnext_study.errors import UserError, did_you_mean

# What a structured method returns: of each layer that is narrowed, the channels that stay,
# ascending. Layers that are not in it stay whole.
Kept = Mapping[str, Sequence[int]]


class PruningError(UserError):
    """A pruning that cannot be done; the message names the layer."""


@dataclass(frozen=True)
class Group:
    """Channels that exist once and are used in several layers.

    Args:
        name: what a method's answer calls them: the layer whose filters they are, or the
            selection (``select1``) behind a norm that is not narrowed.
        width: how many there are.
        producers: layers whose filters they are: the named one, and depthwise convolutions.
        norms: BatchNorms over them. The first one's scales are what network slimming looks at.
        consumers: layers that read them, with the number of inputs for each channel: more than
            one where a map is flattened.
        concatenated: layers also read them beside other channels; those are no ``consumers``.
        selection: the stream before the norm keeps its width, and only the consumers are narrowed.
        positions: of a selection, where its channels stand in the stream.
        stage: of the network, as its layers' names number them, 0 where they do not; -1 for a
            hidden layer of the classifier.
    """

    name: str
    width: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[tuple[str, int], ...]
    concatenated: bool = False
    selection: bool = False
    positions: tuple[int, ...] = ()
    stage: int = 0


def check_kept(kept: Kept, groups: Sequence[Group]) -> dict[str, tuple[int, ...]]:
    """The same, sorted, as tuples.

    Raises PruningError for an unknown layer, a channel that it does not have or that is named
    twice, and for a layer that would be empty.
    """
    widths = {group.name: group.width for group in groups}
    found: dict[str, tuple[int, ...]] = {}
    for name, channels in kept.items():
        if name not in widths:
            raise PruningError(f"{name}: has no channels to prune{did_you_mean(name, [*widths])}")
        if len(channels) == 0:
            raise empty(name, widths[name])
        ordered = tuple(sorted(int(channel) for channel in channels))
        if ordered[0] < 0 or ordered[-1] >= widths[name] or len(set(ordered)) < len(ordered):
            raise PruningError(f"{name}: name each of its {widths[name]} channels at most once")
        found[name] = ordered
    return found


def widths_left(
    groups: Sequence[Group], ratios: Mapping[str, float], *, keep_one: bool = False
) -> dict[str, int]:
    """Of each layer named in ``ratios``, ``int(width * (1 - ratio))``: what a share leaves.

    With ``keep_one`` at least one channel. Raises UserError for a share that is none, PruningError
    for a layer that is unknown or would be empty.
    """
    for name, ratio in ratios.items():
        if not 0 <= ratio <= 1:
            raise UserError(f"{name}: ratio {ratio}; use a share between 0 and 1")
    all_widths = {group.name: group.width for group in groups}
    widths = {
        name: int(all_widths.get(name, 0) * (1 - ratio)) or int(keep_one)
        for name, ratio in ratios.items()
    }
    return {group.name: width for group, width in check_widths(widths, groups)}


def check_widths(widths: Mapping[str, int], groups: Sequence[Group]) -> list[tuple[Group, int]]:
    """The groups that are named, in the network's order, with the width that each is to have.

    Raises PruningError for a layer that is unknown, would be empty, or has fewer channels.
    """
    known = {group.name: group for group in groups}
    for name, width in widths.items():
        if name not in known:
            raise PruningError(f"{name}: has no channels to prune{did_you_mean(name, [*known])}")
        if width < 1:
            raise empty(name, known[name].width)
        if width > known[name].width:
            raise PruningError(f"{name}: has {known[name].width} channels, and {width} cannot stay")
    return [(group, widths[group.name]) for group in groups if group.name in widths]


def empty(name: str, width: int) -> PruningError:
    """The error of a layer that would lose all its channels."""
    return PruningError(
        f"{name}: all of its {width} channels would go; prune less, or keep at least one channel"
    )
