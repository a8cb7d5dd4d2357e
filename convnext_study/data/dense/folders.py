"""``pairs:PATH``: any folder of images, and PNG masks of the same names with a class a pixel.

Both orders are read: ``train/images`` and ``train/masks``, or ``images/train`` and ``masks/train``;
likewise ``val``. Names of the classes stand in ``PATH/classes.txt``, one a line from class 0 on;
without that file the masks of the training part are read once to count them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath

from convnext_study.data.dataset import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CorruptImage,
    DataError,
    OnCorruptImage,
)
from convnext_study.data.dense.dataset import IGNORE, DenseData
from convnext_study.data.dense.files import FilePairs, Pair
from convnext_study.data.sources.folder import SUFFIXES
from convnext_study.data.sources.listing import files_in, is_folder

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"


def open_pairs(path: str, corrupt_images: OnCorruptImage = "stop") -> DenseData:
    """Images and masks under ``train`` and ``val``. Raises DataError naming the path at fault."""
    root = Path(path).expanduser()
    pairs = {part: paired(root, *_folders(root, part), _mask_of) for part in ("train", "val")}
    classes = _class_names(root, pairs["train"])
    parts = {part: FilePairs(str(root), found, len(classes)) for part, found in pairs.items()}
    return of_files(f"pairs:{path}", classes, parts, corrupt_images)


def of_files(
    uri: str,
    classes: tuple[str, ...],
    parts: Mapping[str, FilePairs],
    corrupt_images: OnCorruptImage,
) -> DenseData:
    """Data whose ``train`` and ``val`` are files, normalised as ImageNet's are.

    Raises DataError naming a mask that is missing.
    """
    for part in parts.values():
        part.check_masks(corrupt_images)
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
) -> list[Pair]:
    """The images in a folder, each with its mask in another, in the order of their paths.

    Args:
        root: the data's folder.
        images: in it, that of the images.
        masks: in it, that of the masks.
        mask_of: a mask's path in its folder from the image's; None of a file that is no image.
        suffixes: of images.

    Raises DataError where there are no images.
    """
    found = dict(files_in(str(root / images), suffixes))
    held = dict(files_in(str(root / masks), {".png"}))
    pairs = []
    for path in sorted(found):
        inside = Path(path).relative_to(root / images).as_posix()
        if (name := mask_of(inside)) is not None:
            size = held.get(str(root / masks / name), -1)
            pairs.append(Pair(f"{images}/{inside}", f"{masks}/{name}", found[path], size))
    if not pairs:
        raise DataError(f"{root / images}: holds no images ({', '.join(sorted(suffixes))})")
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


def _class_names(root: Path, train: list[Pair]) -> tuple[str, ...]:
    path = root / CLASSES
    if path.exists():
        try:
            names = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from None
        if not 1 < len(names) <= IGNORE:
            raise DataError(f"{path}: needs 2 to {IGNORE} names of classes, one a line")
        return names
    return tuple(f"class{number}" for number in range(_largest(str(root), train) + 1))


def _largest(root: str, train: list[Pair]) -> int:
    """The largest label in the masks that can be read."""
    masks, largest = FilePairs(root, train, IGNORE), 0
    for index in range(len(masks)):
        try:
            labels = masks.labels(index)
        except CorruptImage:
            continue  # it is told of, or skipped and counted, when the pair is used
        largest = max(largest, int(labels[labels != IGNORE].max(initial=0)))
    return max(largest, 1)
