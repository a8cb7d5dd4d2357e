"""Speed of reading images, beside timm's default loader on the same files, on one core."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from convnext_study.benchmarks.timing import interleave, one_thread, timed
from convnext_study.data.dataset import DataError, DatasetPair
from convnext_study.data.device import Prepare
from convnext_study.data.encoded import EncodedImages, Files
from convnext_study.data.loader import image_size, train_batches
from convnext_study.data.transforms.timm_fixes import repair_posterize
from convnext_study.recipes import Recipe


def measure_pipeline(
    data: DatasetPair, recipe: Recipe, repeats: int = 5, batch: int = 32, batches: int = 4
) -> dict[str, list[float]]:
    """Images/s of both loaders, ``ours`` and ``timm``, for each of the interleaved repeats.

    They work in this process with one thread, on the training images of a ``folder:``. A repeat is
    so many batches of so many images. Raises DataError where the images are not files.
    """
    theirs = _timms_loader(data, recipe, batch)
    # Reading alone: images are mixed later, and would have to come in pairs.
    small = recipe.replace(global_batch_size=batch, mixup=0.0, cutmix=0.0)
    seeds = itertools.count()
    loaders: dict[str, Callable[[], Iterator[Any]]] = {
        "ours": lambda: _forever(data, small, next(seeds)),
        "timm": lambda: itertools.chain.from_iterable(itertools.repeat(theirs)),
    }

    def measure(name: str) -> float:
        read = partial(_read, loaders[name](), batch, batches)
        return batch * batches / timed(read)[1]

    with one_thread():
        found = interleave({name: partial(measure, name) for name in loaders}, repeats + 1)
    return {name: rates[1:] for name, rates in found.items()}  # the first warms up


def _read(batches: Iterator[Any], batch: int, count: int) -> None:
    for images, _ in itertools.islice(batches, count):
        if len(images) != batch:
            raise DataError(f"too few training images for batches of {batch}; use more or smaller")


def _forever(data: DatasetPair, recipe: Recipe, seed: int) -> Iterator[Any]:
    prepare = Prepare(data, memory_format=torch.channels_last)
    for epoch in itertools.count():
        yield from map(prepare, train_batches(data, recipe, seed, epoch))


def _timms_loader(data: DatasetPair, recipe: Recipe, batch: int) -> Any:
    """What timm's ``train.py`` makes of the recipe, prefetcher included, without workers."""
    from timm.data import ImageDataset, create_loader

    if not (isinstance(data.train, EncodedImages) and isinstance(data.train.source, Files)):
        raise DataError(f"data {data.uri}: timm's loader can only be measured on folder:PATH")
    dataset = ImageDataset(root="", reader=_Reader(data.train.source))
    loader = create_loader(
        dataset,
        input_size=(3, image_size(data, recipe), image_size(data, recipe)),
        batch_size=batch,
        is_training=True,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        hflip=0.5 if recipe.flip and data.flips else 0.0,
        color_jitter=recipe.color_jitter or None,
        auto_augment=recipe.rand_augment,
        interpolation=recipe.interpolation,
        mean=data.mean,
        std=data.std,
        num_workers=0,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    for step in dataset.transform.transforms:
        repair_posterize(step)
    return loader


@dataclass(frozen=True)
class _Reader:
    """The same files, as timm's data set wants them."""

    files: Files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return open(self.files.name(index), "rb"), self.files.label(index)  # noqa: PTH123
