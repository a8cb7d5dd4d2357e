"""Specs of whole networks whose layers follow from a few numbers (no torch here)."""

from __future__ import annotations

from convnext_study.studies.pruning.specs import DenseNetSpec, PreResNetSpec


def preresnet(blocks: int, widths: tuple[int, ...] = (16, 32, 64)) -> PreResNetSpec:
    """A whole PreResNet with ``blocks`` in each stage: 18 are PreResNet-164."""
    inner, stream = [], widths[0]
    for width in widths:
        inner.append(((stream, width, width), *[(4 * width, width, width)] * (blocks - 1)))
        stream = 4 * width
    return PreResNetSpec(inner=tuple(inner), last=stream, widths=widths)


def densenet(
    blocks: int, growth: int = 12, compression: int = 1, bottleneck: bool = False, stages: int = 3
) -> DenseNetSpec:
    """A whole DenseNet with ``blocks`` layers in each dense block: 12 are DenseNet-40."""
    hidden = (4 * growth,) if bottleneck else ()
    inner, ends, stream = [], [], 2 * growth
    for _ in range(stages):
        inner.append(tuple((stream + layer * growth, *hidden) for layer in range(blocks)))
        ends.append(stream + blocks * growth)
        stream = ends[-1] // compression
    return DenseNetSpec(
        inner=tuple(inner),
        transitions=tuple(ends[:-1]),
        last=ends[-1],
        growth=growth,
        compression=compression,
    )
