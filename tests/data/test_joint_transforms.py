"""Images and label maps are moved together, and batches do not depend on how work is split."""

from functools import partial

import pytest
import torch
from support.dense import dense_readers, make_pairs
from torch import Tensor

from convnext_study.data import open_data
from convnext_study.data.dataset import IGNORE, DatasetPair
from convnext_study.data.device import ToDevice
from convnext_study.data.loader import Batch, train_batches, val_batches
from convnext_study.data.sharding import BatchSharding
from convnext_study.data.transforms.joint import Crop, TrainTransform, WholeImage
from convnext_study.errors import UserError
from convnext_study.recipes import MODERN_SMALL

SCALES = tuple(number / 10 for number in range(5, 22))  # ADP-C's
CROP = Crop(24, 40, SCALES)
RECIPE = MODERN_SMALL.replace(global_batch_size=8)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> DatasetPair:
    return open_data(f"pairs:{make_pairs(tmp_path_factory.mktemp('pairs'), 16)}")


def batches(
    data: DatasetPair, sharding: BatchSharding, *, start: int = 0, workers: int = 0, epoch: int = 1
) -> list[Batch]:
    reading = partial(dense_readers, data, CROP, workers)
    return list(train_batches(data, RECIPE, 3, epoch, start, reading, sharding))


def whole(parts: list[Batch]) -> tuple[Tensor, Tensor]:
    order = torch.cat([part.positions for part in parts]).argsort()
    return tuple(  # type: ignore[return-value]
        torch.cat([getattr(part, name) for part in parts])[order] for name in ("images", "labels")
    )


@pytest.mark.parametrize(
    ("shares", "workers"),
    [
        ([BatchSharding(rank, 2, 2) for rank in range(2)], 0),
        ([BatchSharding(micro_batch_size=4)], 2),
    ],
    ids=["processes", "workers"],
)
def test_the_split_changes_no_bit(
    pairs: DatasetPair, shares: list[BatchSharding], workers: int
) -> None:
    undivided = batches(pairs, BatchSharding())
    assert [one.step for one in undivided] == [2, 3]
    assert undivided[0].images.shape == (8, 3, 24, 40)
    assert undivided[0].labels.shape == (8, 24, 40) and undivided[0].labels.dtype == torch.uint8
    resumed = [one for share in shares for one in batches(pairs, share, start=1, workers=workers)]
    for mine, theirs in zip(whole(resumed), whole(undivided[1:]), strict=True):
        assert torch.equal(mine, theirs)


def test_draws_differ_between_epochs_and_images(pairs: DatasetPair) -> None:
    readers = dense_readers(pairs, CROP, 0)
    once = readers._parts["train"]
    first, again, later = (once.read((5, 5), epoch) for epoch in (0, 0, 1))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, later.pixels)


def coded() -> tuple[Tensor, Tensor]:
    """An image whose colours tell its labels, in blocks of 8 pixels, with noise in another one."""
    labels = torch.arange(30).view(5, 6).repeat_interleave(8, 0).repeat_interleave(8, 1)
    labels = labels.to(torch.uint8)
    noise = torch.randint(0, 256, labels.shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([labels * 8, 255 - labels * 8, noise.to(torch.uint8)]), labels


@pytest.mark.parametrize("seed", range(4))
def test_image_and_labels_stay_together(pairs: DatasetPair, seed: int) -> None:
    torch.manual_seed(seed)
    image, labels, _ = TrainTransform(pairs, CROP)(*coded())
    assert isinstance(labels, Tensor) and type(image) is type(labels) is Tensor
    assert image.shape == (3, 24, 40) and labels.shape == (24, 40)
    known = labels != IGNORE
    error = (image[0].float() - 8.0 * labels)[known].abs()
    assert error.median() <= 1  # between blocks, colours are mixed and labels are not
    assert set(labels[known].unique().tolist()) <= set(range(30))


def test_every_scale_every_place_and_both_sides_are_drawn(pairs: DatasetPair) -> None:
    image, labels = coded()
    seen = set()
    mirrored = 0
    for seed in range(200):
        torch.manual_seed(seed)
        _, cut, _ = TrainTransform(pairs, CROP)(image, labels)
        assert isinstance(cut, Tensor)
        row = cut[0][cut[0] != IGNORE].long()
        mirrored += bool((row.diff() < 0).any())
        seen |= set(cut.unique().tolist())
    assert 60 < mirrored < 140
    assert seen == {*range(30), IGNORE}


def test_what_lies_beyond_the_image_is_mean_and_ignored(pairs: DatasetPair) -> None:
    image, labels = coded()
    half = TrainTransform(pairs, Crop(64, 64, (0.5,), flip=False))
    cut, map_, _ = half(image, labels)
    assert isinstance(map_, Tensor)
    assert (map_ == IGNORE).sum() == 64 * 64 - 20 * 24
    assert (map_[:20, :24] != IGNORE).all()
    normalised, _ = ToDevice(pairs)(Batch(cut[None], map_[None], torch.tensor([0])))
    assert normalised[0, :, 20:].abs().max() < 0.02  # half a level of 255


def test_a_digit_is_never_mirrored() -> None:
    data = open_data("digit-canvas:32,4,4")
    plain, _ = data.train.pixels(0)
    for seed in range(8):
        torch.manual_seed(seed)
        image, _, _ = TrainTransform(data, Crop(32, 32))(*data.train.pixels(0))
        assert torch.equal(image, plain)


def test_validation_is_whole_in_order_and_once(pairs: DatasetPair) -> None:
    reading = partial(dense_readers, pairs, CROP)
    parts = [
        one
        for rank in range(3)
        for one in val_batches(pairs, RECIPE, 1, reading, BatchSharding(rank, 3))
    ]
    assert len(parts) == 16
    for index, part in enumerate(parts):
        image, labels = pairs.val.pixels(index)
        assert isinstance(labels, Tensor)
        assert torch.equal(part.images[0, :, :40, :50], image)
        assert torch.equal(part.labels[0, :40, :50], labels)
        assert part.labels[0, 40:].unique().tolist() == [IGNORE]


def test_images_of_one_size_are_had_many_at_a_time() -> None:
    data = open_data("digit-canvas:32,4,10")
    reading = partial(dense_readers, data, Crop(32, 32))
    assert [len(one) for one in val_batches(data, RECIPE, 4, reading)] == [4, 4, 2]


def test_sides_that_divide_are_left_alone(pairs: DatasetPair) -> None:
    image, labels = coded()[0][:, :32, :32], coded()[1][:32, :32]
    same = WholeImage(pairs)(image, labels)
    assert torch.equal(same[0], image) and torch.equal(same[1], labels)


def test_a_crop_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="crop 0x8"):
        Crop(0, 8)
