"""Which layers of a spec's network share channels, and the spec that pruning them leaves.

The shapes follow from the spec alone, so nothing is traced (no torch here). Of a residual stream,
or what a DenseNet concatenates, no channel goes: only what a block reads of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convnext_study.studies.pruning.groups import Group, Kept, check_kept, check_widths
from convnext_study.studies.pruning.spec_fields import count, indices
from convnext_study.studies.pruning.specs import (
    BottleneckSpec,
    DenseNetSpec,
    ImageNetBasicSpec,
    PreActSpec,
    PreResNetSpec,
    ResNetSpec,
    Spec,
    VggSpec,
    from_dict,
)


@dataclass(frozen=True)
class Wire:
    """A group, and the place of its width in the spec: a field's name, then indices."""

    group: Group
    place: tuple[Any, ...]


def wires(spec: Spec) -> tuple[Wire, ...]:
    """Every group of channels that can go, in the network's order."""
    match spec:
        case VggSpec():
            return tuple(_vgg(spec))
        case ResNetSpec():
            return tuple(_basic(spec.inner, "stages.{}.blocks.{}", "norm1", 0))
        case ImageNetBasicSpec():
            return tuple(_basic(spec.inner, "layer{}.{}", "bn1", 1))
        case BottleneckSpec():
            return tuple(_bottleneck(spec))
        case PreResNetSpec():
            return tuple(_preresnet(spec))
        case DenseNetSpec():
            return tuple(_densenet(spec))
        case PreActSpec():
            return ()  # whole branches go, and no channels


def spec_groups(spec: Spec) -> tuple[Group, ...]:
    """The groups of `wires`."""
    return tuple(wire.group for wire in wires(spec))


def narrowed(spec: Spec, kept: Kept) -> Spec:
    """The spec of the network that is left.

    Raises PruningError for a layer that is unknown or would be empty.
    """
    places = {wire.group.name: wire for wire in wires(spec)}
    values = spec.to_dict()
    if isinstance(spec, VggSpec):
        values["hidden"] = list(spec.hidden)
    for name, channels in check_kept(kept, spec_groups(spec)).items():
        _narrow(values, places[name], channels)
    return from_dict(values)


def widths_of(spec: Spec) -> dict[str, int]:
    """The width of each group: of a pruned network, what is left of the whole one's."""
    return {group.name: group.width for group in spec_groups(spec)}


def with_widths(spec: Spec, widths: Mapping[str, int]) -> Spec:
    """The network with so many channels in these groups; selections read the first ones.

    Raises PruningError for a layer that is unknown, or has fewer channels.
    """
    chosen = check_widths(widths, spec_groups(spec))
    return narrowed(spec, {group.name: range(width) for group, width in chosen})


def _narrow(values: Any, wire: Wire, channels: Sequence[int]) -> None:
    *path, last = wire.place
    for step in path:
        values = values[step]
    if not wire.group.selection:
        values[last] = len(channels)
        return
    before = indices(values[last] if isinstance(values[last], int) else tuple(values[last]))
    values[last] = [before[channel] for channel in channels]


def _vgg(spec: VggSpec) -> Iterator[Wire]:
    places = [at for at, width in enumerate(spec.widths) if isinstance(width, int)]
    names, stages, stage = ["stem"], [0], 0
    for widths in spec.groups():
        names += [f"stages.{stage}.blocks.{block}" for block in range(len(widths))]
        stages += [stage] * len(widths)
        stage += bool(widths)
    layers = [(f"{name}.conv", f"{name}.norm" if spec.batchnorm else "") for name in names]
    hidden = [
        (f"head.hidden.fc{place}", f"head.hidden.norm{place}" if spec.head != "4096" else "")
        for place in range(1, len(spec.hidden) + 1)
    ]
    readers = [name for name, _ in (*layers[1:], *hidden)] + ["head.fc"]
    for at, (name, norm) in enumerate((*layers, *hidden)):
        is_conv = at < len(layers)
        place = ("widths", places[at]) if is_conv else ("hidden", at - len(layers))
        width = spec.widths[places[at]] if is_conv else spec.hidden[at - len(layers)]
        repeat = spec.side**2 if at == len(layers) - 1 and spec.flattens else 1
        group = Group(
            name,
            int(width),
            (name,),
            (norm,) if norm else (),
            ((readers[at], repeat),),
            stage=stages[at] if is_conv else -1,
        )
        yield Wire(group, place)


def _basic(inner: Any, block: str, norm: str, first: int) -> Iterator[Wire]:
    for stage, widths in enumerate(inner):
        for place, width in enumerate(widths):
            name = block.format(stage + first, place)
            yield _inner(name, "conv1", norm, "conv2", width, ("inner", stage, place))


def _bottleneck(spec: BottleneckSpec) -> Iterator[Wire]:
    for stage, blocks in enumerate(spec.inner):
        for place, (read, first, second) in enumerate(blocks):
            name, at = f"layer{stage + 1}.{place}", ("inner", stage, place)
            yield _selected(f"{name}.select1", "", f"{name}.conv1", read, (*at, 0))
            yield _inner(name, "conv1", "bn1", "conv2", first, (*at, 1))
            yield _inner(name, "conv2", "bn2", "conv3", second, (*at, 2))


def _preresnet(spec: PreResNetSpec) -> Iterator[Wire]:
    for stage, blocks in enumerate(spec.inner):
        for place, (read, first, second) in enumerate(blocks):
            name, at = f"stages.{stage}.blocks.{place}", ("inner", stage, place)
            yield _selected(f"{name}.select1", f"{name}.norm1", f"{name}.conv1", read, (*at, 0))
            yield _inner(name, "conv1", "norm2", "conv2", first, (*at, 1))
            yield _inner(name, "conv2", "norm3", "conv3", second, (*at, 2))
    yield _tail(len(spec.inner) - 1, spec.last)


def _densenet(spec: DenseNetSpec) -> Iterator[Wire]:
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
) -> Wire:
    name = f"{block}.{conv}"
    readers = ((f"{block}.{reader}", 1),)
    group = Group(name, width, (name,), (f"{block}.{norm}",), readers, stage=place[1])
    return Wire(group, place)


def _selected(
    name: str, norm: str, reader: str, read: Any, place: tuple[Any, ...], stage: int | None = None
) -> Wire:
    group = Group(
        name,
        count(read),
        (),
        (norm,) if norm else (),
        ((reader, 1),),
        selection=True,
        positions=indices(read),
        stage=place[1] if stage is None else stage,
    )
    return Wire(group, place)


def _tail(stage: int, last: Any) -> Wire:
    name = f"stages.{stage}.tail"
    return _selected(f"{name}.select", f"{name}.norm", "head.fc", last, ("last",), stage)
