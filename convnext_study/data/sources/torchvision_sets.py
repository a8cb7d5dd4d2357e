"""``timm:torch/NAME``: the torchvision data sets that timm knows."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from convnext_study.data.dataset import ImageDataset, digest, unreadable
from convnext_study.data.decode import corrupt_image, to_rgb
from convnext_study.data.encoded import EncodedImages, Files, size_of
from convnext_study.data.sources.folder import class_names, list_images
from convnext_study.data.sources.listing import is_data

if TYPE_CHECKING:
    from convnext_study.data.sources.timm_request import Request

CLASS_FOLDERS = ("image_folder", "folder")


def open_torch(request: Request, part: str) -> tuple[ImageDataset, tuple[str, ...]]:
    """One split and its classes; sets of files are read as folders are."""
    root = request.split("root", ".")
    split = request.split(part, {"train": "train", "val": "validation"}[part])
    if request.rest.lower() in CLASS_FOLDERS:
        return _open_class_folders(root, split)
    from timm.data import create_dataset

    dataset: Any = create_dataset(request.name, root=root, split=split, download=request.download)
    classes = tuple(map(str, dataset.classes))
    # ImageNet and Places365 list their files.
    if listed := getattr(dataset, "imgs", None):
        folder = os.path.commonpath([os.path.dirname(path) for path, _ in listed])  # noqa: PTH120
        listed = [one for one in listed if is_data(os.path.relpath(one[0], folder))]
        files = [(path, size_of(path)) for path, _ in listed]
        return EncodedImages(Files(folder, files, [label for _, label in listed])), classes
    return Pairs(dataset, request.name), classes


def _open_class_folders(root: str, split: str) -> tuple[ImageDataset, tuple[str, ...]]:
    """What torchvision's ImageFolder lists, in its order, and safe from links that lead back."""
    from timm.data.dataset_factory import _search_split

    folder = Path(_search_split(os.path.expanduser(root), split))  # noqa: PTH111
    classes = class_names(folder)
    return list_images(folder, classes, by=os.path.split), classes


@dataclass(frozen=True)
class Pairs:
    """A torchvision data set of (image, label), as an image set."""

    dataset: Any
    where: str

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Raises DataError where the disk is in the way, CorruptImage at any other trouble."""
        name = f"{self.where}[{index}]"
        try:
            image, label = self.dataset[index]
            return to_rgb(image), int(label)
        except Exception as error:  # as in decode_image: whatever a broken file leads to
            if isinstance(error, OSError) and _of_the_disk(error):
                raise unreadable(str(error.filename or name), error) from None
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise corrupt_image(name, reason) from error

    def digests(self) -> dict[str, str]:
        """Of the pixels and labels that torchvision holds in memory; else of nothing."""
        held = {"content": "data", "labels": "targets"}
        return {
            kind: digest(np.asarray(getattr(self.dataset, name)))
            for kind, name in held.items()
            if hasattr(self.dataset, name)
        }


def _of_the_disk(error: OSError) -> bool:
    """Decoders raise errors without a number. A damaged header can ask for a place before the
    file's start, which the system finds invalid."""
    return error.errno not in (None, errno.EINVAL)
