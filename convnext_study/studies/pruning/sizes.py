"""What a record's network costs, counted before anything is trained."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, NamedTuple

from convnext_study.models.builders import get_builder
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.budget import budget_flops

if TYPE_CHECKING:
    from torch import nn

    from convnext_study.studies.pruning.groups import Group


class Images(NamedTuple):
    """What the networks of a study see: side in pixels, and how many classes there are."""

    side: int
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (3, self.side, self.side)


class Size(NamedTuple):
    """Of one image: multiply-accumulates, parameters, and the authors' count of FLOPs."""

    macs: int
    params: int
    budget: int


def network_of(model: ModelRef, classes: int) -> nn.Module:
    """A record's network, with any weights."""
    net: nn.Module = get_builder(model.builder)(
        model.args, num_classes=classes, drop_path=0.0, init="kaiming"
    )
    return net


def size_of(model: ModelRef, images: Images) -> Size:
    """The counts of a record's network."""
    return _size(model.model_dump_json(), images)


def groups_in(model: ModelRef, images: Images) -> tuple[Group, ...]:
    """Its channels that can go. Raises UserError as `apply.groups_of` does."""
    return _groups(model.model_dump_json(), images)


@functools.cache
def _size(model: str, images: Images) -> Size:
    from convnext_study import cost

    net = network_of(ModelRef(**json.loads(model)), images.classes)
    counted = cost.count(net, images.shape)
    return Size(counted.macs, counted.params, budget_flops(net, images.shape))


@functools.cache
def _groups(model: str, images: Images) -> tuple[Group, ...]:
    from convnext_study.studies.pruning.apply import groups_of

    return groups_of(network_of(ModelRef(**json.loads(model)), images.classes), images.shape)
