"""The networks as data (no torch here): a frozen value for each family, equal to its JSON form.

Widths hold what is left after pruning, so a pruned network is a spec like any other. Where a block
reads only some channels of a stream that keeps its width, its spec holds how many (the first ones)
or which: a new network is the same for every choice of as many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.pruning.densenet_spec import DenseNetSpec
from convnext_study.studies.pruning.residual_specs import (
    BottleneckSpec,
    ImageNetBasicSpec,
    PreActSpec,
    PreResNetSpec,
    ResNetSpec,
)
from convnext_study.studies.pruning.vgg_spec import POOL, VggSpec

__all__ = [
    "FAMILIES",
    "POOL",
    "BottleneckSpec",
    "DenseNetSpec",
    "ImageNetBasicSpec",
    "PreActSpec",
    "PreResNetSpec",
    "ResNetSpec",
    "Spec",
    "VggSpec",
    "count_stages",
    "field_names",
    "from_dict",
]

Spec: TypeAlias = (
    VggSpec
    | ResNetSpec
    | ImageNetBasicSpec
    | BottleneckSpec
    | PreResNetSpec
    | DenseNetSpec
    | PreActSpec
)
FAMILIES: dict[str, Any] = {
    one.family: one
    for one in (
        VggSpec,
        ResNetSpec,
        ImageNetBasicSpec,
        BottleneckSpec,
        PreResNetSpec,
        DenseNetSpec,
        PreActSpec,
    )
}


def from_dict(values: Mapping[str, Any]) -> Spec:
    """The inverse of ``to_dict``. Raises SpecError, one line that names the field."""
    fields = dict(values)
    family = fields.pop("family", None)
    if family not in FAMILIES:
        raise SpecError(f"family: {family!r}{did_you_mean(str(family), list(FAMILIES))}")
    FAMILIES[family].check_names(fields)
    for field in dataclasses.fields(FAMILIES[family]):
        if field.default is dataclasses.MISSING and field.name not in fields:
            raise SpecError(f"{field.name}: a {family} needs it")
    spec: Spec = FAMILIES[family](**fields)
    return spec


def count_stages(spec: Spec) -> int:
    """How many stages a network has: maps of different size, and in a VGG not the first layer's."""
    if isinstance(spec, VggSpec):
        return sum(len(group) > 0 for group in spec.groups())
    return len(spec.stages if isinstance(spec, PreActSpec) else spec.inner)


def field_names(family: str) -> tuple[str, ...]:
    """The fields of a family's specs."""
    return tuple(field.name for field in dataclasses.fields(FAMILIES[family]))
