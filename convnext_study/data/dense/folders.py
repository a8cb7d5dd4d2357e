"""``pairs:PATH``: any folder of images, and PNG masks of the same names with a class per pixel.

Both orders are read: ``train/images`` and ``train/masks``, or ``images/train`` and ``masks/train``;
likewise ``val``. Names of the classes stand in ``PATH/classes.txt``, one per line from class 0 on;
without that file the training masks are counted: all masks are read once, see `check`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

from convnext_study.data.dataset import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DataError,
    OnCorruptImage,
)
from convnext_study.data.dense.check import Survey, check_numbers, check_parts, survey
from convnext_study.data.dense.dataset import IGNORE, DenseData
from convnext_study.data.dense.files import FilePairs, Pair
from convnext_study.data.sources.folder import SUFFIXES
from convnext_study.data.sources.listing import files_in, is_folder, unread_note

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"


def open_pairs(path: str, corrupt_images: OnCorruptImage = "stop") -> DenseData:
    """Images and masks under ``train`` and ``val``. Raises DataError naming the path at fault."""
    root = Path(path).expanduser()
    folders = {part: _folders(root, part) for part in ("train", "val")}
    notes: list[str] = []
    pairs = {part: paired(root, *one, _mask_of, notes=notes) for part, one in folders.items()}
    names = _class_names(root)
    found = {part: look_at(root, folders[part][1], pairs[part], corrupt_images) for part in pairs}
    if names:
        found = {part: one.within(len(names), corrupt_images) for part, one in found.items()}
    check_numbers(found["train"], found["val"], names)
    check_parts(found["train"], found["val"], names)
    classes = names or tuple(f"class{label}" for label in found["train"].labels)
    parts = {
        part: FilePairs(str(root), pairs[part], len(classes), bad=one.bad)
        for part, one in found.items()
    }
    return replace(of_files(f"pairs:{path}", classes, parts), notes=tuple(notes))


def look_at(root: Path, masks: str, pairs: list[Pair], corrupt_images: OnCorruptImage) -> Survey:
    """A survey of pairs whose masks are in a folder of the data's. Raises CorruptImage."""
    return survey(str(root / masks), FilePairs(str(root), pairs), corrupt_images)


def of_files(uri: str, classes: tuple[str, ...], parts: Mapping[str, FilePairs]) -> DenseData:
    """Data whose ``train`` and ``val`` are files, normalised as ImageNet's are."""
    return DenseData(
        uri=uri,
        classes=classes,
        size=parts["val"].size(),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=parts["train"],
        val=parts["val"],
    )


def paired(
    root: Path,
    images: str,
    masks: str,
    mask_of: Callable[[str], str | None],
    suffixes: Collection[str] = SUFFIXES,
    notes: list[str] | None = None,
) -> list[Pair]:
    """The images in a folder, each with its mask in another, in the order of their paths.

    Args:
        root: the data's folder.
        images: in it, that of the images.
        masks: in it, that of the masks.
        mask_of: a mask's path in its folder from the image's; None of a file that is no image.
        suffixes: of images.
        notes: takes a line on other files among the images.

    Raises DataError where there are no images, and where two have one mask.
    """
    unread: Counter[str] = Counter()
    found = dict(files_in(str(root / images), suffixes, unread))
    if notes is not None:
        notes += unread_note(str(root / images), unread, suffixes)
    held = dict(files_in(str(root / masks), {".png"}))
    pairs = []
    for path in sorted(found):
        inside = Path(path).relative_to(root / images).as_posix()
        if (name := mask_of(inside)) is not None:
            size = held.get(str(root / masks / name), -1)
            pairs.append(Pair(f"{images}/{inside}", f"{masks}/{name}", found[path], size))
    if not pairs:
        raise DataError(f"{root / images}: holds no images ({', '.join(sorted(suffixes))})")
    for one, other in pairwise(sorted(pairs, key=lambda pair: pair.mask)):
        if one.mask == other.mask:
            raise DataError(
                f"{root / one.mask}: is the mask of {one.image} and of {other.image}; name them "
                f"apart, or remove one"
            )
    return pairs


def _folders(root: Path, part: str) -> tuple[str, str]:
    """Where a part's images and masks are, inside the data's folder."""
    if not is_folder(root):
        raise DataError(f"{root}: no such folder")
    orders = [(f"{part}/{IMAGES}", f"{part}/{MASKS}"), (f"{IMAGES}/{part}", f"{MASKS}/{part}")]
    for images, masks in orders:
        if is_folder(root / images) and is_folder(root / masks):
            return images, masks
    raise DataError(
        f"{root}: pairs:PATH needs {orders[0][0]} and {orders[0][1]} in it, or {orders[1][0]} and "
        f"{orders[1][1]}"
    )


def _mask_of(image: str) -> str:
    return str(PurePosixPath(image).with_suffix(".png"))


def _class_names(root: Path) -> tuple[str, ...]:
    """Those of the file; none where there is no file."""
    path = root / CLASSES
    if not path.exists():
        return ()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 1 < len(names) <= IGNORE:
        raise DataError(f"{path}: needs 2 to {IGNORE} names of classes, one per line")
    return names
