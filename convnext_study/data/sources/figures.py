"""``figures`` or ``figures:SIZE,TRAIN,VAL``: drawn people with the joints of MPII, embedded.

A figure has 16 joints, limbs of one colour, a lean and a pose of its own, over fragments of the
same colours and shapes: single limbs and heads that belong to nobody. It is a pure function of its
part and index. The joints, and which of them PCKh measures, are MPII's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convnext_study.data.dataset import DatasetPair, digest
from convnext_study.data.sources import Opening
from convnext_study.data.sources.mpii import JOINTS, MEASURED, MIRRORED, Person
from convnext_study.data.sources.synthetic import Draw, Scenes, paint, scene_sizes, whole

DEFAULTS = (128, 2000, 400)  # side of an image in pixels, training and validation figures
SIDES = (32, 512)
FRAGMENTS = (4, 10)  # limbs and heads that belong to nobody, from and to
HEIGHT = (0.55, 0.8)  # of a figure, of the image's side
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
class Figures(Scenes):
    """Figures over fragments of their own colours."""

    noise = 0.06

    def drawn(self, index: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """An image, (3, side, side), and its figure's rows (see `mpii.Person`)."""
        image = torch.full((3, self.side, self.side), 0.0)
        for channel in image:
            channel += draw(0, 0.4)
        colour = torch.tensor([draw(0.4, 1.0) for _ in range(3)])
        height = self.side * draw(*HEIGHT)
        for _ in range(whole(draw, *FRAGMENTS)):
            self._fragment(image, colour, height, draw)
        places = _pose(self.side, height, draw)
        for one, other in LIMBS:
            self._limb(image, colour, places[one], places[other], height * THICK)
        middle = [(a + b) / 2 for a, b in zip(places["neck"], places["head"], strict=True)]
        self._limb(image, colour, middle, middle, height * HEAD / 2)
        joints = torch.tensor([[*places[name], 1.0] for name in JOINTS]).numpy()
        centre = (self.side / 2, self.side / 2)
        figure = Person("", joints, centre, float(self.side), height * HEAD)
        return image, torch.from_numpy(figure.rows())

    def digests(self) -> dict[str, str]:
        """Of what figures are made from: their last bits may differ between machines."""
        made = (self.part, self.side, self.count, FRAGMENTS, HEIGHT, self.noise, TORSO, NECK, HEAD)
        rest = (HIPS, SHOULDERS, ARM, LEG, THICK, ARM_ANGLES, LEG_ANGLES, LEAN)
        return {"content": digest(repr((*made, *rest)).encode())}

    def _fragment(self, image: Tensor, colour: Tensor, height: float, draw: Draw) -> None:
        """A limb or a head, anywhere."""
        begin = [draw(0, self.side) for _ in range(2)]
        angle, length = draw(0, 2 * math.pi), height * draw(0.12, 0.25)
        if draw(0, 1) < 0.3:
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
        paint(image, (thick + 0.5 - away).clamp(0, 1), colour)


def open_figures(text: str, _: Opening) -> DatasetPair:
    """The figures that ``SIZE,TRAIN,VAL`` describes; what is left out has its default.

    Raises DataError where they are not whole numbers that can be had.
    """
    side, *counts = scene_sizes(f"figures:{text}", text, DEFAULTS, SIDES)
    train, val = (
        Figures("figures", part, side, count)
        for part, count in zip(("train", "val"), counts, strict=True)
    )
    mean, std = train.statistics()
    return DatasetPair(
        classes=JOINTS,
        size=side,
        train=train,
        val=val,
        mean=mean,
        std=std,
        mirrored=MIRRORED,
        measured=MEASURED,
        val_groups=torch.arange(len(val)),
    )


def _pose(side: int, height: float, draw: Draw) -> dict[str, list[float]]:
    """Places of all joints by name, x and y in pixels; seen from the front, so that a person's
    right is on the left."""
    lean = math.radians(draw(-LEAN, LEAN))
    room = 0.1 * side
    pelvis = [
        side / 2 + draw(-room, room),
        side / 2 + 0.4 * draw(-room, room),
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
                angle += out * math.radians(draw(*span))
                at = moved(at, angle, length)
                places[f"{name} {joint}"] = at
    return places
