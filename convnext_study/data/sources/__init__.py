"""Data sets by kind: a file opens each, and a line of `SOURCES` names it (no torch here)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from convnext_study.data.dataset import DatasetPair


class KnownSize(NamedTuple):
    """What is known of a data set without opening it: images, classes, side in pixels."""

    train: int
    val: int
    classes: int
    image_size: int


@dataclass(frozen=True)
class DataSource:
    """A kind of data set.

    Attributes:
        usage: its URI, as help and errors have it.
        opener: ``file:function`` in this folder, imported when the data is opened. The function
            takes what follows the scheme, and ``download``; it returns a `DatasetPair`.
        needs_path: whether something must follow the scheme.
        recipe: the short recipes that fit it, as in `recipes.CHOICES`.
        safe: whether opening it runs no code and fetches nothing, so that it may be opened for a
            record of unknown origin.
        size: where it is known.
        has_parts: whether its validation part can be opened alone: its opener takes ``val_alone``.
        default_path: where it is unless a path follows the scheme.
        takes_options: whether ``?OPTION=VALUE&...`` may follow.
        files: patterns, of which its folder holds one where the data is there and has a ``size``.
    """

    usage: str
    opener: str
    needs_path: bool = True
    recipe: str = "small"
    safe: bool = True
    size: KnownSize | None = None
    has_parts: bool = False
    default_path: str = ""
    takes_options: bool = False
    files: tuple[str, ...] = ()

    @property
    def has_place(self) -> bool:
        """Whether it lies somewhere, and is not known by its URI alone."""
        return self.needs_path or bool(self.default_path)

    def open(self, path: str, *, download: bool, val_alone: bool = False) -> DatasetPair:
        """Open it. Raises DataError."""
        file, _, function = self.opener.partition(":")
        opener: Callable[..., DatasetPair] = getattr(import_module(f"{__name__}.{file}"), function)
        more = {"val_alone": val_alone} if self.has_parts else {}
        return opener(path, download=download, **more)


SOURCES = {
    "digits": DataSource(
        "digits", "digits:open_digits", needs_path=False, size=KnownSize(1_010, 787, 10, 32)
    ),
    "clutter": DataSource(
        "clutter[:easy|hard|tune]",
        "clutter:open_clutter",
        needs_path=False,
        recipe="composed",
        size=KnownSize(9_024, 10_231, 10, 32),
    ),
    "fashion": DataSource(
        "fashion[:PATH][?train=COUNT]",
        "fashion:open_fashion",
        needs_path=False,
        size=KnownSize(60_000, 10_000, 10, 32),
        default_path="/usr/share/datasets/fashion-mnist",
        takes_options=True,
        files=tuple(f"{inside}train-images-idx3-ubyte*" for inside in ("", "FashionMNIST/raw/")),
    ),
    "synthetic": DataSource(
        "synthetic[:CLASSES,SIZE,COUNT]", "synthetic:open_synthetic", needs_path=False
    ),
    "folder": DataSource("folder:PATH", "folder:open_folder", has_parts=True),
    # Pickles, of which torchvision knows the digests: it opens no others.
    "cifar10": DataSource(
        "cifar10:PATH",
        "cifar:open_cifar10",
        size=KnownSize(50_000, 10_000, 10, 32),
        files=("cifar-10-batches-py",),
    ),
    "cifar100": DataSource(
        "cifar100:PATH",
        "cifar:open_cifar100",
        size=KnownSize(50_000, 10_000, 100, 32),
        files=("cifar-100-python",),
    ),
    # Whether it is safe depends on which of timm's readers a name means.
    "timm": DataSource(
        "timm:NAME", "timm_datasets:open_timm", safe=False, has_parts=True, takes_options=True
    ),
}


class DataUri(NamedTuple):
    """A data set's URI taken apart: ``SCHEME:PATH?OPTIONS``, options where the kind takes them."""

    scheme: str
    path: str
    options: str

    @property
    def rest(self) -> str:
        """What follows the scheme."""
        return f"{self.path}?{self.options}" if self.options else self.path


def split_uri(uri: str) -> DataUri:
    """The parts of a URI; a kind with options needs no colon before them."""
    scheme, _, rest = uri.partition(":")
    bare, mark, options = uri.partition("?")
    if mark and ":" not in bare and bare in SOURCES:
        scheme, rest = bare, mark + options
    source = SOURCES.get(scheme)
    if source is None or not source.takes_options:
        return DataUri(scheme, rest, "")
    path, _, options = rest.partition("?")
    return DataUri(scheme, path, options)
