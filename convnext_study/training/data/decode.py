"""From the bytes of a file to pixels: which trouble is an image's own, and how it is told.

Orientation tags (EXIF) are not applied, as in timm's and torchvision's ImageNet pipelines. CMYK,
palette and grey images become RGB as Pillow's ``convert("RGB")`` has it, transparency is dropped.
16-bit grey is scaled to 8 bits, where ``convert`` would clip nearly every pixel to white.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from convnext_study.training.data.images import BadImage


def decode_image(content: bytes, name: str) -> Image.Image:
    """An RGB image from a file's bytes. Raises BadImage, one line that names the file."""
    if not content:
        raise bad_image(name, "the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return to_rgb(image)
    except UnidentifiedImageError:
        raise bad_image(name, "no known image format") from None
    except Exception as error:  # decoders meet broken files with any exception there is
        raise bad_image(name, _reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I"):  # 16-bit grey is "I;16", "I;16B" or "I"
        grey = np.asarray(image.convert("I")).clip(0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # The same colours as in one step, without Pillow's warning in every worker.
        image = image.convert("RGBA")
    return image.convert("RGB")


def bad_image(name: str, reason: str) -> BadImage:
    return BadImage(
        f"{name}: not a readable image ({reason}); repair or remove it, or use --bad-images skip",
        name,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"more than {limit:,} pixels, which may be an attack on memory"
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
