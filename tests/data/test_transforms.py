"""Transforms are timm's: the same draws, crops and values, and RandAugment as it was published."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import make_folder, picture

from convnext_study.benchmarks.pipeline import measure_pipeline
from convnext_study.data import decode, open_data
from convnext_study.data.dataset import DataError, DatasetPair
from convnext_study.data.decode import decode_image, decode_pixels, to_tensor
from convnext_study.data.device import ToDevice
from convnext_study.data.loader import Batch
from convnext_study.data.rng import generator, seed_everything
from convnext_study.data.transforms import timm_part
from convnext_study.data.transforms.crops import draw_mirrored, draw_offsets, flip, shift
from convnext_study.data.transforms.image import (
    Steps,
    posterize,
    repair_posterize,
    train_transform,
    val_transform,
)
from convnext_study.data.workers import Box, EraseBox
from convnext_study.recipes import CLASSIC, MODERN, Recipe, RecipeError

PUBLISHED = "rand-m9-mstd0.5-inc1"


@pytest.fixture(scope="module")
def synthetic() -> DatasetPair:
    return open_data("synthetic:4,32,130")


def auto_augment(data: DatasetPair, notation: str) -> Any:
    """The auto-augment among our transforms, with its own operations."""
    transform: Any = train_transform(data, MODERN.replace(rand_augment=notation, image_size=32))
    (found,) = (
        step for step in transform.transforms if hasattr(step, "ops") or hasattr(step, "policy")
    )
    return found


def test_shift_moves_whole_images() -> None:
    images = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).view(2, 3, 16, 16)
    offsets = draw_offsets(2, 16, generator(1))
    moved = shift(images, offsets)
    assert moved.shape == images.shape
    for image, result, (down, right) in zip(images, moved, offsets.T.tolist(), strict=True):
        # The centre is never filled, so the offset of at most 2 explains all of it.
        expected = image[:, 2 + down : 10 + down, 2 + right : 10 + right]
        assert torch.equal(result[:, 4:12, 4:12], expected)
    assert draw_offsets(2000, 16, generator(2)).unique().tolist() == [0, 1, 2, 3, 4]

    # What comes in at a side is the edge once more.
    image = torch.arange(16 * 16).view(1, 1, 16, 16).byte()
    corner = shift(image, torch.tensor([[0], [4]]))[0, 0]
    assert corner[:2].eq(corner[2]).all()
    assert corner[:, -2:].eq(corner[:, -3:-2]).all()


def test_flip_mirrors_about_half() -> None:
    mirrored = draw_mirrored(2000, generator(0))
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.04
    images = torch.rand(4, 1, 2, 4)
    result = flip(images, torch.tensor([True, False, True, False]))
    assert torch.equal(result[0], images[0].flip(2))
    assert torch.equal(result[1], images[1])


def test_only_posterize_is_replaced_and_only_in_ours(synthetic: DatasetPair) -> None:
    timms = timm_part("auto_augment")
    for bits in range(1, 10):  # of none, see below
        its = timms.posterize(picture(1), bits).tobytes()
        assert posterize(picture(1), bits).tobytes() == its
    ours = auto_augment(synthetic, PUBLISHED)
    assert [op.name for op in ours.ops] == timms._RAND_INCREASING_TRANSFORMS
    changed = [op.name for op in ours.ops if op.aug_fn is not timms.NAME_TO_OP[op.name]]
    assert changed == ["PosterizeIncreasing"]
    assert timms.NAME_TO_OP["PosterizeIncreasing"] is timms.posterize
    repair_posterize(object())  # what has no operations is left alone


@pytest.mark.parametrize("notation", [PUBLISHED, "rand-m9-mstd0.5", "rand-m9-mmax40-inc1"])
def test_every_operation_at_every_magnitude(synthetic: DatasetPair, notation: str) -> None:
    images = [
        picture(0),
        Image.new("RGB", (32, 32), (255, 0, 7)),
        Image.new("RGB", (1, 1)),
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 31, 3), dtype=np.uint8)),
    ]
    reached = set()
    for op in auto_augment(synthetic, notation).ops:
        op.prob, op.magnitude_std = 1.0, 0
        for magnitude in np.linspace(-1, 41, 85):
            op.magnitude = float(magnitude)
            for image in images:
                result = op(image)
                assert (result.size, result.mode) == (image.size, "RGB")
                if op.name.startswith("Posterize") and not np.asarray(result).any():
                    reached.add(op.name)
    assert len(reached) == 1  # the magnitudes that Pillow 13 refuses were among them


@pytest.mark.parametrize("notation", ["rand-x1", "fancy"])
def test_wrong_notation_is_one_line(synthetic: DatasetPair, notation: str) -> None:
    recipe = MODERN.replace(rand_augment=notation, image_size=32)
    with pytest.raises(RecipeError, match="not in timm's notation") as caught:
        train_transform(synthetic, recipe)
    assert "\n" not in str(caught.value)


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


def test_the_published_evaluation_resizes_to_256(data: DatasetPair) -> None:
    short, crop = val_transform(data, MODERN).transforms
    assert short(torch.zeros(3, 300, 600, dtype=torch.uint8)).shape == (3, 256, 512)
    assert crop(torch.zeros(3, 256, 512)).shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("uri", "says"), [("synthetic", "only be measured on folder"), (None, "too few training")]
)
def test_what_cannot_be_measured(data: DatasetPair, uri: str | None, says: str) -> None:
    with pytest.raises(DataError, match=says):
        measure_pipeline(open_data(uri) if uri else data, MODERN, repeats=1, batch=33, batches=1)
