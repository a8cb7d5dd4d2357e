"""The published evaluation transforms, on (3, H, W) uint8 tensors, in timm's three crop modes.

``center`` resizes the short side and cuts out the middle; ``squash`` resizes both sides, whatever
the shape; ``border`` resizes the long side and fills what is missing with the data's mean colour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CENTER, SQUASH, BORDER = MODES = ("center", "squash", "border")
_RESIZES = {CENTER: "short side", SQUASH: "both sides", BORDER: "long side"}


@dataclass(frozen=True)
class EvalTransform:
    """The published evaluation transform: resize, crop the centre, normalise.

    ``crop_pct`` is the crop's side over the resized one; ``mean`` and ``std`` are fractions of
    255, None where the data's own are used; ``crop_mode`` is timm's, one of `MODES`.
    """

    image_size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_mode: str = CENTER

    def replace(self, image_size: int | None, crop_pct: float | None) -> EvalTransform:
        """The same transform with another size (pixels) or crop, where given."""
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
        """timm's data config, as `timm.data.resolve_data_config` gives it."""
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


def crop_steps(
    mode: str, side: int, resized: int, interpolation: str, mean: tuple[float, ...]
) -> list[Any]:
    """The steps from an image to (3, side, side), as timm's evaluation transform takes them.

    Args:
        mode: one of `MODES`.
        side: of the result, in pixels.
        resized: what is resized becomes so long.
        interpolation: ``bicubic`` or ``bilinear``, with antialiasing.
        mean: of each channel, as fractions of 255.
    """
    from torchvision.transforms import InterpolationMode, v2

    from convnext_study.data.transforms.image import centre_crop

    if mode == CENTER:
        return centre_crop(side, resized, interpolation)
    resampling = InterpolationMode(interpolation)
    if mode == SQUASH:
        both = [resized, resized]
        return [v2.Resize(both, interpolation=resampling, antialias=True), v2.CenterCrop(side)]
    fill = [round(255 * value) for value in mean]
    return [LongSide(resized, resampling), Filled(side, fill), v2.CenterCrop(side)]


class LongSide:
    """Resizes the long side to ``size`` pixels, the other in proportion."""

    def __init__(self, size: int, interpolation: Any) -> None:
        self.size, self.interpolation = size, interpolation

    def __call__(self, image: Tensor) -> Tensor:
        """Resize (3, H, W) uint8 to (3, H', W')."""
        from torchvision.transforms.v2 import functional as F

        # timm's own arithmetic: another order of it can round to another size.
        ratio = max(side / self.size for side in image.shape[1:])
        size = [max(round(side / ratio), 1) for side in image.shape[1:]]
        resized: Tensor = F.resize(image, size, interpolation=self.interpolation, antialias=True)
        return resized


class Filled:
    """Adds borders of one colour where an image is smaller than ``side``, as much on each side."""

    def __init__(self, side: int, fill: list[int]) -> None:
        self.side, self.fill = side, fill

    def __call__(self, image: Tensor) -> Tensor:
        """Pad (3, H, W) uint8 to (3, H', W')."""
        from torchvision.transforms.v2 import functional as F

        high, wide = (max(self.side - length, 0) for length in image.shape[1:])
        borders = [wide // 2, high // 2, (wide + 1) // 2, (high + 1) // 2]
        filled: Tensor = F.pad(image, borders, fill=self.fill)
        return filled
