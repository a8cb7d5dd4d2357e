"""Reading and augmenting JPEG files, compared with timm's default loader, on one core."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from convnext_study.benchmarks import Settings
from convnext_study.benchmarks.timing import Row, compare, interleave, one_thread, timed
from convnext_study.data.dataset import DataError, DatasetPair
from convnext_study.recipes import MODERN, Recipe

BATCH = 16
SIDES = (500, 375)  # the most common size in ImageNet
IMAGES, QUICK_IMAGES = 192, 48  # files that are written, and at most read per repeat
PLAIN = MODERN.model_copy(update={"rand_augment": None, "color_jitter": 0.0, "random_erasing": 0.0})


def measure(settings: Settings, report: Callable[[str], None]) -> tuple[str, list[Row]]:
    """Rows of both loaders' images/s, with crop and flip only and with all of `modern`, on
    ``settings.data`` or on JPEG files with random shapes."""
    from convnext_study.data import open_data

    count = QUICK_IMAGES if settings.quick else IMAGES
    with tempfile.TemporaryDirectory() as folder:
        if settings.data is None:
            write_jpegs(Path(folder), count)
        data = open_data(settings.data or f"folder:{folder}")
        batches = max(min(count, len(data.train)) // BATCH, 1)
        rows = []
        for name, recipe in (("crop and flip", PLAIN), ("modern", MODERN)):
            report(f"pipeline, {name}")
            rates = measure_pipeline(data, recipe, settings.repeats, BATCH, batches)
            rows.append(compare(name, rates))
    where = settings.data or "synthetic 500x375 JPEG files"
    return f"reading and augmenting {where}, one core, 224x224", rows


def measure_pipeline(
    data: DatasetPair, recipe: Recipe, repeats: int = 5, batch: int = 32, batches: int = 4
) -> dict[str, list[float]]:
    """Images/s of both loaders, ``ours`` and ``timm``, for each of the interleaved repeats.

    They read the training images of a ``folder:``; a repeat is ``batches`` of ``batch`` images.
    Raises DataError if the images are not files, or too few.
    """
    import torch

    from convnext_study.data.device import ToDevice

    timm_loader = _timms_loader(data, recipe, batch)
    prepare = ToDevice(data, memory_format=torch.channels_last)
    # Without Mixup and CutMix, which come later and would need an even number of images.
    small = recipe.replace(global_batch_size=batch, mixup=0.0, cutmix=0.0)
    seeds = itertools.count()
    loaders: dict[str, Callable[[], Iterator[Any]]] = {
        "ours": lambda: map(prepare, _batches(data, small, next(seeds))),
        "timm": lambda: itertools.chain.from_iterable(itertools.repeat(timm_loader)),
    }

    def measure(load: Callable[[], Iterator[Any]]) -> float:
        return batch * batches / timed(partial(_read, load(), batch, batches))[1]

    with one_thread():
        measures = {name: partial(measure, load) for name, load in loaders.items()}
        measured = interleave(measures, repeats + 1)
    return {name: rates[1:] for name, rates in measured.items()}  # the first warms up


def write_jpegs(root: Path, count: int) -> None:
    """Write ``train/`` and ``val/`` with two classes of photograph-like JPEG files of 500x375."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, images in (("train", count), ("val", 2)):
        for number in range(images):
            # Coarse shapes with some grain: about 50 kB per file, half of an ImageNet file.
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            pixels = np.asarray(coarse.resize(SIDES, Image.Resampling.BICUBIC), dtype=np.int16)
            grain = rng.normal(0, 8, pixels.shape)
            image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
            folder = root / part / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number:04d}.jpg", quality=85)


def _read(batches: Iterator[Any], batch: int, count: int) -> None:
    for images, _ in itertools.islice(batches, count):
        if len(images) != batch:
            raise DataError(
                f"too few training images for batches of {batch}; use more images or "
                "smaller batches"
            )


def _batches(data: DatasetPair, recipe: Recipe, seed: int) -> Iterator[Any]:
    """Batches from the readers, epoch after epoch, without end."""
    from convnext_study.data.loader import train_batches

    for epoch in itertools.count():
        yield from train_batches(data, recipe, seed, epoch)


def _timms_loader(data: DatasetPair, recipe: Recipe, batch: int) -> Any:
    """The loader of timm's ``train.py`` for the recipe, with prefetcher, without workers."""
    import torch
    from timm.data import ImageDataset, create_loader

    from convnext_study.data.transforms.image import image_size, repair_posterize

    if not data.uri.startswith("folder:"):
        raise DataError(f"data {data.uri}: timm's loader can only be measured on folder:PATH")
    dataset = ImageDataset(str(Path(data.uri.removeprefix("folder:")) / "train"))
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
