"""The kinds of data sets: an entry of `SOURCES` each, and a file that opens it (no torch here)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.errors import UserError

if TYPE_CHECKING:
    from convnext_study.data.dataset import DatasetPair, OnCorruptImage

# The kinds of labels.
LABELS = OF_IMAGES, OF_PIXELS, JOINTS = (
    "a class for every image",
    "a class for every pixel",
    "joints",
)


class DatasetSize(NamedTuple):
    """The number of images and classes of a data set, the side of its images in pixels, and whether
    its validation part is evaluated once, as in `DatasetPair`."""

    train: int
    val: int
    classes: int
    image_size: int
    val_once: bool = False


IMAGENET = DatasetSize(1_281_167, 50_000, 1000, 224)  # ImageNet-1K


class OpenRequest(NamedTuple):
    """How to open a data set: its ``?OPTION=VALUE``, and the arguments of `open_data`."""

    options: Mapping[str, str] = {}
    download: bool = False
    corrupt_images: OnCorruptImage = "stop"
    val_alone: bool = False


@dataclass(frozen=True)
class DataSource:
    """A kind of data set.

    Attributes:
        usage: its URI, as shown in help and errors.
        opener: ``file:function`` in this folder, imported when the data is opened. The function
            takes the path, or whatever follows the scheme, and an `OpenRequest`.
        labels: of its images, one of `LABELS`.
        needs_path: whether something must follow the scheme.
        default_path: its folder unless a path follows the scheme.
        options: that may follow the path.
        identifier: ``file:function`` for the identity in path and options, without locations.
        recipe: the short recipes that fit it, as in `recipes.CHOICES`.
        size: if it is known.
        files: patterns, one of which matches in its folder if data of a known size is present.
        assumed: its size if its folder does not exist.
        unsafe: first parts of paths that may execute code or download, so that they are not opened
            for a record of unknown origin.
    """

    usage: str
    opener: str
    labels: str = OF_IMAGES
    needs_path: bool = True
    default_path: str = ""
    options: tuple[str, ...] = ()
    identifier: str = ""
    recipe: str = "small"
    size: DatasetSize | None = None
    files: tuple[str, ...] = ()
    assumed: DatasetSize | None = None
    unsafe: tuple[str, ...] = ()

    @property
    def has_location(self) -> bool:
        """Whether it is stored in a location, and not identified by its URI alone."""
        return self.needs_path or bool(self.default_path)

    def open(self, path: str, request: OpenRequest) -> DatasetPair:
        """Open it. Raises DataError."""
        opener: Callable[[str, OpenRequest], DatasetPair] = _function(self.opener)
        return opener(path, request)

    def identity(self, path: str, options: Mapping[str, str]) -> str:
        """The identity in its URI, without locations; empty if the data itself identifies it."""
        return _function(self.identifier)(path, options) if self.identifier else ""


def _function(name: str) -> Callable[..., Any]:
    file, _, function = name.partition(":")
    loaded: Callable[..., Any] = getattr(import_module(f"{__name__}.{file}"), function)
    return loaded


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
    # Pickles, whose digests torchvision checks before it opens them.
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
        identifier="timm_readers:identity_of",
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
    """A data set's parsed URI: ``SCHEME:PATH?OPTIONS``, with options if the kind has any."""

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
    """The URIs of data with these labels, by scheme."""
    return {scheme: source.usage for scheme, source in SOURCES.items() if source.labels == labels}


def has_location(uri: str) -> bool:
    """Whether known data is stored in a location, and not identified by its URI alone."""
    source = SOURCES.get(split_uri(uri).scheme)
    return source is not None and source.has_location


def wrong_labels(uri: str, wanted: str) -> str | None:
    """An error for data with other labels than ``wanted``; None if they match or are unknown."""
    source = SOURCES.get(split_uri(uri).scheme)
    if source is None or source.labels == wanted:
        return None
    use = ", ".join(usages(wanted).values())
    return f"data {uri!r}: has {source.labels}, but {wanted} is needed; use {use}"


def check_labels(uri: str, wanted: str) -> None:
    """Raises UserError, one line that names suitable data, if the labels do not match."""
    if problem := wrong_labels(uri, wanted):
        raise UserError(problem)
