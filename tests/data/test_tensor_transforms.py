"""Pixels on the fast path are timm's: the same draws, the same crops, the same values."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import make_folder

from convnext_study.benchmarks.pipeline import measure_pipeline
from convnext_study.data import decode, open_data
from convnext_study.data.dataset import DataError, DatasetPair
from convnext_study.data.decode import decode_image, decode_pixels, to_tensor
from convnext_study.data.device import ToDevice
from convnext_study.data.loader import Batch
from convnext_study.data.rng import seed_everything
from convnext_study.data.transforms.image import (
    Steps,
    repair_posterize,
    train_transform,
    val_transform,
)
from convnext_study.data.workers import Box, EraseBox
from convnext_study.recipes import CLASSIC, MODERN, Recipe

LEVEL = 1 / 255 / 0.2255  # one of 256 levels after normalisation with ImageNet's deviations


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetPair:
    return open_data(f"folder:{make_folder(tmp_path_factory.mktemp('images'), count=16)}")


@cache
def china() -> np.ndarray:
    from sklearn.datasets import load_sample_image

    pixels: np.ndarray = load_sample_image("china.jpg")
    return pixels


def photo(seed: int) -> Image.Image:
    """Part of a real photograph, of a size and shape of its own."""
    random = np.random.default_rng(seed)
    top, left = random.integers(0, 150, 2)
    height, width = random.integers(90, 270, 2)
    return Image.fromarray(china()[top : top + height, left : left + width])


def assert_same_but_for_rounding(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """In levels: without bias, few off by one, hardly any by more."""
    pairs = zip(found, expected, strict=True)
    levels = torch.cat([((one - other) / LEVEL).flatten() for one, other in pairs])
    assert levels.mean().abs() < 2e-3
    assert (levels.abs() > 0.1).float().mean() < 0.06
    assert (levels.abs() > 1.5).float().mean() < 5e-4
    assert levels.abs().max() < 12


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality": 30},
        {"progressive": True},
        {"subsampling": 0, "quality": 95},
        {"optimize": True, "restart_marker_rows": 1},
    ],
)
def test_both_decoders_agree_bit_for_bit(options: dict[str, Any]) -> None:
    for seed, mode in enumerate(("RGB", "L", "CMYK")):
        content = jpeg(photo(seed).convert(mode), **options)
        assert torch.equal(decode_pixels(content, ""), to_tensor(decode_image(content, "")))


def test_plain_jpegs_are_not_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(content: bytes, name: str) -> Image.Image:
        raise AssertionError("Pillow was asked")

    content = jpeg(photo(0))
    expected = decode_pixels(content, "")
    with monkeypatch.context() as patch:
        patch.setattr(decode, "decode_image", refuse)
        assert torch.equal(decode_pixels(content, ""), expected)
        with pytest.raises(AssertionError, match="Pillow was asked"):
            decode_pixels(jpeg(photo(0).convert("CMYK")), "")
    monkeypatch.setattr(decode, "_jpeg_decoder", lambda: None)  # a torchvision without it
    assert torch.equal(decode_pixels(content, ""), expected)


def normalised(
    data: DatasetPair, pixels: torch.Tensor, box: Box | None = None, seed: int = 0
) -> torch.Tensor:
    """What a network is given of one image (3, H, W)."""
    erased = (EraseBox(0, *box, seed),) if box else ()
    none = torch.zeros(1, dtype=torch.int64)
    images, _ = ToDevice(data)(Batch(pixels[None], none, none, erased=erased))
    return images[0]


def timms_train(data: DatasetPair, recipe: Recipe) -> Callable[[Image.Image], torch.Tensor]:
    """timm's transform with the published settings, written out once more."""
    from timm.data import create_transform

    transform: Any = create_transform(
        recipe.image_size,
        is_training=True,
        auto_augment=recipe.rand_augment,
        color_jitter=recipe.color_jitter or None,
        interpolation=recipe.interpolation,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        mean=data.mean,
        std=data.std,
    )
    for step in transform.transforms:
        repair_posterize(step)
    return transform  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "recipe",
    [
        CLASSIC.replace(image_size=64),
        MODERN.replace(image_size=64, rand_augment="", color_jitter=0.0, random_erasing=0.0),
    ],
    ids=["classic", "modern without RandAugment"],
)
def test_training_pixels_are_timms_but_for_rounding(data: DatasetPair, recipe: Recipe) -> None:
    ours, theirs = train_transform(data, recipe), timms_train(data, recipe)
    found, expected = [], []
    for seed in range(40):
        seed_everything(seed)
        expected.append(theirs(photo(seed)))
        seed_everything(seed)
        pixels, _, box = ours(to_tensor(photo(seed)), 0)
        found.append(normalised(data, pixels, box))
    assert_same_but_for_rounding(found, expected)


@pytest.mark.parametrize("auto", ["rand-m9-mstd0.5-inc1", ""])
def test_after_the_crop_all_draws_are_timms(data: DatasetPair, auto: str) -> None:
    """RandAugment, colour jitter and erasing amplify a level, so the crop is left as it is."""
    recipe = MODERN.replace(image_size=64, rand_augment=auto)
    ours: Any = train_transform(data, recipe)
    theirs: Any = timms_train(data, recipe)
    erased = 0
    for seed in range(60):
        image: Any = photo(seed).resize((64, 64))
        seed_everything(seed)
        for step in theirs.transforms[1:-1]:
            image = step(image)
        before = image.clone()
        image = theirs.transforms[-1](image)
        seed_everything(seed)
        own = Steps(ours.transforms[1:], ours.erasing)
        pixels, _, box = own(to_tensor(photo(seed).resize((64, 64))), 0)
        assert torch.allclose(normalised(data, pixels), before, atol=1e-5)
        # The same box, filled with noise that is nobody's but the image's.
        changed = (normalised(data, pixels, box, seed) - before).abs() > 1e-5
        assert torch.equal(changed, (image - before).abs() > 1e-5)
        erased += bool(changed.any())
    assert 5 <= erased <= 25  # of 60, a quarter


@pytest.mark.parametrize("recipe", [MODERN, CLASSIC], ids=["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(224, 0.875), (64, 0.875), (32, 1.0), (96, 0.95)])
def test_evaluation_pixels_are_timms_but_for_rounding(
    data: DatasetPair, recipe: Recipe, size: tuple[int, float]
) -> None:
    from timm.data import create_transform

    side, ratio = size
    ours = val_transform(data, recipe.replace(image_size=side, crop_pct=ratio))
    theirs = create_transform(
        side, interpolation=recipe.interpolation, crop_pct=ratio, mean=data.mean, std=data.std
    )
    found = [normalised(data, ours(to_tensor(photo(seed)), 0)[0]) for seed in range(6)]
    assert found[0].shape == (3, side, side)
    assert_same_but_for_rounding(found, [theirs(photo(seed)) for seed in range(6)])


def test_the_published_evaluation_resizes_to_256() -> None:
    data = open_data("synthetic:2,32,8")
    short, crop = val_transform(data, MODERN).transforms
    assert short(torch.zeros(3, 300, 600, dtype=torch.uint8)).shape == (3, 256, 512)
    assert crop(torch.zeros(3, 256, 512)).shape == (3, 224, 224)


def test_the_pipeline_is_measured_beside_timms(data: DatasetPair) -> None:
    before = torch.get_num_threads()
    rates = measure_pipeline(data, MODERN.replace(image_size=32), repeats=3, batch=8, batches=1)
    assert list(rates) == ["ours", "timm"]
    assert all(len(own) == 3 and min(own) > 0 for own in rates.values())
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("uri", "says"), [("synthetic", "only be measured on folder"), (None, "too few training")]
)
def test_what_cannot_be_measured(data: DatasetPair, uri: str | None, says: str) -> None:
    with pytest.raises(DataError, match=says):
        measure_pipeline(open_data(uri) if uri else data, MODERN, repeats=1, batch=33, batches=1)
