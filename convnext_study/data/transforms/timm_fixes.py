"""timm's posterize with 0 bits, which Pillow 13 refuses.

timm keeps int(0.4 m) bits at magnitude m, and 4 less that many with ``inc1``: 0 below 2.5, or at
10, where 2 % of the draws of rand-m9-mstd0.5-inc1 end; with ``mmax`` over 10 even fewer. Up to
Pillow 12 the mask of the bits to keep was then 0 and the image came out black: that is what the
published networks were trained with, and it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageOps


def posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Keep the highest bits of each channel; none of them: a black image."""
    if bits_to_keep >= 8:
        return image
    if bits_to_keep <= 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits_to_keep)


def repair_posterize(transform: Any) -> None:
    """Give a timm auto-augment's own ops the posterize above; timm itself is left as it is.

    Anything else than RandAugment, AutoAugment or AugMix passes unchanged.
    """
    for op in _ops(transform):
        if op.name.startswith("Posterize"):
            op.aug_fn = posterize


def _ops(transform: Any) -> Iterator[Any]:
    waiting = [getattr(transform, "ops", None), getattr(transform, "policy", None)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list | tuple):
            waiting += one
        elif hasattr(one, "aug_fn") and hasattr(one, "name"):
            yield one
