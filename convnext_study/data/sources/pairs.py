"""``pairs:PATH``: any folder of images, and PNG masks of the same names with a class per pixel.

Both orders are read: ``train/images`` and ``train/masks``, or ``images/train`` and ``masks/train``;
likewise ``val``. Names of the classes stand in ``PATH/classes.txt``, one per line from class 0 on;
without that file the training masks are counted: all masks are read once, see `data.masks`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from itertools import pairwise
from pathlib import Path, PurePosixPath

from convnext_study.data.dataset import IGNORE, DataError, DatasetPair
from convnext_study.data.masks import MaskedImages, Pair, check_numbers, masked_data
from convnext_study.data.sources import Opening
from convnext_study.data.sources.listing import SUFFIXES, files_in, is_folder, unread_note

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"


def open_pairs(path: str, how: Opening) -> DatasetPair:
    """Images and masks under ``train`` and ``val``. Raises DataError naming the path at fault."""
    root = Path(path).expanduser()
    folders = [_folders(root, part) for part in ("train", "val")]
    parts = [paired(root, images, masks, _mask_of) for images, masks in folders]
    names = _class_names(root)
    for part in parts:
        part.survey(how.corrupt_images)
    for part in parts if names else ():
        part.refuse_from(len(names), how.corrupt_images)
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
    """The images in a folder, each with its mask in another, in the order of their paths.

    Args:
        root: the data's folder.
        images: in it, that of the images.
        masks: in it, that of the masks.
        mask_of: a mask's path in its folder from the image's; None of a file that is no image.
        suffixes: of images.

    Raises DataError where there are no images, and where two have one mask.
    """
    unread: Counter[str] = Counter()
    found = dict(files_in(str(root / images), suffixes, unread))
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
    return MaskedImages(str(root), masks, pairs, unread_note(str(root / images), unread, suffixes))


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
