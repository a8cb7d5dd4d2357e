"""``folder:PATH``: a folder with ``train/`` and ``val/``, and in each a folder for every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnext_study.data.dataset import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CorruptImage,
    DataError,
    DataParts,
    DatasetPair,
    ImageDataset,
)
from convnext_study.data.encoded import EncodedImages, Files
from convnext_study.data.sources.listing import files_in, is_folder, subfolders, unread_note

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
LARGEST, SMALLEST = 224, 32  # sides of what a network sees unless the recipe says another
MOST_NAMED = 12  # classes
LOOK_AT = 9  # images, to know what size they are


def open_folder(path: str, *, download: bool = False, val_alone: bool = False) -> DatasetPair:
    """Class folders under ``train/`` and ``val/``. Raises DataError naming the path at fault.

    With ``val_alone`` they may also lie in the folder itself, where it has neither.
    """
    root = Path(path).expanduser()
    places = {name: root / name for name in ("train", "val")}
    if val_alone:
        lone = not any(map(is_folder, places.values()))
        places = {"val": root if lone else places["val"]}
    for place in (root, *places.values()):
        if not is_folder(place):
            needed = " and ".join(f"PATH/{name}" for name in places)
            raise DataError(f"{place}: no such folder; folder:PATH needs {needed}")
    classes = {name: class_names(place) for name, place in places.items()}
    check_same_classes(str(root), classes.get("train", classes["val"]), classes["val"])
    parts = {name: list_images(place, classes[name]) for name, place in places.items()}
    train = parts.get("train", parts["val"])
    return DatasetPair(
        uri=f"folder:{path}",
        classes=classes["val"],
        size=natural_size(train),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=train,
        val=parts["val"],
    )


def check_same_classes(where: str, train: tuple[str, ...], val: tuple[str, ...]) -> None:
    """Raises DataError where the two parts do not hold the same classes."""
    if train == val:
        return
    only = sorted(set(train) ^ set(val))
    raise DataError(
        f"{where}: train and val hold different classes; only in one of them: "
        f"{', '.join(only[:8])}{' ...' if len(only) > 8 else ''}"
    )


def class_order_note(data: DataParts) -> str | None:
    """In one line, in which order class folders are numbered, where weights from elsewhere may have
    been trained with another: where all are whole numbers, or text and numbers sort differently.

    ``folder:`` sorts as torchvision's ImageFolder does, ``timm:PATH`` as timm does.
    """
    from timm.utils.misc import natural_key

    names = list(data.classes)
    as_text, as_numbers = sorted(names), sorted(names, key=lambda name: (natural_key(name), name))
    in_doubt = as_text != as_numbers or all(map(str.isdecimal, names))
    if data.uri.partition(":")[0] not in ("folder", "timm") or not in_doubt:
        return None
    if names not in (as_text, as_numbers):  # not of folders
        return None
    order = "as numbers, as timm does" if names == as_numbers else "as text, as torchvision does"
    if as_text == as_numbers:
        order = "the same as numbers and as text"
    start = f"{', '.join(names[:MOST_NAMED])}{', ...' if len(names) > MOST_NAMED else ''}"
    return (
        f"classes are in the order {start} (sorted {order}), and weights from elsewhere may have "
        "another: folder:PATH sorts as text, timm:PATH as numbers"
    )


def natural_size(images: ImageDataset) -> int:
    """Side to which images are scaled: 224, or that of smaller ones, from 32 on.

    It is the median of a few images spread over the set; unreadable ones do not count.
    """
    sides = []
    for index in range(0, len(images), max(len(images) // LOOK_AT, 1)):
        try:
            sides.append(min(images[index][0].size))
        except CorruptImage:
            continue
    typical = sorted(sides)[len(sides) // 2] if sides else LARGEST
    return min(max(typical, SMALLEST), LARGEST)


def class_names(part: Path) -> tuple[str, ...]:
    """Names of the folders in a part, in their order. Raises DataError where there are none."""
    names = tuple(subfolders(str(part)))
    if not names:
        raise DataError(f"{part}: holds no class folders; put the images of each class in one")
    return names


def list_images(
    part: Path, classes: tuple[str, ...], by: Callable[[str], Any] | None = None
) -> EncodedImages:
    """The images of each class in turn, in the order of their paths or of what ``by`` makes of
    them. Raises DataError at an empty class."""
    unread: Counter[str] = Counter()
    files: list[tuple[str, int]] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = dict(files_in(str(part / name), SUFFIXES, unread))
        if not found:
            raise DataError(f"{part / name}: holds no images ({', '.join(sorted(SUFFIXES))})")
        files += [(path, found[path]) for path in sorted(found, key=by)]
        labels += [label] * len(found)
    return EncodedImages(Files(str(part), files, labels), unread_note(str(part), unread, SUFFIXES))
