"""Decode a file's bytes to pixels; errors that are the image's fault become CorruptImage.

Orientation tags (EXIF) are not applied, as in timm's and torchvision's ImageNet pipelines. CMYK,
palette and grey images become RGB by Pillow's ``convert("RGB")``; transparency is dropped. Grey
images of more than 8 bits are scaled to 8, where ``convert`` would clip them to white or black.

Plain JPEGs are decoded by torchvision, directly into a tensor; it and Pillow use libjpeg-turbo and
agree bit for bit. Pillow decodes everything else, and what torchvision refuses.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from convnext_study.data.dataset import CorruptImage
from convnext_study.errors import first_line

# Markers that start a JPEG frame: 0xC0 to 0xCF except tables (C4, CC) and an extension (C8).
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
RGB = 3  # torchvision's ImageReadMode
# Long over short side: with its short side resized to 256, an image of 60000x1 takes gigabytes.
MOST_ELONGATED = 500
# The largest grey value of 8, 12 and 16 bits, and the bits beyond 8.
GREY_DEPTHS = ((0xFF, 0), (0xFFF, 4), (0xFFFF, 8))


def decode_pixels(content: bytes, name: str) -> torch.Tensor:
    """As `decode_image`, often faster, but a (3, H, W) uint8 tensor.

    Raises CorruptImage, one line that names the file.
    """
    decode_jpeg = _jpeg_decoder()
    if decode_jpeg is not None and _is_plain_jpeg(content):
        try:
            # A copy: torch does not read from immutable bytes.
            return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), RGB, False)
        except RuntimeError:
            pass  # Pillow reports what is wrong with it
    return to_tensor(decode_image(content, name))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB image as a (3, H, W) uint8 tensor."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@cache
def _jpeg_decoder() -> Callable[[torch.Tensor, int, bool], torch.Tensor] | None:
    """torchvision's JPEG operation, from its library alone: the package takes 1.6 s to import."""
    package = find_spec("torchvision")
    for folder in (package.submodule_search_locations or ()) if package else ():
        for library in Path(folder).glob("image*.so"):
            with contextlib.suppress(OSError, AttributeError, RuntimeError):  # other versions
                torch.ops.load_library(library)  # type: ignore[no-untyped-call]
                decoder: Callable[[torch.Tensor, int, bool], torch.Tensor]
                decoder = torch.ops.image.decode_jpeg
                return decoder
    return None


def _is_plain_jpeg(content: bytes) -> bool:
    """Whether these are the bytes of an 8-bit JPEG, grey or colour, of an acceptable size."""
    if content[:2] != b"\xff\xd8":
        return False
    position = 2
    while position + 9 < len(content) and content[position] == 0xFF:
        if content[position + 1] in FRAMES:
            bits, components = content[position + 4], content[position + 9]
            height = int.from_bytes(content[position + 5 : position + 7], "big")
            width = int.from_bytes(content[position + 7 : position + 9], "big")
            acceptable = height * width <= (Image.MAX_IMAGE_PIXELS or 0)
            acceptable = acceptable and not _is_elongated(width, height)
            return bits == 8 and components in (1, 3) and acceptable
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return False


def decode_image(content: bytes, name: str) -> Image.Image:
    """An RGB image from a file's bytes. Raises CorruptImage, one line that names the file."""
    if not content:
        raise corrupt_image(name, "the file is empty")
    with decoding(name), Image.open(io.BytesIO(content)) as image:
        if _is_elongated(*image.size):
            raise ValueError(
                f"{image.width}x{image.height} pixels, more than {MOST_ELONGATED} times as "
                "long as it is wide"
            )
        return to_rgb(image)


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Raises CorruptImage, one line that names the file, for any error of a decoder."""
    try:
        yield
    except UnidentifiedImageError:
        raise corrupt_image(name, "no known image format") from None
    except Exception as error:  # decoders raise any kind of exception for broken files
        reason = first_line(error)
        if isinstance(error, Image.DecompressionBombError):
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            reason = f"more than {limit:,} pixels, which may be an attack on memory"
        raise corrupt_image(name, reason) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as 8-bit RGB. Raises ValueError for grey values of an unknown range."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith(("I", "F")):  # 16-bit grey is "I;16", "I;16B" or "I"
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # The same colours as a direct conversion, without Pillow's warning in every worker.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _eight_bits(grey: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Integer or floating-point grey values scaled to 8 bits.

    Files do not say how many bits they use, often 12 of 16: it is the fewest of 8, 12 and 16 that
    fit the largest value. Values up to 1 are black and white, or fractions of white.
    """
    low, high = grey.min(), grey.max()
    if not (low >= 0 and high <= GREY_DEPTHS[-1][0]):  # also true for NaN
        raise ValueError(
            f"grey values from {low:g} to {high:g}, for which black and white are unknown; scale "
            "them to 8 or 16 bits"
        )
    if high <= 1:
        return (grey * np.float32(255)).round().astype(np.uint8)
    shift = next(bits for largest, bits in GREY_DEPTHS if high <= largest)
    integers = grey if grey.dtype == np.uint16 else grey.astype(np.int32)
    return (integers >> shift).astype(np.uint8)


def _is_elongated(width: int, height: int) -> bool:
    return max(width, height) > MOST_ELONGATED * min(width, height)


def corrupt_image(name: str, reason: str) -> CorruptImage:
    """The one-line error for an image that cannot be decoded, with what to do."""
    return CorruptImage(
        f"{name}: cannot be decoded ({reason}); repair or remove it, or use --corrupt-images skip",
        name,
    )
