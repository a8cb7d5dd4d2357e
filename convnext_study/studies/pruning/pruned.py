"""A method's arguments, what it is given, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.apply import ImageSize


class SourceImages(BaseModel):
    """Side in pixels of a trained network's images, and how many classes they have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(ge=1)
    classes: int = Field(ge=1)


class MethodArgs(BaseModel):
    """A method and how much it prunes.

    Args:
        method: one of `decide.all_methods`.
        widths: of predefined methods: how many channels of each layer stay.
        ratio: of automatic ones: the share that goes, of channels, weights or filters.
        macs: of network slimming, in place of the ratio: the budget to come nearest to.
        design_macs: of `decide.STAGE_SHARES`: the budget of the network that is designed. Without
            it, that of the slimmed network; of another network, what the shares leave.
        source: what the trained network sees, where it is trained on other data.
        images_per_class: that methods with samples look at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    widths: dict[str, int] = Field(default_factory=dict)
    ratio: float | None = Field(default=None, ge=0, le=1)
    macs: int | None = Field(default=None, ge=1)
    design_macs: int | None = Field(default=None, ge=1)
    source: SourceImages | None = None
    images_per_class: int = Field(default=10, ge=1)


@dataclass(frozen=True)
class Pruned:
    """What is left: the ``network``, narrower, with its weights and its record; or ``masks``.

    A designed architecture has a record alone: no weights come with it.
    """

    network: nn.Module | None = None
    model: ModelRef | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A trained network that is to be pruned.

    Args:
        net: on the CPU, in evaluation mode; methods may change its weights.
        model: its record.
        image_size: (channels, height, width) of its images.
        samples: gives about so many training images of each class, in batches.
        seed: of every draw.
        design: the network whose widths are designed, in evaluation mode, with its record and the
            size of its images.
    """

    net: nn.Module
    model: ModelRef
    image_size: ImageSize
    samples: Callable[[int], Sequence[Tensor]]
    seed: int
    design: tuple[nn.Module, ModelRef, ImageSize] | None = None
