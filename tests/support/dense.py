"""Small folders of images with masks, as users and Cityscapes have them."""

from pathlib import Path

import numpy as np
from PIL import Image

from convnext_study.data.dataset import DatasetPair
from convnext_study.data.loader import make_readers
from convnext_study.data.pool import Readers
from convnext_study.data.transforms.joint import Crop, TrainTransform, WholeImage
from support.images import picture

CITY = "aachen"


def mask(seed: int, classes: int = 3, width: int = 50, height: int = 40) -> Image.Image:
    """Stripes and blocks of classes, some of it ignored."""
    coarse = np.random.default_rng(seed).integers(0, classes, (5, 6), dtype=np.uint8)
    coarse[0, 0], coarse[0, 1] = classes - 1, 255
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def make_pairs(
    root: Path, count: int = 6, *, kind_first: bool = False, size: tuple[int, int] = (50, 40)
) -> Path:
    """``train`` and ``val`` with ``count`` pairs each, no two alike, of 3 classes."""
    for place, part in enumerate(("train", "val")):
        folders = [
            root / kind / part if kind_first else root / part / kind for kind in ("images", "masks")
        ]
        for folder in folders:
            folder.mkdir(parents=True)
        for index in range(count):
            seed = place * count + index
            picture(seed, *size).save(folders[0] / f"{index}.jpg")
            mask(seed, 3, *size).save(folders[1] / f"{index}.png")
    return root


def make_cityscapes(root: Path, count: int = 2) -> Path:
    """The standard folders of Cityscapes, small, with label ids 0 to 33 in the masks."""
    for part in ("train", "val"):
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / part / CITY).mkdir(parents=True)
        for index in range(count):
            name = f"{CITY}_{index:06}_000019"
            picture(index, 64, 32).save(
                root / "leftImg8bit" / part / CITY / f"{name}_leftImg8bit.png"
            )
            ids = np.arange(64, dtype=np.uint8)[None].repeat(32, 0) % 34
            fine = root / "gtFine" / part / CITY
            Image.fromarray(ids).save(fine / f"{name}_gtFine_labelIds.png")
            Image.fromarray(ids).save(fine / f"{name}_gtFine_instanceIds.png")
    return root


def dense_readers(data: DatasetPair, crop: Crop, workers: int = 0) -> Readers:
    """Readers under seed 3 that cut such crops, and pad whole images."""
    train, val = TrainTransform(data, crop), WholeImage(data)
    return make_readers(data, train, val, 3, workers)
