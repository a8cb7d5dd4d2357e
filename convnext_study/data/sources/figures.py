"""``figures`` or ``figures:SIZE,TRAIN,VAL``: drawn people with the joints of MPII, embedded.

A figure has 16 joints, limbs of one colour, a lean and a pose of its own, over fragments of the
same colours and shapes: single limbs and heads that belong to nobody. It is a pure function of its
part and index. The joints, and which of them PCKh measures, are MPII's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from convnext_study.data.dataset import DataError, DatasetPair, channel_statistics, digest
from convnext_study.data.rng import fold_in, generator
from convnext_study.data.sources import Opening
from convnext_study.data.sources.mpii import JOINTS, UNMEASURED, Person, mirrored
from convnext_study.data.sources.synthetic import MOST_IMAGES, whole_numbers

DEFAULTS = (128, 2000, 400)  # side of an image in pixels, training and validation figures
SIDES = (32, 512)
FRAGMENTS = (4, 10)  # limbs and heads that belong to nobody, from and to
HEIGHT = (0.55, 0.8)  # of a figure, of the image's side
NOISE = 0.06  # standard deviation, of the range from black to white
MOST_DRAWS = 256
STATISTICS_FROM = 256
# Of a figure's height.
TORSO, NECK, HEAD, HIPS, SHOULDERS = 0.3, 0.05, 0.13, 0.07, 0.1
ARM, LEG, THICK = (0.17, 0.15), (0.24, 0.23), 0.022
# Degrees from hanging down, outwards, of the upper limb and of the lower beside it.
ARM_ANGLES, LEG_ANGLES = ((-10.0, 150.0), (-20.0, 100.0)), ((-5.0, 45.0), (-60.0, 10.0))
LEAN = 20.0
LIMBS = (
    ("thorax", "pelvis"), ("thorax", "neck"), ("neck", "head"),
    *((f"{side} {one}", f"{side} {other}") for side in ("left", "right") for one, other in (
        ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))),
    ("left shoulder", "right shoulder"), ("left hip", "right hip"),
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """``count`` figures on images of (side, side)."""

    part: str
    side: int
    count: int

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> tuple[Tensor, Tensor]:
        """An image, (3, side, side) uint8, and its figure's rows (see `people`)."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        draws = generator(fold_in(0, "figures", self.part, self.side, index))
        uniform = iter(torch.rand(MOST_DRAWS, generator=draws).tolist())
        image = torch.full((3, self.side, self.side), 0.0)
        for channel in image:
            channel += 0.4 * next(uniform)
        colour = torch.tensor([0.4 + 0.6 * next(uniform) for _ in range(3)])
        height = self.side * _between(uniform, *HEIGHT)
        for _ in range(int(_between(uniform, FRAGMENTS[0], FRAGMENTS[1] + 1))):
            self._fragment(image, colour, height, uniform)
        places = _pose(self.side, height, uniform)
        for one, other in LIMBS:
            self._limb(image, colour, places[one], places[other], height * THICK)
        middle = [(a + b) / 2 for a, b in zip(places["neck"], places["head"], strict=True)]
        self._limb(image, colour, middle, middle, height * HEAD / 2)
        image += NOISE * torch.randn(image.shape, generator=draws)
        joints = torch.tensor([[*places[name], 1.0] for name in JOINTS]).numpy()
        centre = (self.side / 2, self.side / 2)
        figure = Person("", joints, centre, float(self.side), height * HEAD)
        return (255 * image.clamp(0, 1)).round().to(torch.uint8), torch.from_numpy(figure.rows())

    def groups(self) -> Tensor:
        """(count,) int64: each figure is its own."""
        return torch.arange(self.count)

    def digests(self) -> dict[str, str]:
        """Of what figures are made from: their last bits may differ between machines."""
        made = (self.part, self.side, self.count, FRAGMENTS, HEIGHT, NOISE, TORSO, NECK, HEAD, HIPS)
        rest = (SHOULDERS, ARM, LEG, THICK, ARM_ANGLES, LEG_ANGLES, LEAN)
        return {"content": digest(repr((*made, *rest)).encode())}

    def _fragment(
        self, image: Tensor, colour: Tensor, height: float, uniform: Iterator[float]
    ) -> None:
        """A limb or a head, anywhere."""
        begin = [self.side * next(uniform) for _ in range(2)]
        angle, length = 2 * math.pi * next(uniform), height * _between(uniform, 0.12, 0.25)
        if next(uniform) < 0.3:
            self._limb(image, colour, begin, begin, height * HEAD / 2)
        else:
            end = [begin[0] + length * math.cos(angle), begin[1] + length * math.sin(angle)]
            self._limb(image, colour, begin, end, height * THICK)

    def _limb(
        self, image: Tensor, colour: Tensor, begin: list[float], end: list[float], thick: float
    ) -> None:
        """All within ``thick`` pixels of a line, painted in place, with a soft edge."""
        at = torch.arange(self.side) + 0.5
        x, y = at[None, :] - begin[0], at[:, None] - begin[1]
        right, down = end[0] - begin[0], end[1] - begin[1]
        along = ((x * right + y * down) / max(right**2 + down**2, 1e-6)).clamp(0, 1)
        away = torch.hypot(x - along * right, y - along * down)
        ink = (thick + 0.5 - away).clamp(0, 1)
        image.lerp_(colour.view(-1, 1, 1).expand_as(image), ink.expand_as(image))


def open_figures(text: str, _: Opening) -> DatasetPair:
    """The figures that ``SIZE,TRAIN,VAL`` describes; what is left out has its default.

    Raises DataError where they are not whole numbers that can be had.
    """
    side, *counts = whole_numbers(text, DEFAULTS) or (0, 0, 0)
    fits = SIDES[0] <= side <= SIDES[1] and 1 <= min(counts) <= max(counts) <= MOST_IMAGES
    if not fits:
        raise DataError(
            f"data 'figures:{text:.99}': needs whole numbers, as in figures:"
            f"{','.join(map(str, DEFAULTS))} (side from {SIDES[0]} to {SIDES[1]}, figures up to "
            f"{MOST_IMAGES:,})"
        )
    train, val = (
        Figures(part, side, count) for part, count in zip(("train", "val"), counts, strict=True)
    )
    some = [train.pixels(index)[0] for index in range(min(len(train), STATISTICS_FROM))]
    mean, std = channel_statistics(torch.stack(some))
    return DatasetPair(
        classes=JOINTS,
        size=side,
        train=train,
        val=val,
        mean=mean,
        std=std,
        mirrored=tuple(JOINTS.index(mirrored(joint)) for joint in JOINTS),
        measured=tuple(i for i, joint in enumerate(JOINTS) if joint not in UNMEASURED),
        val_groups=val.groups(),
    )


def _pose(side: int, height: float, uniform: Iterator[float]) -> dict[str, list[float]]:
    """Places of all joints by name, x and y in pixels; seen from the front, so that a person's
    right is on the left."""
    lean = math.radians(_between(uniform, -LEAN, LEAN))
    room = 0.1 * side
    pelvis = [
        side / 2 + _between(uniform, -room, room),
        side / 2 + 0.4 * _between(uniform, -room, room),
    ]

    def moved(begin: list[float], angle: float, length: float) -> list[float]:
        """Down at angle 0, to the right of the image at a quarter turn."""
        far = height * length
        return [begin[0] + far * math.sin(angle), begin[1] + far * math.cos(angle)]

    places = {"pelvis": pelvis, "thorax": moved(pelvis, math.pi + lean, TORSO)}
    places["neck"] = moved(places["thorax"], math.pi + lean, NECK)
    places["head"] = moved(places["neck"], math.pi + lean, HEAD)
    for name, out in (("right", -1), ("left", 1)):
        for begin, limb, wide, lengths, angles in (
            ("thorax", ("shoulder", "elbow", "wrist"), SHOULDERS, ARM, ARM_ANGLES),
            ("pelvis", ("hip", "knee", "ankle"), HIPS, LEG, LEG_ANGLES),
        ):
            at = moved(places[begin], out * math.pi / 2 + lean, wide)
            places[f"{name} {limb[0]}"], angle = at, lean
            for joint, length, span in zip(limb[1:], lengths, angles, strict=True):
                angle += out * math.radians(_between(uniform, *span))
                at = moved(at, angle, length)
                places[f"{name} {joint}"] = at
    return places


def _between(uniform: Iterator[float], low: float, high: float) -> float:
    return low + (high - low) * next(uniform)
