"""Data: what is opened, what is refused and how, and batches that are pure functions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convnext_study.training.data import DataError, open_data
from convnext_study.training.data.augment import flip, shift
from convnext_study.training.data.batches import epoch_order, train_batches, val_batches
from convnext_study.training.data.images import Data
from convnext_study.training.recipe import MODERN, MODERN_SMALL
from convnext_study.training.seeds import generator


@pytest.fixture(scope="session")
def digits() -> Data:
    return open_data("digits")


def make_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 4) -> Path:
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.jpg")
    return root


def test_digits_are_real_and_split_for_good(digits: Data) -> None:
    assert (len(digits.train), len(digits.val)) == (1195, 602)
    assert digits.num_classes == 10
    counts = torch.tensor([digits.val[index][1] for index in range(len(digits.val))]).bincount()
    assert counts.tolist() == [60, 61, 59, 61, 61, 61, 61, 60, 58, 60]
    image, _ = digits.train[0]
    assert image.size == (32, 32)
    assert image.mode == "RGB"


def test_batches_are_normalised(digits: Data) -> None:
    recipe = MODERN_SMALL.changed(crop="none", global_batch=1195)
    ((images, labels),) = train_batches(digits, recipe, seed=0, epoch=0)
    assert images.shape == (1195, 3, 32, 32)
    assert labels.dtype == torch.int64
    assert images.mean().abs() < 1e-4
    assert abs(images.std() - 1) < 1e-4


def test_an_epoch_can_be_joined_anywhere(digits: Data) -> None:
    whole = list(train_batches(digits, MODERN_SMALL, seed=3, epoch=2))
    rest = list(train_batches(digits, MODERN_SMALL, seed=3, epoch=2, start=7))
    assert len(whole) == 1195 // 64
    for (a, b), (c, d) in zip(whole[7:], rest, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_orders_differ_and_visit_all() -> None:
    orders = [epoch_order(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert all(sorted(order.tolist()) == list(range(100)) for order in orders)


def test_every_validation_image_once(digits: Data) -> None:
    labels = torch.cat([labels for _, labels in val_batches(digits, MODERN_SMALL, 100)])
    assert labels.tolist() == [digits.val[index][1] for index in range(len(digits.val))]


def test_shift_moves_whole_images() -> None:
    images = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).view(2, 3, 16, 16)
    moved = shift(images, generator(1))
    assert moved.shape == images.shape
    # The centre is never filled, so some offset of at most 2 must explain all of it.
    for image, result in zip(images, moved, strict=True):
        fits = [
            torch.equal(result[:, 4:12, 4:12], image[:, 4 + dy : 12 + dy, 4 + dx : 12 + dx])
            for dy in range(-2, 3)
            for dx in range(-2, 3)
        ]
        assert sum(fits) == 1


def test_flip_mirrors_about_half() -> None:
    images = torch.rand(200, 1, 2, 4)
    result = flip(images, generator(0))
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(result, images, strict=True)]
    assert 70 < sum(mirrored) < 130


def test_folder_trains_with_the_published_recipe(tmp_path: Path) -> None:
    data = open_data(f"folder:{make_folder(tmp_path)}")
    assert data.classes == ("cat", "dog")
    # RandAugment is left to its own test: with some versions of Pillow timm's crashes.
    recipe = MODERN.changed(global_batch=4, image_size=32, rand_augment="")
    whole = list(train_batches(data, recipe, seed=0, epoch=0))
    again = list(train_batches(data, recipe, seed=0, epoch=0, start=1))
    workers = list(train_batches(data, recipe, seed=0, epoch=0, workers=2))
    assert len(whole) == 2
    assert whole[0][0].shape == (4, 3, 32, 32)
    assert torch.equal(whole[1][0], again[0][0])
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole, workers, strict=True))


def test_reading_does_not_move_the_networks_generator(tmp_path: Path) -> None:
    data = open_data(f"folder:{make_folder(tmp_path)}")
    recipe = MODERN.changed(global_batch=4, image_size=32, rand_augment="")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(train_batches(data, recipe, seed=0, epoch=0))
    assert torch.equal(before, torch.get_rng_state())


def _break_image(root: Path) -> None:
    (root / "train" / "cat" / "0.jpg").write_bytes(b"not an image")


def _drop_class(root: Path) -> None:
    (root / "val" / "dog").rename(root / "val" / "wolf")


def _empty_class(root: Path) -> None:
    for file in (root / "train" / "dog").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [(_drop_class, "different classes.*dog, wolf"), (_empty_class, "dog: holds no images")],
)
def test_bad_folders_are_named(tmp_path: Path, damage: object, says: str) -> None:
    root = make_folder(tmp_path)
    damage(root)  # type: ignore[operator]
    with pytest.raises(DataError, match=says) as caught:
        open_data(f"folder:{root}")
    assert "\n" not in str(caught.value)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    _break_image(root)
    data = open_data(f"folder:{root}")
    with pytest.raises(DataError, match=r"train/cat/0\.jpg: not a readable image") as caught:
        list(train_batches(data, MODERN.changed(global_batch=8, image_size=32), 0, 0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("folder:/nowhere/at/all", "no such folder"),
        ("folder:", "needs a path"),
        ("digit", "did you mean digits"),
        ("cifar10:/nowhere/at/all", "--download"),
    ],
)
def test_bad_uris(uri: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_data(uri)


def test_a_folder_without_classes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    with pytest.raises(DataError, match="train: holds no class folders"):
        open_data(f"folder:{tmp_path}")
