"""``timm:NAME?OPTION=VALUE&...``: the data sets that timm reads, with this package's sampling.

A folder or tar, ``hfds/NAME`` of Hugging Face, WebDataset shards in ``wds/FOLDER``, or a data set
of torchvision, ``torch/NAME``. timm's readers list the images and their labels. Images are read by
index, so that the order is ours and resumes exactly; readers that only stream in their own order
are rejected.
"""

from __future__ import annotations

import errno
import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from convnext_study.data.dataset import DataError, DatasetPair, digest, unreadable
from convnext_study.data.decode import corrupt_image, to_rgb, to_tensor
from convnext_study.data.encoded import EncodedImages, Files, Names
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.folder import Listing, list_images, of_parts
from convnext_study.data.sources.listing import (
    files_in,
    is_data,
    numbered_classes,
    size_of,
    unread_note,
)
from convnext_study.errors import first_line

STREAMS = ("tfds", "hfids")
KINDS = ("hfds", "torch", "wds", *STREAMS)
SPLITS = {"train": "train", "val": "validation"}  # as timm names them
MOST_SIDE = 4096  # pixels
VAL_FOLDERS = ("val", "validation", "valid", "eval", "test")
CLASS_FOLDERS = ("image_folder", "folder")


def open_timm(name: str, request: OpenRequest) -> DatasetPair:
    """A data set by its name in timm. Raises DataError, one line.

    With ``val_alone``, a folder that has neither part is itself the validation part.
    """
    kind, _ = kind_of(name)
    if kind in STREAMS:
        raise DataError(
            f"timm:{name}: {kind} only streams images in its own order, so a run could not be "
            "resumed exactly; write it to shards once and use timm:wds/FOLDER, or use "
            "timm:hfds/NAME"
        )
    openers: dict[str, Callable[[str, str, OpenRequest], Listing]] = {
        "hfds": _open_hub,
        "torch": _open_torch,
        "wds": _open_wds,
        "": _open_path,
    }
    parts = {}
    for part in ("val",) if request.val_alone else ("train", "val"):
        try:
            parts[part] = openers[kind](name, part, request)
        except DataError:
            raise
        # timm and its dependencies raise all kinds of errors: assertions, missing packages.
        except Exception as error:
            raise DataError(
                f"timm:{name}: {part}: cannot be opened ({first_line(error)})"
            ) from error
        if not len(parts[part][0]):
            raise DataError(f"timm:{name}: {part}: contains no images")
    return of_parts(f"timm:{name}", parts, _size(name, request.options.get("size")))


def kind_of(name: str) -> tuple[str, str]:
    """``hfds``, ``torch``, ``wds``, ..., or an empty kind for a path; and the remaining name."""
    kind, slash, rest = name.partition("/")
    return (kind.lower(), rest) if slash and kind.lower() in KINDS else ("", name)


def identity_of(name: str, options: Mapping[str, str]) -> str:
    """The identity in a name and its options, without locations of files.

    Folders and tars are identified by their images, whatever options selected them, except for
    ``size``; others cannot be identified without reading, so the name and the options are kept.
    """
    kind, rest = kind_of(name)
    kept = {key: value for key, value in options.items() if key != "root"}
    identity = kind
    if kind in ("", "wds"):
        kept = {key: value for key, value in kept.items() if key == "size"}
    elif not Path(rest).expanduser().exists():  # otherwise a local Hugging Face folder
        identity = f"{kind}/{rest}"
    return identity + "".join(f"?{key}={kept[key]}" for key in sorted(kept))


def _size(name: str, size: str | None) -> int | None:
    if size is not None and (not size.isdecimal() or not 1 <= int(size[:9]) <= MOST_SIDE):
        raise DataError(
            f"timm:{name}: size {size!r:.50} is not a number of pixels up to {MOST_SIDE}"
        )
    return None if size is None else int(size)


def _open_path(name: str, part: str, request: OpenRequest) -> Listing:
    """A folder of class folders or of tars, or one tar, for each part, as timm lists them."""
    from convnext_study.data.sources.tar_shards import open_timm_tars

    root = Path(name).expanduser()
    default_names = VAL_FOLDERS if part == "val" else (part,)
    names = (request.options[part],) if part in request.options else default_names
    places = [root / f"{name}{ending}" for name in names for ending in ("", ".tar")]
    if part == "val" and request.val_alone and not (root / "train").exists():
        places.append(root)
    place = next(filter(Path.exists, places), None)
    if place is None:
        raise DataError(f"{root}: contains no {' or '.join(names)}, as a folder or tar")
    if place.suffix == ".tar" or any(is_data(tar.name) for tar in place.glob("*.tar")):
        return open_timm_tars(str(place))
    return _open_folder(str(place))


def _open_folder(folder: str) -> Listing:
    """Images with the name of the innermost folder as class, in timm's order.

    timm leaves names that differ only in case, or like ``1`` and ``01``, in the order of the file
    system, and classes with such names in an order that changes from process to process. Here
    they are sorted as strings.
    """
    from timm.data.readers.img_extensions import get_img_extensions
    from timm.utils.misc import natural_key

    suffixes, unread = get_img_extensions(as_set=True), Counter[str]()
    files = files_in(folder, suffixes, unread)
    files.sort(key=lambda file: (natural_key(file[0]), file[0]))
    parents = [os.path.dirname(path) for path, _ in files]  # noqa: PTH120
    names = ["" if parent == folder else os.path.basename(parent) for parent in parents]  # noqa: PTH119
    classes = sorted(set(names), key=lambda name: (natural_key(name), name))
    numbers = {name: number for number, name in enumerate(classes)}
    notes = unread_note(folder, unread, suffixes)
    return Files(folder, files, [numbers[name] for name in names], notes), tuple(classes)


def _open_wds(name: str, part: str, request: OpenRequest) -> Listing:
    from convnext_study.data.sources.tar_shards import open_wds_shards

    root = os.path.expanduser(request.options.get("root", kind_of(name)[1]))  # noqa: PTH111
    pattern = request.options.get(part, f"*{part}*.tar")
    return open_wds_shards(root, pattern, request.options.get("label", "label"))


def _open_hub(name: str, part: str, request: OpenRequest) -> Listing:
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"timm:{name}: needs Hugging Face's package: pip install datasets")
    from timm.data.readers import create_reader

    reader: Any = create_reader(
        name,
        root=request.options.get("root"),
        split=request.options.get(part, SPLITS[part]),
        input_key=request.options.get("image", "image"),
        target_key=request.options.get("label", "label"),
    )
    labels = [int(label) for label in reader.dataset[reader.label_key]]
    numbered = numbered_classes(f"timm:{name}: {part}", labels)
    classes = tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__)) or numbered
    return HubImages(reader, labels, name), classes


class HubImages(EncodedImages):
    """Images of a timm reader with random access."""

    def __init__(self, reader: Any, labels: Sequence[int], where: str) -> None:
        super().__init__(labels)
        self._reader, self._where = reader, where
        self.names = Names([str(index) for index in range(len(labels))])

    def name(self, index: int) -> str:
        """The data set and the image's index in it."""
        return f"{self._where}[{index}]"

    def read(self, index: int) -> bytes:
        """The encoded image. Raises DataError for a problem of the disk, else CorruptImage."""
        try:
            with self._reader[index][0] as file:
                content: bytes = file.read()
        except OSError as error:
            raise unreadable(str(error.filename or self.name(index)), error) from None
        except (AssertionError, KeyError, TypeError) as error:  # neither bytes nor a path
            raise corrupt_image(self.name(index), "the row contains no image") from error
        return content

    def digests(self) -> dict[str, str]:
        """SHA-256 of the labels, and of names and sizes in the split's table if there is one."""
        digests = {"labels": digest(self.labels)}
        table = getattr(self._reader.dataset, "data", None)
        if table is None or len(column := table.column(self._reader.image_key)) != len(self):
            return digests  # rows were selected from the table, in an unknown order
        import pyarrow.compute as arrow

        paths = arrow.struct_field(column, "path").to_pylist()
        sizes = arrow.binary_length(arrow.struct_field(column, "bytes")).to_pylist()
        return {**digests, **digests_of_rows(paths, sizes)}


def digests_of_rows(paths: Sequence[str | None], sizes: Sequence[int | None]) -> dict[str, str]:
    """Digests of the names and sizes of images that rows contain or whose files they name.

    Args:
        paths: full paths of images in files of their own, otherwise names, if any.
        sizes: bytes of the images that the rows themselves contain.
    """
    image_sizes = [
        size_of(path) if path and not size else size or 0
        for path, size in zip(paths, sizes, strict=True)
    ]
    names = [path or "" for path in paths]
    if all(map(os.path.isabs, names)):
        folder = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
        names = [name[len(folder) :] for name in names]
    return {"names": Names(names).digest(), "sizes": digest(np.array(image_sizes, dtype=np.int64))}


def _open_torch(name: str, part: str, request: OpenRequest) -> Listing:
    """One split and its classes; data sets of files are read like folders."""
    root, split = request.options.get("root", "."), request.options.get(part, SPLITS[part])
    if kind_of(name)[1].lower() in CLASS_FOLDERS:
        from timm.data.dataset_factory import _search_split

        # As torchvision's ImageFolder lists it, in its order, and safe from circular links.
        folder = _search_split(os.path.expanduser(root), split)  # noqa: PTH111
        return list_images(Path(folder), by=os.path.split)
    from timm.data import create_dataset

    dataset: Any = create_dataset(name, root=root, split=split, download=request.download)
    classes = tuple(map(str, dataset.classes))
    # ImageNet and Places365 list their files.
    if listed := getattr(dataset, "imgs", None):
        folder = os.path.commonpath([os.path.dirname(path) for path, _ in listed])  # noqa: PTH120
        listed = [item for item in listed if is_data(os.path.relpath(item[0], folder))]
        files = [(path, size_of(path)) for path, _ in listed]
        return Files(folder, files, [label for _, label in listed]), classes
    return TorchvisionImages(dataset, name), classes


class TorchvisionImages:
    """A torchvision data set of (image, label) as an `ImageDataset`."""

    def __init__(self, dataset: Any, where: str) -> None:
        self._dataset, self._where = dataset, where

    def __len__(self) -> int:
        return len(self._dataset)

    def pixels(self, index: int) -> tuple[Tensor, int]:
        """An image, (3, H, W) uint8, and its label.

        Raises DataError for a problem of the disk, CorruptImage for any other error.
        """
        name = f"{self._where}[{index}]"
        try:
            image, label = self._dataset[index]
            return to_tensor(to_rgb(image)), int(label)
        except Exception as error:  # as in decode_image: any error of a broken file
            # Decoders raise errors without a number. A damaged header can lead to a seek before
            # the file's start, which the system reports as invalid.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise unreadable(str(error.filename or name), error) from None
            raise corrupt_image(name, first_line(error)) from error

    def digests(self) -> dict[str, str]:
        """Of the pixels and labels that torchvision has in memory; otherwise empty."""
        attributes = {"content": "data", "labels": "targets"}
        return {
            kind: digest(np.asarray(getattr(self._dataset, name)))
            for kind, name in attributes.items()
            if hasattr(self._dataset, name)
        }
