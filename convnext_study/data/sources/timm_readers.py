"""``timm:NAME?OPTION=VALUE&...``: the data sets that timm reads, sampled our way.

A folder or tar, ``hfds/NAME`` of Hugging Face, WebDataset shards in ``wds/FOLDER``, or a set of
torchvision's, ``torch/NAME``. timm's readers find the images and their labels. Reading goes by
index, so that the order is ours and exact to resume; readers that only stream in an order of their
own are refused.
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
from convnext_study.data.sources import Opening
from convnext_study.data.sources.folder import Part, list_images, of_parts
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


def open_timm(name: str, how: Opening) -> DatasetPair:
    """A data set by timm's name for it. Raises DataError, one line.

    The validation part alone may also be the folder itself, where it has neither.
    """
    kind, _ = kind_of(name)
    if kind in STREAMS:
        raise DataError(
            f"timm:{name}: {kind} only streams images in an order of its own, so a run on "
            "it could not be resumed exactly; write it to shards once and use timm:wds/FOLDER, or "
            "use timm:hfds/NAME"
        )
    openers: dict[str, Callable[[str, str, Opening], Part]] = {
        "hfds": _open_hub,
        "torch": _open_torch,
        "wds": _open_wds,
        "": _open_path,
    }
    parts = {}
    for part in ("val",) if how.val_alone else ("train", "val"):
        try:
            parts[part] = openers[kind](name, part, how)
        except DataError:
            raise
        # timm and what it calls fail in every way there is: assertions, missing packages.
        except Exception as error:
            raise DataError(
                f"timm:{name}: {part}: cannot be opened ({first_line(error)})"
            ) from error
        if not len(parts[part][0]):
            raise DataError(f"timm:{name}: {part}: holds no images")
    return of_parts(f"timm:{name}", parts, _size(name, how.options.get("size")))


def kind_of(name: str) -> tuple[str, str]:
    """``hfds``, ``torch``, ``wds``, ..., or nothing for a path; and the name without it."""
    kind, slash, rest = name.partition("/")
    return (kind.lower(), rest) if slash and kind.lower() in KINDS else ("", name)


def besides_place(name: str, options: Mapping[str, str]) -> str:
    """What a name and its options say besides where files are.

    The images of folders and tars tell by themselves which options chose them, all but ``size``;
    of other kinds not everything can be had without reading, and the name and the options stay.
    """
    kind, rest = kind_of(name)
    keep = {key: value for key, value in options.items() if key != "root"}
    said = kind
    if kind in ("", "wds"):
        keep = {key: value for key, value in keep.items() if key == "size"}
    elif not Path(rest).expanduser().exists():  # else a local folder of Hugging Face's
        said = f"{kind}/{rest}"
    return said + "".join(f"?{key}={keep[key]}" for key in sorted(keep))


def _size(name: str, size: str | None) -> int | None:
    if size is not None and (not size.isdecimal() or not 1 <= int(size[:9]) <= MOST_SIDE):
        raise DataError(
            f"timm:{name}: size {size!r:.50} is not a number of pixels up to {MOST_SIDE}"
        )
    return None if size is None else int(size)


def _open_path(name: str, part: str, how: Opening) -> Part:
    """A folder of class folders, of tars or of one tar, for each part, as timm lists them."""
    from convnext_study.data.sources.tar_shards import open_timm_tars

    root = Path(name).expanduser()
    usual = VAL_FOLDERS if part == "val" else (part,)
    names = (how.options[part],) if part in how.options else usual
    places = [root / f"{one}{ending}" for one in names for ending in ("", ".tar")]
    if part == "val" and how.val_alone and not (root / "train").exists():
        places.append(root)
    place = next(filter(Path.exists, places), None)
    if place is None:
        raise DataError(f"{root}: holds no {' or '.join(names)}, folder or tar")
    if place.suffix == ".tar" or any(is_data(one.name) for one in place.glob("*.tar")):
        return open_timm_tars(str(place))
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
    notes = unread_note(folder, unread, suffixes)
    return Files(folder, files, [numbers[name] for name in names], notes), tuple(classes)


def _open_wds(name: str, part: str, how: Opening) -> Part:
    from convnext_study.data.sources.tar_shards import open_wds_shards

    root = os.path.expanduser(how.options.get("root", kind_of(name)[1]))  # noqa: PTH111
    pattern = how.options.get(part, f"*{part}*.tar")
    return open_wds_shards(root, pattern, how.options.get("label", "label"))


def _open_hub(name: str, part: str, how: Opening) -> Part:
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"timm:{name}: needs Hugging Face's package: pip install datasets")
    from timm.data.readers import create_reader

    reader: Any = create_reader(
        name,
        root=how.options.get("root"),
        split=how.options.get(part, SPLITS[part]),
        input_key=how.options.get("image", "image"),
        target_key=how.options.get("label", "label"),
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
        """The encoded image. Raises DataError where the disk is in the way, else CorruptImage."""
        try:
            with self._reader[index][0] as file:
                content: bytes = file.read()
        except OSError as error:
            raise unreadable(str(error.filename or self.name(index)), error) from None
        except (AssertionError, KeyError, TypeError) as error:  # neither bytes nor a path
            raise corrupt_image(self.name(index), "the row holds no image") from error
        return content

    def digests(self) -> dict[str, str]:
        """SHA-256 of the labels, and of names and sizes in the table that holds a split."""
        found = {"labels": digest(self.labels)}
        table = getattr(self._reader.dataset, "data", None)
        if table is None or len(column := table.column(self._reader.image_key)) != len(self):
            return found  # rows were chosen from the table, in an order that it does not tell
        import pyarrow.compute as arrow

        paths = arrow.struct_field(column, "path").to_pylist()
        sizes = arrow.binary_length(arrow.struct_field(column, "bytes")).to_pylist()
        return {**found, **digests_of_rows(paths, sizes)}


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


def _open_torch(name: str, part: str, how: Opening) -> Part:
    """One split and its classes; sets of files are read as folders are."""
    root, split = how.options.get("root", "."), how.options.get(part, SPLITS[part])
    if kind_of(name)[1].lower() in CLASS_FOLDERS:
        from timm.data.dataset_factory import _search_split

        # What torchvision's ImageFolder lists, in its order, and safe from links that lead back.
        folder = _search_split(os.path.expanduser(root), split)  # noqa: PTH111
        return list_images(Path(folder), by=os.path.split)
    from timm.data import create_dataset

    dataset: Any = create_dataset(name, root=root, split=split, download=how.download)
    classes = tuple(map(str, dataset.classes))
    # ImageNet and Places365 list their files.
    if listed := getattr(dataset, "imgs", None):
        folder = os.path.commonpath([os.path.dirname(path) for path, _ in listed])  # noqa: PTH120
        listed = [one for one in listed if is_data(os.path.relpath(one[0], folder))]
        files = [(path, size_of(path)) for path, _ in listed]
        return Files(folder, files, [label for _, label in listed]), classes
    return TorchvisionImages(dataset, name), classes


class TorchvisionImages:
    """A torchvision data set of (image, label), as an image set."""

    def __init__(self, dataset: Any, where: str) -> None:
        self._dataset, self._where = dataset, where

    def __len__(self) -> int:
        return len(self._dataset)

    def pixels(self, index: int) -> tuple[Tensor, int]:
        """An image, (3, H, W) uint8, and its label.

        Raises DataError where the disk is in the way, CorruptImage at any other trouble.
        """
        name = f"{self._where}[{index}]"
        try:
            image, label = self._dataset[index]
            return to_tensor(to_rgb(image)), int(label)
        except Exception as error:  # as in decode_image: whatever a broken file leads to
            # Decoders raise errors without a number. A damaged header can ask for a place before
            # the file's start, which the system finds invalid.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise unreadable(str(error.filename or name), error) from None
            raise corrupt_image(name, first_line(error)) from error

    def digests(self) -> dict[str, str]:
        """Of the pixels and labels that torchvision holds in memory; else of nothing."""
        held = {"content": "data", "labels": "targets"}
        return {
            kind: digest(np.asarray(getattr(self._dataset, name)))
            for kind, name in held.items()
            if hasattr(self._dataset, name)
        }
