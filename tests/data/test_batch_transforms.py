"""Augmentation: every operation of timm's RandAugment runs, with the published distribution."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import picture, readers_of

from convnext_study.data import open_data
from convnext_study.data.dataset import DatasetPair
from convnext_study.data.loader import train_batches
from convnext_study.data.rng import generator
from convnext_study.data.transforms import timm_part
from convnext_study.data.transforms.crops import draw_mirrored, draw_offsets, flip, shift
from convnext_study.data.transforms.image import posterize, repair_posterize, train_transform
from convnext_study.recipes import MODERN, RecipeError

PUBLISHED = "rand-m9-mstd0.5-inc1"
VARIANTS = [
    PUBLISHED,
    "rand-m9-mstd0.5",
    "rand-m9-mstd0.5-mmax40-inc1",
    "rand-m10-mstd101-inc1",
    "rand-m7-n4-p1-tweights-inc1",
    "augmix-m5-w4-d2",
    "original-mstd0.5",
    "v0r-mstd1",
    "3a",
]


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


def test_shift_fills_with_the_edge() -> None:
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


@pytest.mark.parametrize("bits", [-3, 0])
def test_no_bits_leave_black_as_older_pillow_had_it(bits: int) -> None:
    image = picture(0)
    # Pillow 12: mask = ~(2 ** (8 - bits) - 1), and each value is ANDed with it.
    mask = ~(2 ** (8 - bits) - 1)
    expected = np.asarray(image).astype(int) & mask
    assert np.array_equal(np.asarray(posterize(image, bits)), expected)
    assert not expected.any()


@pytest.mark.parametrize("bits", range(1, 10))
def test_other_bits_are_timms(bits: int) -> None:
    from timm.data.auto_augment import posterize as timms

    assert list(posterize(picture(1), bits).tobytes()) == list(timms(picture(1), bits).tobytes())


def test_only_posterize_is_replaced_and_only_in_ours(synthetic: DatasetPair) -> None:
    timms = timm_part("auto_augment")
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


def test_the_published_recipe_runs_in_workers(synthetic: DatasetPair) -> None:
    """2 % of the posterize draws ask for 0 bits; all of these do."""
    recipe = MODERN.replace(
        global_batch_size=26, image_size=32, rand_augment="rand-m10-p1-n8-inc1", random_erasing=0.0
    )
    reading = partial(readers_of, synthetic, recipe, 2)
    batches = list(train_batches(synthetic, recipe, 0, 0, 0, reading))
    assert len(batches) == 5
    assert all(batch.images.float().std() > 10 for batch in batches)


@pytest.mark.parametrize("notation", ["rand-x1", "fancy"])
def test_wrong_notation_is_one_line(synthetic: DatasetPair, notation: str) -> None:
    recipe = MODERN.replace(rand_augment=notation, image_size=32)
    with pytest.raises(RecipeError, match="not timm's notation") as caught:
        train_transform(synthetic, recipe)
    assert "\n" not in str(caught.value)
