"""``timm:hfds/NAME``: Hugging Face's data sets, through timm's reader with random access."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convnext_study.data.dataset import DataError, digest, unreadable
from convnext_study.data.decode import corrupt_image
from convnext_study.data.encoded import EncodedImages, Ints, Names, size_of
from convnext_study.data.sources.listing import numbered_classes

if TYPE_CHECKING:
    from convnext_study.data.sources.timm_request import Request


def open_hub(request: Request, part: str) -> tuple[EncodedImages, tuple[str, ...]]:
    """One split and its classes. Raises DataError where Hugging Face's package is missing."""
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"timm:{request.name}: needs Hugging Face's package: pip install datasets")
    from timm.data.readers import create_reader

    reader: Any = create_reader(
        request.name,
        root=request.options.get("root"),
        split=request.split(part, {"train": "train", "val": "validation"}[part]),
        input_key=request.split("image", "image"),
        target_key=request.split("label", "label"),
    )
    held = [int(label) for label in reader.dataset[reader.label_key]]
    numbered = numbered_classes(f"timm:{request.name}: {part}", held)
    classes = tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__)) or numbered
    labels = np.array(held, dtype=np.int64)
    return EncodedImages(HubImages(reader, labels, request.name)), classes


@dataclass(frozen=True)
class HubImages:
    """A timm reader with random access, as a source."""

    reader: Any
    labels: Ints
    where: str

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The data set and the image's index in it."""
        return f"{self.where}[{index}]"

    def label(self, index: int) -> int:
        """The class of the image, from 0."""
        return int(self.labels[index])

    def read(self, index: int) -> bytes:
        """The encoded image. Raises DataError where the disk is in the way, else CorruptImage."""
        try:
            with self.reader[index][0] as file:
                content: bytes = file.read()
        except OSError as error:
            raise unreadable(str(error.filename or self.name(index)), error) from None
        except (AssertionError, KeyError, TypeError) as error:  # neither bytes nor a path
            raise corrupt_image(self.name(index), "the row holds no image") from error
        return content

    def digests(self) -> dict[str, str]:
        """SHA-256 of the labels and of what is stored beside them."""
        stored = _stored(self.reader, len(self))
        return {"labels": digest(self.labels), **stored}


def _stored(reader: Any, count: int) -> dict[str, str]:
    """Digests of names and sizes from the table that holds a split, without reading images."""
    table = getattr(reader.dataset, "data", None)
    if table is None or len(column := table.column(reader.image_key)) != count:
        return {}  # rows were chosen from the table, in an order that it does not tell
    import pyarrow.compute as arrow

    paths = arrow.struct_field(column, "path").to_pylist()
    sizes = arrow.binary_length(arrow.struct_field(column, "bytes")).to_pylist()
    return digests_of_rows(paths, sizes)


def digests_of_rows(paths: Sequence[str | None], sizes: Sequence[int | None]) -> dict[str, str]:
    """Digests of names and sizes of images, which rows hold or name the files of.

    Args:
        paths: whole where the image is a file elsewhere, else a name, if any.
        sizes: in bytes of what the rows themselves hold.
    """
    found = [
        size_of(path) if path and not size else size or 0
        for path, size in zip(paths, sizes, strict=True)
    ]
    names = [path or "" for path in paths]
    if all(map(os.path.isabs, names)):
        folder = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
        names = [name[len(folder) :] for name in names]
    return {"names": Names(names).digest(), "sizes": digest(np.array(found, dtype=np.int64))}
