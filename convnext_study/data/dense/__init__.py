"""Images with a class for every pixel: ``digit-canvas``, ``cityscapes:PATH`` and ``pairs:PATH``.

A pixel of class 255 is ignored by loss and metrics. torch is imported when data is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from convnext_study.errors import did_you_mean

if TYPE_CHECKING:
    from convnext_study.data.dataset import OnCorruptImage
    from convnext_study.data.dense.dataset import DenseData

__all__ = ["DENSE_SOURCES", "DenseSource", "open_dense"]


@dataclass(frozen=True)
class DenseSource:
    """A kind of data set; opening one runs no code of its files and fetches nothing.

    Attributes:
        usage: its URI, as help and errors have it.
        opener: ``file:function`` in this folder, imported when the data is opened. The function
            takes what follows the scheme, and what is done about bad pairs; it returns `DenseData`.
        needs_path: whether something must follow the scheme.
    """

    usage: str
    opener: str
    needs_path: bool = True

    def open(self, path: str, corrupt_images: OnCorruptImage) -> DenseData:
        """Open it. Raises DataError."""
        file, _, function = self.opener.partition(":")
        opener: Callable[..., DenseData] = getattr(import_module(f"{__name__}.{file}"), function)
        return opener(path, corrupt_images)


DENSE_SOURCES = {
    "digit-canvas": DenseSource("digit-canvas", "canvas:open_canvases", needs_path=False),
    "cityscapes": DenseSource("cityscapes:PATH", "cityscapes:open_cityscapes"),
    "pairs": DenseSource("pairs:PATH", "folders:open_pairs"),
}


def open_dense(uri: str, *, corrupt_images: OnCorruptImage = "stop") -> DenseData:
    """Open a data set. Raises DataError, one line that names the path and what to do.

    Args:
        uri: a scheme of `DENSE_SOURCES` and what it needs.
        corrupt_images: stop at a pair that cannot be used (an image or a mask that is missing or
            cannot be decoded, a mask of another size, a label out of range), or take the next pair
            in its place and record its name in ``data.corrupt``.
    """
    from convnext_study.data.dataset import CorruptImages, DataError

    scheme, _, path = uri.partition(":")
    source = DENSE_SOURCES.get(scheme)
    if source is None:
        hint = did_you_mean(scheme, list(DENSE_SOURCES))
        raise DataError(f"data {uri!r}: no kind with a label for every pixel{hint}")
    if source.needs_path and not path:
        raise DataError(f"data {uri!r}: needs a path, as in {scheme}:PATH")
    data = source.open(path, corrupt_images)
    return replace(data, uri=uri, corrupt=CorruptImages(corrupt_images))
