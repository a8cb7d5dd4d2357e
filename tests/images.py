"""Folders of small pictures for the tests of data."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 50, height: int = 40) -> Image.Image:
    """Coarse random colours, smooth enough that interpolation means something."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def make_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 4) -> Path:
    """``train`` and ``val`` with ``count`` JPEGs a class, no two alike."""
    seed = 0
    for part in ("train", "val"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                picture(seed).save(root / part / name / f"{index}.jpg")
                seed += 1
    return root
