"""A person cut out of an image, in a square that may be scaled, turned and mirrored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from convnext_study.data.dataset import Target, to_pil
from convnext_study.data.decode import to_tensor
from convnext_study.errors import UserError


@dataclass(frozen=True)
class Cut:
    """How people are drawn for training; the defaults are HRNet's for MPII.

    Args:
        size: of the square that the network sees, in pixels a side.
        scale: standard deviation of the factor, which stays within one of it from 1.
        turn: standard deviation of the angle in degrees, which stays within two of it.
        turned: how often a person is turned.
        flip: mirror one person in two.
    """

    size: int = 256
    scale: float = 0.25
    turn: float = 30.0
    turned: float = 0.6
    flip: bool = True

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.scale < 1:
            raise UserError(f"size {self.size}, scale {self.scale}: no square can be cut")


class CutPerson:
    """Cuts out a person, with draws from torch's global generator, or none."""

    def __init__(self, drawn: Cut, mirrored: tuple[int, ...], *, draws: bool) -> None:
        self._drawn, self._draws = drawn, draws
        self._mirrored = torch.tensor(mirrored)

    def __call__(self, image: Tensor, rows: Target) -> tuple[Tensor, Tensor, None]:
        """Of (3, H, W) uint8 and a person's rows (see `people`), the square and its rows.

        What lies outside the image is black.
        """
        rows = torch.as_tensor(rows)
        factor, angle, mirror = self._draw() if self._draws else (1.0, 0.0, False)
        size, side = self._drawn.size, float(rows[-1, 2]) * factor
        zoom = size / side
        cos, sin = math.cos(angle), math.sin(angle)
        turn = torch.tensor([[cos, -sin], [sin, cos]])
        found = self._moved(rows, turn, zoom, mirror=mirror)
        # Back from the square to the image, as Pillow has it.
        back = turn / zoom * torch.tensor([-1.0 if mirror else 1.0, 1.0])
        offset = rows[-1, :2] - back @ torch.full((2,), size / 2)
        matrix = torch.cat([back, offset[:, None]], 1).flatten().tolist()
        cut = to_pil(image).transform(
            (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        return to_tensor(cut), found, None

    def _moved(self, rows: Tensor, turn: Tensor, zoom: float, *, mirror: bool) -> Tensor:
        found = rows.clone()
        half = self._drawn.size / 2
        found[:, :2] = (rows[:, :2] - rows[-1, :2]) @ turn * zoom + half
        found[-1, 2:] = rows[-1, 2:] * zoom
        if mirror:
            found[:, 0] = 2 * half - found[:, 0]
            found[:-1] = found[:-1][self._mirrored]
        return found

    def _draw(self) -> tuple[float, float, bool]:
        """A factor of the square's side, an angle in radians, and whether to mirror."""
        drawn = self._drawn
        normal, other = torch.randn(2).tolist()
        chance, side = torch.rand(2).tolist()
        factor = 1 + drawn.scale * min(max(normal, -1.0), 1.0)
        angle = drawn.turn * min(max(other, -2.0), 2.0) if chance < drawn.turned else 0.0
        return factor, math.radians(angle), drawn.flip and side < 0.5
