"""Which layers share a set of channels, and so lose them together (no torch here).

Of the networks of this study that follows from the spec alone, and so does the spec that pruning
leaves. Of a residual stream, or what a DenseNet concatenates, no channel goes: only what a block
reads of it. Other networks are traced (`apply`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convnext_study.errors import UserError, did_you_mean
from convnext_study.studies.pruning import specs

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
        selection: the stream before the norm keeps its width; only consumers are narrowed.
        positions: of a selection, where its channels stand in the stream.
        stage: as layers' names number it, else 0; -1 for a hidden layer of the classifier.
        place: of its width in the network's spec: a field's name, then indices.
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
    place: tuple[Any, ...] = ()


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
        found.append((group, channels))
    return found


def gone(group: Group, channels: Sequence[int]) -> list[int]:
    """The group's channels that are not these."""
    return sorted({*range(group.width)} - {*channels})


def widths_left(groups: Sequence[Group], gone: float) -> dict[str, int]:
    """Of each layer ``int(width * (1 - gone))``, what a share leaves, and at least one channel."""
    return {group.name: int(group.width * (1 - gone)) or 1 for group in groups}


def check_widths(widths: Mapping[str, int], groups: Sequence[Group]) -> list[tuple[Group, int]]:
    """The groups that are named, in the network's order, with the width that each is to have.

    Raises PruningError for a layer that is unknown, would be empty, or has fewer channels.
    """
    known = {group.name: group for group in groups}
    for name, width in widths.items():
        if name not in known:
            raise PruningError(f"{name}: has no channels to prune{did_you_mean(name, [*known])}")
        most = known[name].width
        if width < 1:
            raise PruningError(f"{name}: all of its {most} channels would go; keep at least one")
        if width > most:
            raise PruningError(f"{name}: has {most} channels, and {width} cannot stay")
    return [(group, widths[group.name]) for group in groups if group.name in widths]


def spec_groups(spec: specs.Spec) -> tuple[Group, ...]:
    """The channels that can go, in the network's order."""
    match spec:
        case specs.VggSpec():
            return tuple(_vgg(spec))
        case specs.ResNetSpec():
            return tuple(_basic(spec.inner, "stages.{}.blocks.{}", "norm1", 0))
        case specs.ImageNetBasicSpec():
            return tuple(_basic(spec.inner, "layer{}.{}", "bn1", 1))
        case specs.BottleneckSpec():
            return tuple(_bottlenecks(spec.inner, "layer{}.{}", ("", "bn1", "bn2"), 1))
        case specs.PreResNetSpec():
            norms = ("norm1", "norm2", "norm3")
            blocks = _bottlenecks(spec.inner, "stages.{}.blocks.{}", norms, 0)
            return (*blocks, _tail(len(spec.inner) - 1, spec.last))
        case specs.DenseNetSpec():
            return tuple(_densenet(spec))
        case specs.PreActSpec():
            return ()  # whole branches go, and no channels


def narrowed(spec: specs.Spec, kept: Kept) -> specs.Spec:
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
        field[last] = len(channels)
        if group.selection:
            field[last] = [group.positions[channel] for channel in channels]
    return specs.from_dict(values)


def widths_of(spec: specs.Spec) -> dict[str, int]:
    """The width of each group: of a pruned network, what is left of the whole one's."""
    return {group.name: group.width for group in spec_groups(spec)}


def kept_of(widths: Mapping[str, int]) -> dict[str, list[int]]:
    """The first channels of each layer: for an architecture, any others would do."""
    return {name: list(range(width)) for name, width in widths.items()}


def _vgg(spec: specs.VggSpec) -> Iterator[Group]:
    names, stages, stage = ["stem"], [0], 0
    for widths in spec.groups():
        names += [f"stages.{stage}.blocks.{block}" for block in range(len(widths))]
        stages += [stage] * len(widths)
        stage += bool(widths)
    last = len(names) - 1
    norms = [f"{name}.norm" if spec.batchnorm else "" for name in names]
    names = [f"{name}.conv" for name in names]
    places: list[tuple[str, int]] = [
        ("widths", at) for at, width in enumerate(spec.widths) if isinstance(width, int)
    ]
    for at in range(len(spec.hidden)):
        names.append(f"head.hidden.fc{at + 1}")
        norms.append(f"head.hidden.norm{at + 1}" if spec.head != "4096" else "")
        stages.append(-1)
        places.append(("hidden", at))
    for at, (name, norm, place) in enumerate(zip(names, norms, places, strict=True)):
        repeat = spec.side**2 if at == last and spec.flattens else 1
        yield Group(
            name,
            getattr(spec, place[0])[place[1]],
            producers=(name,),
            norms=(norm,) if norm else (),
            consumers=(([*names, "head.fc"][at + 1], repeat),),
            stage=stages[at],
            place=place,
        )


def _basic(inner: Any, block: str, norm: str, first: int) -> Iterator[Group]:
    for stage, widths in enumerate(inner):
        for place, width in enumerate(widths):
            name = block.format(stage + first, place)
            yield _inner(name, "conv1", norm, "conv2", width, ("inner", stage, place))


def _bottlenecks(
    inner: Any, block: str, norms: tuple[str, str, str], first: int
) -> Iterator[Group]:
    for stage, blocks in enumerate(inner):
        for place, (in_idx, one, other) in enumerate(blocks):
            name, at = block.format(stage + first, place), ("inner", stage, place)
            norm = norms[0] and f"{name}.{norms[0]}"
            yield _selected(f"{name}.select1", norm, f"{name}.conv1", in_idx, (*at, 0))
            yield _inner(name, "conv1", norms[1], "conv2", one, (*at, 1))
            yield _inner(name, "conv2", norms[2], "conv3", other, (*at, 2))


def _densenet(spec: specs.DenseNetSpec) -> Iterator[Group]:
    for stage, layers in enumerate(spec.inner):
        if stage:
            name, read = f"stages.{stage}.downsample", spec.transitions[stage - 1]
            at = ("transitions", stage - 1)
            yield _selected(f"{name}.select", f"{name}.norm", f"{name}.conv", read, at, stage - 1)
        for index, inner in enumerate(layers):
            name, place = f"stages.{stage}.blocks.{index}", ("inner", stage, index)
            yield _selected(
                f"{name}.select1", f"{name}.norm1", f"{name}.conv1", inner[0], (*place, 0)
            )
            if len(inner) > 1:
                yield _inner(name, "conv1", "norm2", "conv2", inner[1], (*place, 1))
    yield _tail(len(spec.inner) - 1, spec.last)


def _inner(
    block: str, conv: str, norm: str, reader: str, width: int, place: tuple[Any, ...]
) -> Group:
    name, readers = f"{block}.{conv}", ((f"{block}.{reader}", 1),)
    norms = (f"{block}.{norm}",)
    return Group(name, width, (name,), norms, readers, stage=place[1], place=place)


def _selected(
    name: str, norm: str, reader: str, in_idx: Any, place: tuple[Any, ...], stage: int | None = None
) -> Group:
    return Group(
        name,
        specs.count(in_idx),
        producers=(),
        norms=(norm,) if norm else (),
        consumers=((reader, 1),),
        selection=True,
        positions=specs.indices(in_idx),
        stage=place[1] if stage is None else stage,
        place=place,
    )


def _tail(stage: int, last: Any) -> Group:
    name = f"stages.{stage}.tail"
    return _selected(f"{name}.select", f"{name}.norm", "head.fc", last, ("last",), stage)
