"""``timm:NAME?OPTION=VALUE&...``: the data sets that timm reads, sampled our way.

timm's readers find the images and their labels. Reading goes by index, so that the order is ours
and exact to resume; readers that only stream in an order of their own are refused.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from convnext_study.data.dataset import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DataError,
    DatasetPair,
    ImageDataset,
)
from convnext_study.data.encoded import EncodedImages, Files
from convnext_study.data.sources.folder import check_same_classes, natural_size
from convnext_study.data.sources.hugging_face import open_hub
from convnext_study.data.sources.listing import files_in, is_data, unread_note
from convnext_study.data.sources.timm_request import STREAMS, Request, take_apart
from convnext_study.data.sources.torchvision_sets import open_torch
from convnext_study.errors import did_you_mean

OPTIONS = ("root", "train", "val", "image", "label", "size")
MOST_SIDE = 4096  # pixels
VAL_FOLDERS = ("val", "validation", "valid", "eval", "test")
Part = tuple[ImageDataset, tuple[str, ...]]
Opener = Callable[["Request", str], Part]


def open_timm(text: str, *, download: bool = False, val_alone: bool = False) -> DatasetPair:
    """A data set by timm's name for it. Raises DataError, one line.

    Args:
        text: a folder or tar, or ``hfds/NAME``, ``wds/FOLDER``, ``torch/NAME``; then options.
        download: let torchvision's data sets fetch what is not there.
        val_alone: open no training part, which then is the validation part; that may also be the
            folder itself, where it has neither.
    """
    request = replace(parse(text, download=download), val_alone=val_alone)
    if request.kind in STREAMS:
        raise DataError(
            f"timm:{text}: {request.kind} only streams images in an order of its own, so a run on "
            "it could not be resumed exactly; write it to shards once and use timm:wds/FOLDER, or "
            "use timm:hfds/NAME"
        )
    opener: dict[str, Opener] = {
        "hfds": open_hub,
        "torch": open_torch,
        "wds": _open_wds,
        "": _open_path,
    }
    names = ("val",) if val_alone else ("train", "val")
    parts = {name: _part(opener[request.kind], request, name) for name in names}
    train, val = parts.get("train", parts["val"]), parts["val"]
    check_same_classes(f"timm:{text}", train[1], val[1])
    return DatasetPair(
        uri=f"timm:{text}",
        classes=train[1],
        size=_size(request, train[0]),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        train=train[0],
        val=val[0],
    )


def parse(text: str, *, download: bool = False) -> Request:
    """``NAME?OPTION=VALUE&...`` taken apart. Raises DataError at an unknown option."""
    request = take_apart(text)
    for key in request.options:
        if key not in OPTIONS:
            raise DataError(
                f"timm:{text}: unknown option {key!r}{did_you_mean(key, list(OPTIONS))}"
            )
    return replace(request, download=download)


def _part(opener: Opener, request: Request, part: str) -> Part:
    try:
        images, classes = opener(request, part)
    except DataError:
        raise
    # timm and what it calls fail in every way there is: assertions, missing packages, no network.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"timm:{request.name}: {part}: cannot be opened ({reason})") from error
    if not len(images):
        raise DataError(f"timm:{request.name}: {part}: holds no images")
    return images, classes


def _open_path(request: Request, part: str) -> Part:
    """A folder of class folders, of tars or of one tar, for each part, as timm lists them."""
    from convnext_study.data.sources.tar_shards import open_timm_tars

    root = Path(request.name).expanduser()
    names = [request.options[part]] if part in request.options else [part]
    if part == "val" and part not in request.options:
        names = list(VAL_FOLDERS)
    places = [root / f"{name}{ending}" for name in names for ending in ("", ".tar")]
    if part == "val" and request.val_alone and not (root / "train").exists():
        places.append(root)
    place = next(filter(Path.exists, places), None)
    if place is None:
        raise DataError(f"{root}: holds no {' or '.join(names)}, folder or tar")
    if place.suffix == ".tar" or any(is_data(one.name) for one in place.glob("*.tar")):
        archives, classes = open_timm_tars(str(place))
        return EncodedImages(archives), classes
    return _open_folder(str(place))


def _open_folder(folder: str) -> Part:
    """Images by the name of the innermost folder, in timm's order.

    timm leaves names that differ only in case, or as ``1`` and ``01`` do, in the order of the file
    system, and classes of such names in one that changes from process to process. Here they are
    in the order of their letters.
    """
    from timm.data.readers.img_extensions import get_img_extensions
    from timm.utils.misc import natural_key

    suffixes, unread = get_img_extensions(as_set=True), Counter[str]()
    files = files_in(folder, suffixes, unread)
    files.sort(key=lambda file: (natural_key(file[0]), file[0]))
    inside = [os.path.dirname(path) for path, _ in files]  # noqa: PTH120
    names = ["" if one == folder else os.path.basename(one) for one in inside]  # noqa: PTH119
    classes = sorted(set(names), key=lambda name: (natural_key(name), name))
    numbers = {name: number for number, name in enumerate(classes)}
    listed = Files(folder, files, [numbers[name] for name in names])
    return EncodedImages(listed, unread_note(folder, unread, suffixes)), tuple(classes)


def _open_wds(request: Request, part: str) -> Part:
    from convnext_study.data.sources.tar_shards import open_wds_shards

    root = os.path.expanduser(request.split("root", request.rest))  # noqa: PTH111
    label = request.split("label", "label")
    archives, classes = open_wds_shards(root, request.split(part, f"*{part}*.tar"), label)
    return EncodedImages(archives), classes


def _size(request: Request, images: ImageDataset) -> int:
    size = request.options.get("size")
    if size is None:
        return natural_size(images)
    if not size.isdecimal() or not 1 <= int(size[:9]) <= MOST_SIDE:
        raise DataError(
            f"timm:{request.name}: size {size!r:.50} is not a number of pixels up to {MOST_SIDE}"
        )
    return int(size)
