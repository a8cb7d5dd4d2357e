"""``figures`` or ``figures:SIZE,TRAIN,VAL``: drawn people with the joints of MPII, embedded.

A figure has 16 joints, limbs of one colour, and a random lean and pose, over fragments of the same
colour and shapes: single limbs and heads that belong to no figure. It is a pure function of its
part and index. The joints, and which of them PCKh measures, are MPII's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convnext_study.data.dataset import DatasetPair, digest
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.mpii import JOINTS, MEASURED, MIRRORED, Person
from convnext_study.data.sources.synthetic import Draw, Scenes, draw_int, paint, scene_sizes

DEFAULTS = (128, 2000, 400)  # side of an image in pixels, training and validation figures
SIDES = (32, 512)
FRAGMENTS = (4, 10)  # range of the number of limbs and heads that belong to no figure
HEIGHT = (0.55, 0.8)  # range of a figure's height, as a fraction of the image's side
# Lengths as fractions of a figure's height.
TORSO, NECK, HEAD, HIPS, SHOULDERS = 0.3, 0.05, 0.13, 0.07, 0.1
ARM, LEG, THICK = (0.17, 0.15), (0.24, 0.23), 0.022
# Ranges in degrees, outwards, of the upper limb from hanging down and of the lower from the upper.
ARM_ANGLES, LEG_ANGLES = ((-10.0, 150.0), (-20.0, 100.0)), ((-5.0, 45.0), (-60.0, 10.0))
LEAN = 20.0
LIMBS = (
    ("thorax", "pelvis"), ("thorax", "neck"), ("neck", "head"),
    *((f"{side} {start}", f"{side} {end}") for side in ("left", "right") for start, end in (
        ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))),
    ("left shoulder", "right shoulder"), ("left hip", "right hip"),
)  # fmt: skip


@dataclass(frozen=True)
class Figures(Scenes):
    """Figures over fragments of their own colour."""

    noise = 0.06

    def render(self, index: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """An image, (3, side, side), and its figure's rows (see `mpii.Person`)."""
        image = torch.full((3, self.side, self.side), 0.0)
        for channel in image:
            channel += draw(0, 0.4)
        colour = torch.tensor([draw(0.4, 1.0) for _ in range(3)])
        height = self.side * draw(*HEIGHT)
        for _ in range(draw_int(draw, *FRAGMENTS)):
            self._fragment(image, colour, height, draw)
        places = _pose(self.side, height, draw)
        for start, end in LIMBS:
            self._limb(image, colour, places[start], places[end], height * THICK)
        head_centre = [(a + b) / 2 for a, b in zip(places["neck"], places["head"], strict=True)]
        self._limb(image, colour, head_centre, head_centre, height * HEAD / 2)
        joints = torch.tensor([[*places[name], 1.0] for name in JOINTS]).numpy()
        centre = (self.side / 2, self.side / 2)
        figure = Person("", joints, centre, float(self.side), height * HEAD)
        return image, torch.from_numpy(figure.rows())

    def digests(self) -> dict[str, str]:
        """Of the parameters of figures, not of pixels, whose last bits vary between machines."""
        scene = (self.part, self.side, self.count, FRAGMENTS, HEIGHT, self.noise)
        body = (TORSO, NECK, HEAD, HIPS, SHOULDERS, ARM, LEG, THICK, ARM_ANGLES, LEG_ANGLES, LEAN)
        return {"content": digest(repr((*scene, *body)).encode())}

    def _fragment(self, image: Tensor, colour: Tensor, height: float, draw: Draw) -> None:
        """Paint a limb or a head, anywhere."""
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
        """Paint all within ``thick`` pixels of a line, in place, with a soft edge."""
        centres = torch.arange(self.side) + 0.5
        x, y = centres[None, :] - begin[0], centres[:, None] - begin[1]
        right, down = end[0] - begin[0], end[1] - begin[1]
        along = ((x * right + y * down) / max(right**2 + down**2, 1e-6)).clamp(0, 1)
        distance = torch.hypot(x - along * right, y - along * down)
        paint(image, (thick + 0.5 - distance).clamp(0, 1), colour)


def open_figures(text: str, _: OpenRequest) -> DatasetPair:
    """The figures that ``SIZE,TRAIN,VAL`` describes; omitted values have their defaults.

    Raises DataError if they are not integers in the valid range.
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
    """Positions of all joints by name, x and y in pixels; seen from the front, so that a person's
    right side is on the left."""
    lean = math.radians(draw(-LEAN, LEAN))
    room = 0.1 * side
    pelvis = [
        side / 2 + draw(-room, room),
        side / 2 + 0.4 * draw(-room, room),
    ]

    def moved(begin: list[float], angle: float, length: float) -> list[float]:
        """A point at a distance: below at angle 0, to the right of the image at 90 degrees."""
        distance = height * length
        return [begin[0] + distance * math.sin(angle), begin[1] + distance * math.cos(angle)]

    places = {"pelvis": pelvis, "thorax": moved(pelvis, math.pi + lean, TORSO)}
    places["neck"] = moved(places["thorax"], math.pi + lean, NECK)
    places["head"] = moved(places["neck"], math.pi + lean, HEAD)
    for name, sign in (("right", -1), ("left", 1)):
        for begin, limb, width, lengths, angles in (
            ("thorax", ("shoulder", "elbow", "wrist"), SHOULDERS, ARM, ARM_ANGLES),
            ("pelvis", ("hip", "knee", "ankle"), HIPS, LEG, LEG_ANGLES),
        ):
            point = moved(places[begin], sign * math.pi / 2 + lean, width)
            places[f"{name} {limb[0]}"], angle = point, lean
            for joint, length, span in zip(limb[1:], lengths, angles, strict=True):
                angle += sign * math.radians(draw(*span))
                point = moved(point, angle, length)
                places[f"{name} {joint}"] = point
    return places
