"""Speed of reading images, beside timm's default loader on the same files, on one core."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from convnext_study.data.dataset import DataError, DatasetPair
from convnext_study.data.device import Prepare
from convnext_study.data.encoded import EncodedImages, Files
from convnext_study.data.loader import image_size, train_batches
from convnext_study.data.transforms.timm_fixes import repair_posterize
from convnext_study.recipes import Recipe


@dataclass(frozen=True)
class PipelineSpeed:
    """Images/s of both loaders over interleaved repeats, and their ratios."""

    ours: tuple[float, ...]
    timms: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over timm's, round by round: what else the machine does slows both."""
        return tuple(a / b for a, b in zip(self.ours, self.timms, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest ratio."""
        return min(self.ratios), max(self.ratios)


def measure_pipeline(
    data: DatasetPair, recipe: Recipe, rounds: int = 5, batch: int = 32, batches: int = 4
) -> PipelineSpeed:
    """Both loaders in this process with one thread, on the training images of a ``folder:``.

    A round is so many batches of so many images. Raises DataError where the images are not files.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        theirs = _timms_loader(data, recipe, batch)
        ours: list[float] = []
        timms: list[float] = []
        # Reading alone: images are mixed later, and would have to come in pairs.
        small = recipe.replace(global_batch_size=batch, mixup=0.0, cutmix=0.0)
        for number in range(rounds + 1):
            ours.append(_speed(_forever(data, small, number), batch, batches))
            timms.append(
                _speed(itertools.chain.from_iterable(itertools.repeat(theirs)), batch, batches)
            )
    finally:
        torch.set_num_threads(before)
    return PipelineSpeed(tuple(ours[1:]), tuple(timms[1:]))  # the first warms up


def _speed(batches: Iterator[Any], batch: int, count: int) -> float:
    start = time.perf_counter()
    for images, _ in itertools.islice(batches, count):
        if len(images) != batch:
            raise DataError(f"too few training images for batches of {batch}; use more or smaller")
    return batch * count / (time.perf_counter() - start)


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
