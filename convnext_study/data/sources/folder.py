"""``folder:PATH``: a folder with ``train/`` and ``val/``, and in each a folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnext_study.data.dataset import CorruptImage, DataError, DatasetPair, ImageDataset
from convnext_study.data.encoded import Files
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.listing import (
    SUFFIXES,
    files_in,
    is_folder,
    subfolders,
    unread_note,
)

LARGEST, SMALLEST = 224, 32  # bounds of the input's side unless the recipe sets one
PROBED = 9  # images from which the size is determined
Listing = tuple[ImageDataset, tuple[str, ...]]  # images, and the names of their classes


def open_folder(path: str, request: OpenRequest) -> DatasetPair:
    """Class folders under ``train/`` and ``val/``. Raises DataError naming the path at fault.

    With ``val_alone``, a folder that has neither is itself the validation part.
    """
    root = Path(path).expanduser()
    places = {name: root / name for name in ("train", "val")}
    if request.val_alone:
        bare = not any(map(is_folder, places.values()))
        places = {"val": root if bare else places["val"]}
    for place in (root, *places.values()):
        if not is_folder(place):
            needed = " and ".join(f"PATH/{name}" for name in places)
            raise DataError(f"{place}: no such folder; folder:PATH needs {needed}")
    return of_parts(str(root), {name: list_images(place) for name, place in places.items()})


def of_parts(where: str, parts: dict[str, Listing], size: int | None = None) -> DatasetPair:
    """Classification data from the parts ``train`` and ``val``, or ``val`` alone.

    Raises DataError if the two parts do not have the same classes.
    """
    val, val_classes = parts["val"]
    train, classes = parts.get("train", parts["val"])
    if classes != val_classes:
        only = sorted(set(classes) ^ set(val_classes))
        raise DataError(
            f"{where}: train and val have different classes; only in one of them: "
            f"{', '.join(only[:8])}{' ...' if len(only) > 8 else ''}"
        )
    return DatasetPair(classes, size or natural_size(train), train, val)


def natural_size(images: ImageDataset) -> int:
    """Side to which images are scaled: their own, but at least 32 and at most 224.

    It is the median of a few images spread over the set; unreadable ones do not count.
    """
    sides = []
    for index in range(0, len(images), max(len(images) // PROBED, 1)):
        try:
            sides.append(min(images.pixels(index)[0].shape[1:]))
        except CorruptImage:
            continue
    typical = sorted(sides)[len(sides) // 2] if sides else LARGEST
    return min(max(typical, SMALLEST), LARGEST)


def list_images(part: Path, by: Callable[[str], Any] | None = None) -> Listing:
    """The images in each folder of a part, sorted by path or by the key ``by``, and the folders'
    names. Raises DataError if there are no folders, or one is empty.
    """
    classes = tuple(subfolders(str(part)))
    if not classes:
        raise DataError(f"{part}: contains no class folders; put the images of each class in one")
    unread: Counter[str] = Counter()
    files: list[tuple[str, int]] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        sizes = dict(files_in(str(part / name), SUFFIXES, unread))
        if not sizes:
            raise DataError(f"{part / name}: contains no images ({', '.join(sorted(SUFFIXES))})")
        files += [(path, sizes[path]) for path in sorted(sizes, key=by)]
        labels += [label] * len(sizes)
    return Files(str(part), files, labels, unread_note(str(part), unread, SUFFIXES)), classes
