"""How many images a study reads: counted, taken from the user, or known before they are fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convnext_study.data.sources import OF_IMAGES, SOURCES, split_uri
from convnext_study.experiments.data_identity import look_at

IMAGENET_TRAIN, IMAGENET_VAL, IMAGENET_CLASSES, IMAGENET_SIDE = 1_281_167, 50_000, 1000, 224


@dataclass(frozen=True)
class DatasetSize:
    """How many images a study reads, of what size and how many kinds. ``uri`` names them."""

    uri: str
    train: int
    val: int
    classes: int
    image_size: int


def dataset_size(uri: str, *, images: int | None, classes: int, image_size: int) -> DatasetSize:
    """Count the images of a data set, or take the user's word for them.

    Raises DataError where the data is not there and ``images`` is not given.
    """
    if images is not None:
        val = IMAGENET_VAL if images == IMAGENET_TRAIN else 0
        return DatasetSize("as given by --train-images", images, val, classes, image_size)
    scheme, path, options = split_uri(uri)
    source = SOURCES.get(scheme)
    placed = source and (bool(path) == source.needs_path or source.default_path)
    if source and source.size and placed and not options:
        return DatasetSize(uri, *source.size)
    return DatasetSize(uri, *look_at(uri).size)


def expected_size(uri: str) -> tuple[DatasetSize, str]:
    """The sizes to count with, and a line about data that is not here, empty where it is.

    Raises DataError for data that is not here and of which nothing is known.
    """
    return size_if_missing(uri) or (dataset_size(uri, images=None, classes=0, image_size=0), "")


def has_maps(uri: str) -> bool:
    """Whether the images are labelled with maps or joints, and read one by one."""
    source = SOURCES.get(split_uri(uri).scheme)
    return source is not None and source.labels != OF_IMAGES


def size_if_missing(uri: str) -> tuple[DatasetSize, str] | None:
    """The sizes to count with for data that is not here, and a line that says so.

    None where the data is here, and where no size is known without it: `dataset_size` has the
    count, or the error.
    """
    scheme, path, _ = split_uri(uri)
    source = SOURCES.get(scheme)
    path = path or (source.default_path if source else "")
    if not path:
        return None
    here = Path(path).expanduser()
    if source and source.files and not any(next(here.glob(one), None) for one in source.files):
        sizes = dataset_size(uri, images=None, classes=0, image_size=0)
        return sizes, f"{path}: {scheme} is not there yet; counted with its known size"
    if source and source.assumed and not here.exists():
        sizes = DatasetSize(uri, *source.assumed)
        return sizes, f"{path}: no such folder; counted as if ImageNet-1K were there"
    return None
