"""Batches are pure functions of (seed, epoch, position), however the work is split."""

from functools import partial
from pathlib import Path

import pytest
import torch
from support.images import make_folder, readers_of

from convnext_study.data import open_data
from convnext_study.data.dataset import DatasetPair
from convnext_study.data.device import ToDevice
from convnext_study.data.loader import epoch_order, train_batches, val_batches
from convnext_study.data.sharding import BatchSharding, accum_steps
from convnext_study.errors import UserError
from convnext_study.recipes import MODERN, MODERN_SMALL, Recipe

SPLITS = {
    "1x64": [BatchSharding()],
    "4x16": [BatchSharding(micro_batch_size=16)],
    "2 ranks": [BatchSharding(rank, 2) for rank in range(2)],
    "4 ranks, 2 pieces each": [BatchSharding(rank, 4, micro_batch_size=8) for rank in range(4)],
}
FILES = MODERN.replace(global_batch_size=64, image_size=24)


@pytest.fixture(scope="module")
def synthetic() -> DatasetPair:
    return open_data("synthetic:4,16,130")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DatasetPair:
    return open_data(f"folder:{make_folder(tmp_path_factory.mktemp('images'), count=64)}")


Step = tuple[torch.Tensor, torch.Tensor, int]  # normalised images, labels, the optimizer's step


def joined(
    data: DatasetPair, recipe: Recipe, shares: list[BatchSharding], start: int, workers: int
) -> list[Step]:
    """The optimizer's batches put together again from the pieces of all processes."""
    reading = partial(readers_of, data, recipe, workers, seed=3)
    pieces = [list(train_batches(data, recipe, 3, 2, start, reading, one)) for one in shares]
    each = accum_steps(recipe.global_batch_size, shares[0], even=recipe.mixes)
    batches = []
    for step in range(len(pieces[0]) // each):
        mine = [piece for rank in pieces for piece in rank[step * each : (step + 1) * each]]
        assert len({len(piece) for piece in mine}) == 1
        places = torch.cat([piece.positions for piece in mine])
        assert places.sort().values.tolist() == list(range(len(places)))  # each once, and all
        images, labels = map(torch.cat, zip(*map(ToDevice(data), mine), strict=True))
        (number,) = {piece.step for piece in mine}
        batches.append((images[places.argsort()], labels[places.argsort()], number))
    return batches


def whole_steps(data: DatasetPair, recipe: Recipe) -> list[Step]:
    return joined(data, recipe, [BatchSharding()], 0, 0)


def same(left: list[Step], right: list[Step]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) and torch.equal(c, d) and i == j for (a, c, i), (b, d, j) in pairs)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("start", [0, 1])
def test_a_split_in_memory_changes_no_bit(synthetic: DatasetPair, split: str, start: int) -> None:
    whole = whole_steps(synthetic, MODERN_SMALL)
    assert [step for _, _, step in whole] == [4, 5]  # of the third epoch
    assert whole[0][0].shape == (64, 3, 16, 16)
    assert same(whole[start:], joined(synthetic, MODERN_SMALL, SPLITS[split], start, 0))


def test_every_image_of_the_batch_is_drawn_upon(synthetic: DatasetPair) -> None:
    drawn = next(train_batches(synthetic, MODERN_SMALL, 3, 2)).images
    still = MODERN_SMALL.replace(crop="none", flip=False)
    plain = next(train_batches(synthetic, still, 3, 2)).images
    changed = (drawn != plain).flatten(1).any(1)
    # One in 50 draws is neither moved nor mirrored (25 offsets, 2 sides).
    assert changed.sum() >= 55
    other = next(train_batches(synthetic, MODERN_SMALL, 3, 3)).images
    assert not torch.equal(drawn, other)


@pytest.fixture(scope="module")
def undivided(folder: DatasetPair) -> list[Step]:
    return whole_steps(folder, FILES)


@pytest.mark.parametrize(
    ("split", "start", "workers"),
    [
        ("4x16", 0, 0),
        ("2 ranks", 0, 2),
        ("4 ranks, 2 pieces each", 0, 0),
        ("1x64", 1, 2),
        ("4x16", 1, 2),
    ],
)
def test_a_split_from_files_changes_no_bit(
    folder: DatasetPair, undivided: list[Step], split: str, start: int, workers: int
) -> None:
    assert len(undivided) == 2
    assert same(undivided[start:], joined(folder, FILES, SPLITS[split], start, workers))


@pytest.mark.parametrize(
    ("batch", "sharding", "pieces"),
    [
        (64, BatchSharding(), 1),
        (64, BatchSharding(micro_batch_size=64), 1),
        (64, BatchSharding(micro_batch_size=63), 2),
        (64, BatchSharding(0, 2, micro_batch_size=16), 2),
        (4096, BatchSharding(0, 8, micro_batch_size=100), 8),
        (60, BatchSharding(micro_batch_size=25), 3),
        (7, BatchSharding(micro_batch_size=3), 7),
    ],
)
def test_the_fewest_equal_pieces(batch: int, sharding: BatchSharding, pieces: int) -> None:
    assert accum_steps(batch, sharding) == pieces


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (lambda: accum_steps(64, BatchSharding(0, 3, 16)), "64 cannot be divided.*63 and 66"),
        (lambda: accum_steps(2, BatchSharding(0, 4)), "nearest that can: 4"),
        (lambda: BatchSharding(2, 2), "rank 2"),
        (lambda: BatchSharding(micro_batch_size=0), "micro batch 0"),
    ],
)
def test_what_cannot_be_split_is_refused(asked: object, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        asked()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_fewer_images_than_the_batch() -> None:
    data = open_data("synthetic:3,16,9")
    assert [len(batch) for batch in train_batches(data, MODERN_SMALL, 0, 0)] == [9]
    with pytest.raises(UserError, match=r"global_batch_size 64: the data has only 9"):
        next(train_batches(data, MODERN_SMALL, 0, 0, 0, None, BatchSharding(1, 2)))


@pytest.mark.parametrize("recipe", [MODERN_SMALL, FILES], ids=["memory", "transformed"])
@pytest.mark.parametrize("world_size", [1, 3, 40])
def test_validation_images_come_once(
    synthetic: DatasetPair, recipe: Recipe, world_size: int
) -> None:
    whole = list(val_batches(synthetic, recipe, 100))
    parts = [
        batch
        for rank in range(world_size)
        for batch in val_batches(synthetic, recipe, 5, None, BatchSharding(rank, world_size))
    ]
    assert max(map(len, parts)) == (5 if world_size < 40 else 1)
    for field in ("images", "labels", "positions"):
        joint = [torch.cat([getattr(one, field) for one in batches]) for batches in (whole, parts)]
        assert torch.equal(*joint)
    assert torch.cat([batch.labels for batch in parts]).tolist() == [
        synthetic.val.pixels(index)[1] for index in range(len(synthetic.val))
    ]


def test_orders_differ_and_visit_all() -> None:
    orders = [epoch_order(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert all(sorted(order.tolist()) == list(range(100)) for order in orders)


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_does_not_move_the_networks_generator(folder: DatasetPair, workers: int) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    reading = partial(readers_of, folder, FILES, workers)
    next(train_batches(folder, FILES, 0, 0, 0, reading, BatchSharding(micro_batch_size=8)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("crop", ["random_crop", "none"])
def test_small_recipes_on_files_keep_the_whole_image(tmp_path: Path, crop: str) -> None:
    """Files take the same crops as memory: near the whole image, not a random part of it."""
    data = open_data(f"folder:{make_folder(tmp_path)}")
    recipe = MODERN_SMALL.replace(crop=crop, global_batch_size=8, image_size=40, flip=False)
    moved = next(train_batches(data, recipe, 0, 0))
    still = next(train_batches(data, recipe.replace(crop="none"), 0, 0))
    assert torch.equal(moved.labels, still.labels)
    for image, whole in zip(moved.images, still.images, strict=True):
        centre = image[:, 10:30, 10:30]
        fits = [
            torch.equal(centre, whole[:, 10 + dy : 30 + dy, 10 + dx : 30 + dx])
            for dy in range(-5, 6)
            for dx in range(-5, 6)
        ]
        assert sum(fits) == 1
    assert torch.equal(moved.images, still.images) == (crop == "none")
