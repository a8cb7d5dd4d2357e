"""Which layers share a set of channels, and so lose them together (no torch here).

Of the networks of this study that follows from the spec alone, and so does the spec that pruning
leaves. Of a residual stream, or what a DenseNet concatenates, no channel goes: only what a block
reads of it. Other networks are traced (`removal`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convnext_study.errors import UserError, did_you_mean
from convnext_study.studies.pruning import spec as specs
from convnext_study.studies.pruning.spec import Spec

# Of each layer that is narrowed, the channels that stay, ascending: what a structured method
# returns. Layers that are not in it stay whole.
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
        norms: BatchNorms over them; the first one's scales are what network slimming looks at.
        consumers: layers that read them, with the inputs per channel: several of a flattened map.
        concatenated: layers also read them beside other channels; those are no ``consumers``.
        positions: of a selection, where its channels stand in the stream. The stream before the
            norm keeps its width; only consumers are narrowed.
        stage: as layers' names number it, else 0; -1 for a hidden layer of the classifier.
        place: of its width in the network's spec: a field's name, then indices.
        gates: further layers with as many filters, whose outputs multiply the channels.
        units: sets of channels that go together, as of the groups of a convolution; none where
            each goes alone.
        heads: the units are heads of an attention.
    """

    name: str
    width: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[tuple[str, int], ...]
    concatenated: bool = False
    positions: tuple[int, ...] = ()
    stage: int = 0
    place: tuple[Any, ...] = ()
    gates: tuple[str, ...] = ()
    units: tuple[tuple[int, ...], ...] = ()
    heads: bool = False

    @property
    def count(self) -> int:
        """How many channels, or sets of them, go one by one."""
        return len(self.units) or self.width

    @property
    def size(self) -> int:
        """How many channels go at a time."""
        return self.width // self.count

    @property
    def is_read_once(self) -> bool:
        """Whether one layer reads the channels, each for itself, as methods with samples need."""
        return len(self.consumers) == 1 and not self.concatenated and not self.units

    def channels_of(self, units: Iterable[int]) -> list[int]:
        """The channels of these units, ascending."""
        if not self.units:
            return sorted(units)
        return sorted(channel for unit in units for channel in self.units[unit])

    def gone(self, kept: Sequence[int]) -> list[int]:
        """The channels that are not these."""
        return sorted({*range(self.width)} - {*kept})


def check_kept(kept: Kept, groups: Sequence[Group]) -> list[tuple[Group, tuple[int, ...]]]:
    """The groups that are named, in the network's order, with their channels that stay, sorted.

    Raises PruningError for an unknown layer, a channel that it does not have or that is named
    twice, and for a layer that would be empty.
    """
    found = []
    for group, _ in check_widths({name: len({*kept[name]}) for name in kept}, groups):
        channels = tuple(sorted(int(channel) for channel in kept[group.name]))
        if not {*channels} <= {*range(group.width)} or len({*channels}) < len(channels):
            raise PruningError(
                f"{group.name}: name each of its {group.width} channels at most once"
            )
        if any(0 < len({*unit} & {*channels}) < len(unit) for unit in group.units):
            raise PruningError(f"{group.name}: its channels go {group.size} at a time")
        found.append((group, channels))
    return found


def check_widths(widths: Mapping[str, int], groups: Sequence[Group]) -> list[tuple[Group, int]]:
    """The groups that are named, in the network's order, with the width that each is to have.

    Raises PruningError for a layer that is unknown, would be empty, or has fewer channels.
    """
    known = {group.name: group for group in groups}
    for name, width in widths.items():
        if name not in known:
            raise PruningError(f"{name}: has no channels to prune{did_you_mean(name, [*known])}")
        most, size = known[name].width, known[name].size
        if width < 1:
            raise PruningError(f"{name}: all of its {most} channels would go; keep at least one")
        if width > most:
            raise PruningError(f"{name}: has {most} channels, and {width} cannot stay")
        if width % size:
            raise PruningError(f"{name}: its channels go {size} at a time")
    return [(group, widths[group.name]) for group in groups if group.name in widths]


def widths_left(groups: Sequence[Group], gone: float) -> dict[str, int]:
    """Of each layer ``int(width * (1 - gone))``, what a share leaves, and at least one channel;
    of those that go together as many sets."""
    return {group.name: (int(group.count * (1 - gone)) or 1) * group.size for group in groups}


def widths_of(spec: Spec) -> dict[str, int]:
    """The width of each group: of a pruned network, what is left of the whole one's."""
    return {group.name: group.width for group in spec_groups(spec)}


def kept_of(widths: Mapping[str, int], groups: Sequence[Group] = ()) -> dict[str, list[int]]:
    """The first channels of each layer: for an architecture, any others would do. Of those that go
    together in one of the ``groups``, the first sets."""
    known = {group.name: group for group in groups}
    return {
        name: known[name].channels_of(range(width // known[name].size))
        if name in known
        else list(range(width))
        for name, width in widths.items()
    }


def narrowed(spec: Spec, kept: Kept) -> Spec:
    """The spec of the network that is left.

    Raises PruningError for a layer that is unknown or would be empty.
    """
    values = spec.to_dict()
    if isinstance(spec, specs.VggSpec):
        values["hidden"] = list(spec.hidden)
    for group, channels in check_kept(kept, spec_groups(spec)):
        field = values
        *path, last = group.place
        for step in path:
            field = field[step]
        at = group.positions
        field[last] = [at[channel] for channel in channels] if at else len(channels)
    return specs.from_dict(values)


def spec_groups(spec: Spec) -> tuple[Group, ...]:
    """The channels that can go, in the network's order."""
    if isinstance(spec, specs.PreActSpec):
        return ()  # whole branches go, and no channels
    return tuple(_vgg(spec) if isinstance(spec, specs.VggSpec) else _blocks(spec))


def _vgg(spec: specs.VggSpec) -> Iterator[Group]:
    layers, stage = [("stem.conv", "stem.norm", 0)], 0
    for widths in spec.groups():
        paths = [f"stages.{stage}.blocks.{block}" for block in range(len(widths))]
        layers += [(f"{path}.conv", f"{path}.norm", stage) for path in paths]
        stage += bool(widths)
    last_conv = layers[-1][0]
    places = [("widths", at) for at, width in enumerate(spec.widths) if width != specs.POOL]
    for at in range(len(spec.hidden)):
        layers.append((f"head.hidden.fc{at + 1}", f"head.hidden.norm{at + 1}", -1))
        places.append(("hidden", at))
    readers = [*(name for name, _, _ in layers[1:]), "head.fc"]
    for (name, norm, stage), reader, (field, at) in zip(layers, readers, places, strict=True):
        is_normed = spec.batchnorm if stage >= 0 else spec.head != "4096"
        repeat = specs.SIDE**2 if name == last_conv and spec.flattens else 1
        width = getattr(spec, field)[at]
        yield _group(name, norm if is_normed else "", reader, width, stage, (field, at), repeat)


# Of the numbers of a block in ``inner``: the layer, the norm behind it or before a selection, and
# the layer that reads the channels.
_BASIC = ("conv1", "norm1", "conv2")
_NARROW = ("conv1", "norm2", "conv2")
_SELECTED = ("select1", "norm1", "conv1")
_LAYERS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "resnet_cifar": (_BASIC,),
    "preresnet": (_SELECTED, _NARROW, ("conv2", "norm3", "conv3")),
    "densenet": (_SELECTED, _NARROW),
    "resnet_imagenet_basic": (("conv1", "bn1", "conv2"),),
    "resnet50": (("select1", "", "conv1"), ("conv1", "bn1", "conv2"), ("conv2", "bn2", "conv3")),
}


def _blocks(spec: Any) -> Iterator[Group]:
    place: tuple[Any, ...]
    for stage, blocks in enumerate(spec.inner):
        if stage and isinstance(spec, specs.DenseNetSpec):
            at = stage - 1
            path, place = f"stages.{stage}.downsample", ("transitions", at)
            names = (f"{path}.select", f"{path}.norm", f"{path}.conv")
            yield _group(*names, spec.transitions[at], at, place)
        for block, numbers in enumerate(blocks):
            path = (
                f"layer{stage + 1}.{block}" if spec.is_timms else f"stages.{stage}.blocks.{block}"
            )
            many = isinstance(numbers, tuple)
            for at, width in enumerate(numbers if many else (numbers,)):
                layer, norm, reader = _LAYERS[spec.family][at]
                place = ("inner", stage, block, *([at] if many else []))
                norm = norm and f"{path}.{norm}"
                yield _group(f"{path}.{layer}", norm, f"{path}.{reader}", width, stage, place)
    if isinstance(spec, specs.PreResNetSpec | specs.DenseNetSpec):
        path = f"stages.{stage}.tail"
        yield _group(f"{path}.select", f"{path}.norm", "head.fc", spec.last, stage, ("last",))


def _group(
    name: str,
    norm: str,
    reader: str,
    width: specs.ChannelSelection,
    stage: int,
    place: tuple[Any, ...],
    repeat: int = 1,
) -> Group:
    """A layer's filters, or a selection of a stream."""
    is_selection = "select" in name
    return Group(
        name,
        specs.count(width),
        producers=() if is_selection else (name,),
        norms=(norm,) if norm else (),
        consumers=((reader, repeat),),
        positions=specs.indices(width) if is_selection else (),
        stage=stage,
        place=place,
    )
