"""Reading and augmenting JPEG files, ours beside timm's default loader, on one core."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnext_study.benchmarks.networks import Settings
from convnext_study.benchmarks.timing import Spread, ratio
from convnext_study.errors import UserError

BATCH = 16
IMAGE_SIZE = 224
SIDES = (500, 375)  # the commonest size in ImageNet
MADE_UP = "made-up 500x375 JPEG files"
PLAIN: dict[str, Any] = {"rand_augment": None, "color_jitter": 0.0, "random_erasing": 0.0}


def pipeline(
    data: str | None, images: int, settings: Settings, report: Callable[[str], None]
) -> dict[str, Any]:
    """Images/s of each loader and their ratio, with crop and flip alone and with all of `modern`.

    Both work in this process, with one thread: that is a core's worth, and workers multiply it.

    Args:
        data: ``folder:PATH``; JPEG files of random shapes are written where it is None.
        images: how many files to write, and at most to read each time.
        settings: repeats.
        report: called with what is measured.
    """
    if data is not None and not data.startswith("folder:"):
        raise UserError(f"--data {data}: the pipeline reads files; use folder:PATH, or none")
    if data is not None:
        return _both(data, images, settings, report)
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder), images)
        return {**_both(f"folder:{folder}", images, settings, report), "data": MADE_UP}


def _both(
    uri: str, images: int, settings: Settings, report: Callable[[str], None]
) -> dict[str, Any]:
    from convnext_study.benchmarks.data_loading import measure_pipeline
    from convnext_study.data import open_data
    from convnext_study.recipes import MODERN

    data = open_data(uri)
    batches = min(images, len(data.train)) // BATCH
    if not batches:
        raise UserError(f"--data {uri}: {len(data.train)} images are too few; {BATCH} at least")
    found: dict[str, Any] = {"data": uri, "images": batches * BATCH}
    for name, changes in (("crop_and_flip", PLAIN), ("modern", {})):
        report(f"pipeline {name}")
        recipe = MODERN.model_copy(update={"image_size": IMAGE_SIZE, **changes})
        rates = measure_pipeline(data, recipe, settings.repeats, BATCH, batches)
        found[name] = {
            "images_per_s": {loader: Spread.of(own).to_dict() for loader, own in rates.items()},
            "ratio": ratio(rates["ours"], rates["timm"]).to_dict(),
        }
    return found


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
