"""Reading and augmenting JPEG files, ours beside timm's default loader, on one core."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.bench.networks import Settings
from convnext_study.bench.timing import Measure, Spread, in_turns, ratio
from convnext_study.errors import BadRequest

if TYPE_CHECKING:
    from convnext_study.training.data import Data
    from convnext_study.training.recipe import Recipe

BATCH = 16
IMAGE_SIZE = 224
SIDES = (500, 375)  # the commonest size in ImageNet
PLAIN = {"rand_augment": "", "color_jitter": 0.0, "random_erasing": 0.0}


def pipeline(
    data: str | None, images: int, settings: Settings, tick: Callable[[str], None]
) -> dict[str, Any]:
    """Images/s of each loader and their ratio, with crop and flip alone and with all of `modern`.

    Both work in this process, with one thread: that is a core's worth, and workers multiply it.

    Args:
        data: ``folder:PATH``; JPEG files of random shapes are written where it is None.
        images: how many files to write, and at most to read each time.
        settings: turns.
        tick: told what is measured.
    """
    import torch

    if data is not None and not data.startswith("folder:"):
        raise BadRequest(f"--data {data}: the pipeline reads files; use folder:PATH, or none")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if data is not None:
            return _both(data, images, settings, tick)
        with tempfile.TemporaryDirectory() as folder:
            write_jpegs(Path(folder), images)
            return _both(f"folder:{folder}", images, settings, tick)
    finally:
        torch.set_num_threads(threads)


def _both(uri: str, images: int, settings: Settings, tick: Callable[[str], None]) -> dict[str, Any]:
    from convnext_study.training.data import open_data
    from convnext_study.training.recipe import MODERN

    data = open_data(uri)
    count = min(images, len(data.train)) // BATCH * BATCH
    if not count:
        raise BadRequest(f"--data {uri}: {len(data.train)} images are too few; {BATCH} at least")
    found: dict[str, Any] = {}
    for name, changes in (("crop_and_flip", PLAIN), ("modern", {})):
        tick(f"pipeline {name}")
        recipe = MODERN.changed(global_batch=BATCH, image_size=IMAGE_SIZE, **changes)
        measures = {"ours": _ours(data, recipe, count), "timm": _timms(data, uri, recipe, count)}
        rates = in_turns(measures, settings.turns)
        found[name] = {
            "images_per_s": {key: Spread.of(values).to_dict() for key, values in rates.items()},
            "ratio": ratio(rates["ours"], rates["timm"]).to_dict(),
        }
    return {"images": count, "written": "500x375 JPEG files of random shapes", **found}


def _ours(data: Data, recipe: Recipe, count: int) -> Measure:
    from convnext_study.training.data.batches import train_batches

    return lambda: _pull(train_batches(data, recipe, 0, 0), count)


def _timms(data: Data, uri: str, recipe: Recipe, count: int) -> Measure:
    """`timm.data.create_loader` with what its train.py gives it on a CPU."""
    from timm.data import create_dataset, create_loader

    from convnext_study.training.data.posterize import repair_posterize

    root = Path(uri.removeprefix("folder:")).expanduser() / "train"
    dataset = create_dataset("", root=str(root))
    loader = create_loader(
        dataset,
        input_size=(3, IMAGE_SIZE, IMAGE_SIZE),
        batch_size=recipe.global_batch,
        is_training=True,
        use_prefetcher=False,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        color_jitter=recipe.color_jitter or None,
        auto_augment=recipe.rand_augment or None,
        interpolation=recipe.interpolation,
        mean=data.mean,
        std=data.std,
        num_workers=0,
        persistent_workers=False,
    )
    # Without it RandAugment fails under Pillow 13, and there would be nothing to compare.
    for step in dataset.transform.transforms:
        repair_posterize(step)
    return lambda: _pull(loader, count)


def _pull(batches: Any, count: int) -> float:
    """Images a second of the first ``count`` images."""
    began, seen = time.perf_counter(), 0
    for images, _ in batches:
        seen += len(images)
        if seen >= count:
            break
    return seen / (time.perf_counter() - began)


def write_jpegs(root: Path, count: int) -> None:
    """``train/`` and ``val/`` with two classes of photograph-like JPEG files of 500x375."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for part, images in (("train", count), ("val", 2)):
        for number in range(images):
            # Coarse shapes with some grain: about 50 kB a file, half of an ImageNet file.
            coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            pixels = np.asarray(coarse.resize(SIDES, Image.Resampling.BICUBIC), dtype=np.int16)
            grain = draw.normal(0, 8, pixels.shape)
            image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
            folder = root / part / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number:04d}.jpg", quality=85)
