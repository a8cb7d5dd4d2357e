"""The published evaluation transforms, on (3, H, W) uint8 tensors, in timm's three crop modes.

``center`` resizes the short side and crops the centre; ``squash`` resizes both sides, ignoring the
aspect ratio; ``border`` resizes the long side and pads with the data's mean colour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

CENTER, SQUASH, BORDER = MODES = ("center", "squash", "border")
_RESIZES = {CENTER: "short side", SQUASH: "both sides", BORDER: "long side"}


@dataclass(frozen=True)
class EvalTransform:
    """The published evaluation transform: resize, crop the centre, normalise.

    ``crop_pct`` is the crop's side over the resized one; ``mean`` and ``std`` are fractions of
    255, None for the data's own; ``crop_mode`` is timm's, one of `MODES`.
    """

    image_size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_mode: str = CENTER

    def replace(self, image_size: int | None, crop_pct: float | None) -> EvalTransform:
        """The same transform with another size (pixels) or crop, if given."""
        return replace(
            self,
            image_size=image_size or self.image_size,
            crop_pct=crop_pct or self.crop_pct,
        )

    @property
    def resized(self) -> int:
        """The resized image's short side in pixels."""
        return int(self.image_size / self.crop_pct)

    def config(self) -> dict[str, Any]:
        """timm's data config, as `timm.data.resolve_data_config` returns it."""
        return {
            "input_size": (3, self.image_size, self.image_size),
            "crop_pct": self.crop_pct,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }

    def __str__(self) -> str:
        return (
            f"{_RESIZES[self.crop_mode]} to {self.resized}, centre crop of {self.image_size}, "
            f"{self.interpolation}"
        )
