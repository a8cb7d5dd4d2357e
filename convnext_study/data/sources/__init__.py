"""Data sets by kind: a file opens each, and a line of `SOURCES` names it (no torch here)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.errors import UserError

if TYPE_CHECKING:
    from convnext_study.data.dataset import DatasetPair, OnCorruptImage

# What the images of a kind are labelled with.
LABELS = OF_IMAGES, OF_PIXELS, JOINTS = (
    "a class for every image",
    "a class for every pixel",
    "joints",
)


class DatasetSize(NamedTuple):
    """How many images and classes a data set has, the side of its images in pixels, and whether it
    is evaluated on once, as `DatasetPair` has it."""

    train: int
    val: int
    classes: int
    image_size: int
    val_once: bool = False


IMAGENET = DatasetSize(1_281_167, 50_000, 1000, 224)  # ImageNet-1K


class Opening(NamedTuple):
    """How a data set is opened: with what ``?OPTION=VALUE``, and as `open_data` says."""

    options: Mapping[str, str] = {}
    download: bool = False
    corrupt_images: OnCorruptImage = "stop"
    val_alone: bool = False


@dataclass(frozen=True)
class DataSource:
    """A kind of data set.

    Attributes:
        usage: its URI, as help and errors have it.
        opener: ``file:function`` in this folder, imported when the data is opened. The function
            takes the path, what else follows the scheme, and an `Opening`.
        labels: of its images.
        needs_path: whether something must follow the scheme.
        default_path: where it is unless a path follows the scheme.
        options: that may follow the path.
        says: ``file:function`` for what path and options say besides where files are.
        recipe: the short recipes that fit it, as in `recipes.CHOICES`.
        size: where it is known.
        files: patterns, of which its folder holds one where data of a known size is there.
        assumed: its size where its folder is not there.
        unsafe: first parts of paths that may run code or fetch, so that they are not opened for a
            record of unknown origin.
    """

    usage: str
    opener: str
    labels: str = OF_IMAGES
    needs_path: bool = True
    default_path: str = ""
    options: tuple[str, ...] = ()
    says: str = ""
    recipe: str = "small"
    size: DatasetSize | None = None
    files: tuple[str, ...] = ()
    assumed: DatasetSize | None = None
    unsafe: tuple[str, ...] = ()

    @property
    def has_place(self) -> bool:
        """Whether it lies somewhere, and is not known by its URI alone."""
        return self.needs_path or bool(self.default_path)

    def open(self, path: str, how: Opening) -> DatasetPair:
        """Open it. Raises DataError."""
        opener: Callable[[str, Opening], DatasetPair] = _function(self.opener)
        return opener(path, how)

    def besides_place(self, path: str, options: Mapping[str, str]) -> str:
        """What its URI says besides where files are; empty where the data itself tells it."""
        return _function(self.says)(path, options) if self.says else ""


def _function(name: str) -> Callable[..., Any]:
    file, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"{__name__}.{file}"), function)
    return found


SOURCES = {
    "digits": DataSource(
        "digits", "digits:open_digits", needs_path=False, size=DatasetSize(1_010, 787, 10, 32)
    ),
    "clutter": DataSource(
        "clutter[:easy|hard|tune]",
        "clutter:open_clutter",
        needs_path=False,
        recipe="composed",
        size=DatasetSize(9_024, 10_231, 10, 32, val_once=True),
    ),
    "fashion": DataSource(
        "fashion[:PATH][?train=COUNT]",
        "fashion:open_fashion",
        needs_path=False,
        default_path="/usr/share/datasets/fashion-mnist",
        options=("train",),
        size=DatasetSize(60_000, 10_000, 10, 32, val_once=True),
        files=tuple(f"{inside}train-images-idx3-ubyte*" for inside in ("", "FashionMNIST/raw/")),
    ),
    "synthetic": DataSource(
        "synthetic[:CLASSES,SIZE,COUNT]", "synthetic:open_synthetic", needs_path=False
    ),
    "folder": DataSource(
        "folder:PATH",
        "folder:open_folder",
        assumed=IMAGENET,
    ),
    "packed": DataSource("packed:PATH", "packed:open_packed", files=("pack.json",)),
    # Pickles, of which torchvision knows the digests: it opens no others.
    "cifar10": DataSource(
        "cifar10:PATH",
        "cifar:open_cifar10",
        size=DatasetSize(50_000, 10_000, 10, 32),
        files=("cifar-10-batches-py",),
    ),
    "cifar100": DataSource(
        "cifar100:PATH",
        "cifar:open_cifar100",
        size=DatasetSize(50_000, 10_000, 100, 32),
        files=("cifar-100-python",),
    ),
    "timm": DataSource(
        "timm:NAME",
        "timm_readers:open_timm",
        options=("root", "train", "val", "image", "label", "size"),
        says="timm_readers:besides_place",
        unsafe=("hfds", "hfids", "tfds", "torch"),
    ),
    "digit-canvas": DataSource(
        "digit-canvas[:SIZE,TRAIN,VAL]", "canvas:open_canvases", OF_PIXELS, needs_path=False
    ),
    "digit-signs": DataSource(
        "digit-signs[:SIZE,TRAIN,VAL]", "canvas:open_signs", OF_PIXELS, needs_path=False
    ),
    "cityscapes": DataSource("cityscapes:PATH", "cityscapes:open_cityscapes", OF_PIXELS),
    "pairs": DataSource("pairs:PATH", "pairs:open_pairs", OF_PIXELS),
    "mpii": DataSource("mpii:PATH", "mpii:open_mpii", JOINTS),
    "figures": DataSource(
        "figures[:SIZE,TRAIN,VAL]", "figures:open_figures", JOINTS, needs_path=False
    ),
}


class DataUri(NamedTuple):
    """A data set's URI taken apart: ``SCHEME:PATH?OPTIONS``, options where the kind takes them."""

    scheme: str
    path: str
    options: str

    @property
    def option_values(self) -> dict[str, str]:
        """Options by name."""
        pairs = [pair.partition("=") for pair in self.options.split("&") if pair]
        return {name: value for name, _, value in pairs}


def split_uri(uri: str) -> DataUri:
    """The parts of a URI; a kind with options needs no colon before them."""
    scheme, _, rest = uri.partition(":")
    bare, mark, options = uri.partition("?")
    if mark and bare in SOURCES:
        scheme, rest = bare, mark + options
    if scheme not in SOURCES or not SOURCES[scheme].options:
        return DataUri(scheme, rest, "")
    path, _, options = rest.partition("?")
    return DataUri(scheme, path, options)


def usages(labels: str) -> dict[str, str]:
    """What the URIs of data with these labels look like, by scheme."""
    return {scheme: one.usage for scheme, one in SOURCES.items() if one.labels == labels}


def has_place(uri: str) -> bool:
    """Whether data of this package lies somewhere, and is not known by its URI alone."""
    source = SOURCES.get(split_uri(uri).scheme)
    return source is not None and source.has_place


def wrong_labels(uri: str, wanted: str) -> str | None:
    """One line for data with other labels than ``wanted``; None where they fit, or are unknown."""
    source = SOURCES.get(split_uri(uri).scheme)
    if source is None or source.labels == wanted:
        return None
    use = ", ".join(usages(wanted).values())
    return f"data {uri!r}: has {source.labels}, and {wanted} is needed; use {use}"


def check_labels(uri: str, wanted: str) -> None:
    """Raises UserError, one line that names the right data, where `wrong_labels` has one."""
    if said := wrong_labels(uri, wanted):
        raise UserError(said)
