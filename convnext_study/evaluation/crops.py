"""timm's three ways to make a square of an image for evaluation, on (3, H, W) uint8 tensors.

``center`` resizes the short side and cuts out the middle; ``squash`` resizes both sides, whatever
the shape; ``border`` resizes the long side and fills what is missing with the data's mean colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CENTER, SQUASH, BORDER = MODES = ("center", "squash", "border")


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

    from convnext_study.data.transforms.tensor import centre_crop

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
