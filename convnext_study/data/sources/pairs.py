"""``pairs:PATH``: any folder of images, and PNG masks of the same names with a class per pixel.

Both layouts are read: ``train/images`` and ``train/masks``, or ``images/train`` and
``masks/train``; likewise ``val``. ``PATH/classes.txt`` has the classes' names, one per line from
class 0 on; without it the training masks determine the classes (all are read once: `data.masks`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from itertools import pairwise
from pathlib import Path, PurePosixPath

from convnext_study.data.dataset import IGNORE, DataError, DatasetPair
from convnext_study.data.masks import MaskedImages, Pair, check_numbers, masked_data
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.listing import SUFFIXES, files_in, is_folder, unread_note

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"


def open_pairs(path: str, request: OpenRequest) -> DatasetPair:
    """Images and masks under ``train`` and ``val``. Raises DataError naming the path at fault."""
    root = Path(path).expanduser()
    folders = [_folders(root, part) for part in ("train", "val")]
    parts = [paired(root, images, masks, _mask_of) for images, masks in folders]
    names = _class_names(root)
    for part in parts:
        part.survey(request.corrupt_images)
    for part in parts if names else ():
        part.reject_labels_from(len(names), request.corrupt_images)
    train, val = parts
    check_numbers(train, val, names)
    return masked_data(train, val, names or tuple(f"class{label}" for label in train.labels))


def paired(
    root: Path,
    images: str,
    masks: str,
    mask_of: Callable[[str], str | None],
    suffixes: Collection[str] = SUFFIXES,
) -> MaskedImages:
    """The images in a folder, each with its mask in another, sorted by path.

    Args:
        root: the data's folder.
        images: the folder of the images in it.
        masks: the folder of the masks in it.
        mask_of: a mask's path in its folder from the image's; None for a file that is no image.
        suffixes: of images.

    Raises DataError if there are no images, or two have the same mask.
    """
    unread: Counter[str] = Counter()
    image_bytes = dict(files_in(str(root / images), suffixes, unread))
    mask_bytes = dict(files_in(str(root / masks), {".png"}))
    pairs = []
    for path in sorted(image_bytes):
        inside = Path(path).relative_to(root / images).as_posix()
        if (name := mask_of(inside)) is not None:
            size = mask_bytes.get(str(root / masks / name), -1)
            pairs.append(Pair(f"{images}/{inside}", f"{masks}/{name}", image_bytes[path], size))
    if not pairs:
        raise DataError(f"{root / images}: contains no images ({', '.join(sorted(suffixes))})")
    for a, b in pairwise(sorted(pairs, key=lambda pair: pair.mask)):
        if a.mask == b.mask:
            raise DataError(
                f"{root / a.mask}: is the mask of both {a.image} and {b.image}; rename or remove "
                "one"
            )
    return MaskedImages(str(root), masks, pairs, unread_note(str(root / images), unread, suffixes))


def _folders(root: Path, part: str) -> tuple[str, str]:
    """The folders of a part's images and masks, inside the data's folder."""
    if not is_folder(root):
        raise DataError(f"{root}: no such folder")
    layouts = [(f"{part}/{IMAGES}", f"{part}/{MASKS}"), (f"{IMAGES}/{part}", f"{MASKS}/{part}")]
    for images, masks in layouts:
        if is_folder(root / images) and is_folder(root / masks):
            return images, masks
    raise DataError(
        f"{root}: pairs:PATH needs {layouts[0][0]} and {layouts[0][1]} in it, or "
        f"{layouts[1][0]} and {layouts[1][1]}"
    )


def _mask_of(image: str) -> str:
    return str(PurePosixPath(image).with_suffix(".png"))


def _class_names(root: Path) -> tuple[str, ...]:
    """The names in the file; empty if there is no file."""
    path = root / CLASSES
    if not path.exists():
        return ()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 1 < len(names) <= IGNORE:
        raise DataError(f"{path}: needs 2 to {IGNORE} class names, one per line")
    return names
