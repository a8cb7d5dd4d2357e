"""Which layers share a set of channels, and so lose them together. Imports no torch.

For the networks of this study both these groups and the pruned spec follow from the spec. A
residual stream, or what a DenseNet concatenates, loses no channel; blocks read fewer of them. Other
networks are traced (`removal`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convnext_study.errors import UserError, did_you_mean
from convnext_study.studies.pruning import spec as specs
from convnext_study.studies.pruning.spec import Spec

# The channels to keep, ascending, of each layer that is narrowed: what a structured method returns.
# Other layers stay whole.
Kept = Mapping[str, Sequence[int]]


class PruningError(UserError):
    """Pruning that is not possible; the message names the layer."""


@dataclass(frozen=True)
class Group:
    """Channels that exist once and are used in several layers.

    Args:
        name: in `Kept`: the layer whose filters they are, or the selection (``select1``) behind a
            norm that is not narrowed.
        width: number of channels.
        producers: layers whose filters they are: the named one, and depthwise convolutions.
        norms: BatchNorms over them; network slimming uses the first one's scales.
        consumers: layers that read them, with the inputs per channel (several of a flattened map).
        concatenated: other layers read them concatenated with further channels.
        positions: of a selection, the indices of its channels in the stream. The stream before the
            norm keeps its width; only consumers are narrowed.
        stage: from the layers' names, else 0; -1 for a hidden layer of the classifier.
        place: of its width in the network's spec: a field's name, then indices.
        gates: further layers with as many filters, whose outputs multiply the channels.
        units: sets of channels that are removed together, as in grouped convolutions; empty where
            each is removed alone.
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
        """Number of units: of channels, or of sets that are removed together."""
        return len(self.units) or self.width

    @property
    def size(self) -> int:
        """Channels per unit."""
        return self.width // self.count

    @property
    def is_read_once(self) -> bool:
        """Whether exactly one layer reads the channels, as methods with samples need."""
        return len(self.consumers) == 1 and not self.concatenated and not self.units

    def channels_of(self, units: Iterable[int]) -> list[int]:
        """The channels of these units, ascending."""
        if not self.units:
            return sorted(units)
        return sorted(channel for unit in units for channel in self.units[unit])

    def gone(self, kept: Sequence[int]) -> list[int]:
        """The other channels."""
        return sorted({*range(self.width)} - {*kept})


def check_kept(kept: Kept, groups: Sequence[Group]) -> list[tuple[Group, tuple[int, ...]]]:
    """The named groups in the network's order, each with the channels to keep, sorted.

    Raises PruningError for an unknown layer, a channel that is out of range or repeated, and a
    layer that would be empty.
    """
    kept_by_group = []
    for group, _ in check_widths({name: len({*kept[name]}) for name in kept}, groups):
        channels = tuple(sorted(int(channel) for channel in kept[group.name]))
        if not {*channels} <= {*range(group.width)} or len({*channels}) < len(channels):
            raise PruningError(
                f"{group.name}: name each of its {group.width} channels at most once"
            )
        if any(0 < len({*unit} & {*channels}) < len(unit) for unit in group.units):
            raise PruningError(f"{group.name}: its channels are removed in groups of {group.size}")
        kept_by_group.append((group, channels))
    return kept_by_group


def check_widths(widths: Mapping[str, int], groups: Sequence[Group]) -> list[tuple[Group, int]]:
    """The named groups in the network's order, each with its new width.

    Raises PruningError for a layer that is unknown, would be empty, or has fewer channels.
    """
    by_name = {group.name: group for group in groups}
    for name, width in widths.items():
        if name not in by_name:
            raise PruningError(f"{name}: has no channels to prune{did_you_mean(name, [*by_name])}")
        most, size = by_name[name].width, by_name[name].size
        if width < 1:
            raise PruningError(
                f"{name}: all of its {most} channels would be removed; keep at least one"
            )
        if width > most:
            raise PruningError(f"{name}: has {most} channels, so {width} cannot be kept")
        if width % size:
            raise PruningError(f"{name}: its channels are removed in groups of {size}")
    return [(group, widths[group.name]) for group in groups if group.name in widths]


def widths_left(groups: Sequence[Group], gone: float) -> dict[str, int]:
    """The width of each layer without the share ``gone`` of its units, ``int(count * (1 - gone))``
    units but at least one."""
    return {group.name: (int(group.count * (1 - gone)) or 1) * group.size for group in groups}


def widths_of(spec: Spec) -> dict[str, int]:
    """The width of each group by its name."""
    return {group.name: group.width for group in spec_groups(spec)}


def kept_of(widths: Mapping[str, int], groups: Sequence[Group] = ()) -> dict[str, list[int]]:
    """The first channels of each layer (for an architecture, any would do); the first units of
    those in ``groups``."""
    by_name = {group.name: group for group in groups}
    return {
        name: by_name[name].channels_of(range(width // by_name[name].size))
        if name in by_name
        else list(range(width))
        for name, width in widths.items()
    }


def narrowed(spec: Spec, kept: Kept) -> Spec:
    """The spec of the pruned network.

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
        stream = group.positions
        field[last] = [stream[channel] for channel in channels] if stream else len(channels)
    return specs.from_dict(values)


def spec_groups(spec: Spec) -> tuple[Group, ...]:
    """The channels that can be removed, in the network's order."""
    if isinstance(spec, specs.PreActSpec):
        return ()  # it loses whole branches, not channels
    return tuple(_vgg(spec) if isinstance(spec, specs.VggSpec) else _blocks(spec))


def _vgg(spec: specs.VggSpec) -> Iterator[Group]:
    layers, stage = [("stem.conv", "stem.norm", 0)], 0
    for widths in spec.groups():
        paths = [f"stages.{stage}.blocks.{block}" for block in range(len(widths))]
        layers += [(f"{path}.conv", f"{path}.norm", stage) for path in paths]
        stage += bool(widths)
    last_conv = layers[-1][0]
    places = [("widths", i) for i, width in enumerate(spec.widths) if width != specs.POOL]
    for i in range(len(spec.hidden)):
        layers.append((f"head.hidden.fc{i + 1}", f"head.hidden.norm{i + 1}", -1))
        places.append(("hidden", i))
    readers = [*(name for name, _, _ in layers[1:]), "head.fc"]
    for (name, norm, stage), reader, (field, i) in zip(layers, readers, places, strict=True):
        is_normed = spec.batchnorm if stage >= 0 else spec.head != "4096"
        repeat = specs.SIDE**2 if name == last_conv and spec.flattens else 1
        width = getattr(spec, field)[i]
        yield _group(name, norm if is_normed else "", reader, width, stage, (field, i), repeat)


# For each number of a block in ``inner``: the layer, the norm behind it or before a selection, and
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
            before = stage - 1
            path, place = f"stages.{stage}.downsample", ("transitions", before)
            names = (f"{path}.select", f"{path}.norm", f"{path}.conv")
            yield _group(*names, spec.transitions[before], before, place)
        for block, widths in enumerate(blocks):
            path = (
                f"layer{stage + 1}.{block}" if spec.is_timms else f"stages.{stage}.blocks.{block}"
            )
            several = isinstance(widths, tuple)
            for i, width in enumerate(widths if several else (widths,)):
                layer, norm, reader = _LAYERS[spec.family][i]
                place = ("inner", stage, block, *([i] if several else []))
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
    """The group of a layer's filters, or of a selection of a stream."""
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
