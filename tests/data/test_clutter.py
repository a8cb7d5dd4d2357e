"""The composed data set: parts that share no writer, images that depend on their number alone."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.images import readers_of
from support.runs import make_tiny_run
from support.training import evidence

from convnext_study.data import fingerprint, open_data
from convnext_study.data.dataset import DatasetPair, digest
from convnext_study.data.loader import train_batches, val_batches
from convnext_study.data.sources import clutter
from convnext_study.data.sources.clutter import SCENES, scene
from convnext_study.data.sources.clutter.scene import (
    SCAN,
    SIZE,
    SMALLEST,
    Draws,
    Part,
    Scene,
    read_part,
)
from convnext_study.data.sources.digits import (
    PARTS,
    PHOTOGRAPHS,
    read_photograph,
    read_scans,
    writers,
)
from convnext_study.data.workers import Request
from convnext_study.recipes import MODERN_SMALL
from convnext_study.runs import records
from convnext_study.training.loop import train

STILL = MODERN_SMALL.replace(crop="none")
JPEG_BLOCK = 16  # pixels a side of what is compressed together, colours being at half the size


@pytest.fixture(scope="module")
def data() -> DatasetPair:
    return open_data("clutter")


def images_at(images: Any, indices: list[int]) -> torch.Tensor:
    found: torch.Tensor = images.at(torch.tensor(indices))
    return found


def different(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


# Parts


def test_every_writer_and_every_column_of_texture_is_in_one_part() -> None:
    each = [read_part(name) for name in PARTS]
    in_parts = [writer for part in each for writer in set(part.writers.tolist())]
    assert sorted(in_parts) == list(range(14))
    assert sorted(scan for part in each for scan in part.scans.tolist()) == list(range(1797))
    columns = [
        (photograph, first + column)
        for part in each
        for photograph, first in part.strips
        for column in range(part.texture.shape[-1])
    ]
    assert len(columns) == len(set(columns)) == 2 * 640
    assert all(first % JPEG_BLOCK == 0 for part in each for _, first in part.strips)


def test_a_part_holds_what_its_numbers_say() -> None:
    pixels, labels = read_scans()
    photographs = {name: read_photograph(name) for name in PHOTOGRAPHS}
    for part in map(read_part, PARTS):
        assert (part.labels == labels[part.scans]).all()
        assert (part.writers == writers()[part.scans]).all()
        assert (part.ink == scene.upscale(pixels[part.scans].astype(np.int64))).all()
        for texture, (name, first) in zip(part.texture, part.strips, strict=True):
            width = texture.shape[-1]
            assert (texture == photographs[name][:, :, first : first + width]).all()


def test_no_two_parts_hold_the_same_picture() -> None:
    """The table holds no scan twice that the split would put into two parts."""
    train, tune, test = ({scan.tobytes() for scan in read_part(name).ink} for name in PARTS)
    assert not (train & tune or train & test or tune & test)


def without(name: str) -> Any:
    """`read_part`, with nothing left of what one part is made of."""

    def read(asked: str) -> Part:
        part = read_part(asked)
        if asked != name:
            return part
        return replace(part, ink=0 * part.ink, texture=255 - part.texture)

    return read


def made_of(uri: str) -> dict[str, torch.Tensor]:
    """Some of what is trained on, and all that is evaluated on."""
    clutter._fixed.cache_clear()
    opened = open_data(uri)
    batches = islice(train_batches(opened, STILL, seed=1, epoch=1), 20)
    held: Any = opened.val
    return {"train": torch.cat([batch.images for batch in batches]), "val": held.images}


@pytest.mark.parametrize(
    ("uri", "gone", "changed"),
    [
        ("clutter", "test", {"val"}),
        ("clutter", "tune", set()),
        ("clutter", "train", {"train"}),
        ("clutter:tune", "test", set()),
        ("clutter:tune", "tune", {"val"}),
        ("clutter:tune", "train", {"train"}),
    ],
)
def test_images_are_made_of_their_own_part_alone(
    monkeypatch: pytest.MonkeyPatch, uri: str, gone: str, changed: set[str]
) -> None:
    before = made_of(uri)
    monkeypatch.setattr(clutter, "read_part", without(gone))
    try:
        after = made_of(uri)
    finally:
        clutter._fixed.cache_clear()
    assert {name for name in before if not torch.equal(before[name], after[name])} == changed


def test_images_of_a_writer_are_a_group(data: DatasetPair) -> None:
    part, digits = read_part("test"), open_data("digits").val_groups
    assert data.val_groups is not None and digits is not None
    assert len(data.val_groups) == len(data.val) >= 10_000
    assert torch.equal(data.val_groups, torch.from_numpy(part.writers).repeat(13))
    assert set(digits.tolist()) == set(part.writers.tolist())


# An image is a function of its number


def test_an_image_is_the_same_alone_and_in_any_order(data: DatasetPair) -> None:
    train: Any = data.train
    some = [5, 8949, 77, 400, 6]
    together = images_at(train, some)
    assert len(different(together)) == len(some)
    for place, index in enumerate(some):
        assert torch.equal(images_at(train, [index])[0], together[place])
        image, label = train.pixels(index)
        assert torch.equal(image, together[place])
        assert label == train.labels[index]
    assert torch.equal(images_at(train, some[::-1]), together.flip(0))


def test_training_images_are_new_in_every_epoch_and_seed(data: DatasetPair) -> None:
    train: Any = data.train
    shown = [images_at(train.of_epoch(*one), [3])[0] for one in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len(different(torch.stack(shown))) == 4
    first, second = (next(train_batches(data, STILL, 0, epoch)) for epoch in (0, 1))
    assert not torch.equal(first.images, second.images)
    validated = [next(val_batches(data, STILL, 8)).images for _ in range(2)]
    assert torch.equal(*validated)


@pytest.mark.parametrize("workers", [0, 2])
def test_readers_give_the_same_images(data: DatasetPair, workers: int) -> None:
    """What a recipe with more augmentation starts from, in any number of processes."""
    train: Any = data.train
    indices = tuple(range(0, 8000, 110))
    readers = readers_of(data, STILL, workers, seed=7)
    try:
        read = list(readers.read([Request("train", indices, 4), Request("val", indices)]))
    finally:
        readers.close()
    assert torch.equal(read[0].pixels, images_at(train.of_epoch(7, 4), list(indices)))
    assert read[0].labels == train.labels[list(indices)].tolist()
    assert torch.equal(read[1].pixels, images_at(data.val, list(indices)))


def test_these_are_the_images(data: DatasetPair) -> None:
    """On every machine and with every version: all is done in whole numbers."""
    part = read_part("train")
    # The texture of a photograph is left out: how it is decoded may differ by a level.
    plain = replace(part, texture=np.full_like(part.texture, 90))
    images = np.arange(500)
    some = Scene(4, (SMALLEST, SIZE), 45, (20, 120), (20, 120), (0.5, 1.5))
    pixels = scene.compose(some, plain, images, 1, images)
    assert digest(pixels.astype(np.uint8))[:16] == "20fbe4fbd736f088"


# What an image shows


def test_an_image_shows_its_scan() -> None:
    """As large as the image, upright and alone, it is the scan, four times as large."""
    part = read_part("tune")
    bare = Scene(0, (SIZE, SIZE), 0, (96, 96), (0, 0), (0.0, 0.0))
    images = np.arange(len(part.scans))
    pixels = scene.compose(bare, part, images, 3, images).astype(float)
    ink = np.abs(pixels - pixels[:, :, :1, :1]).mean(1)
    seen = ink.reshape(-1, SCAN, 4, SCAN, 4).mean((2, 4)).reshape(len(images), -1)
    scans = read_scans()[0][part.scans].reshape(len(images), -1)
    alike = [np.corrcoef(one, scan)[0, 1] for one, scan in zip(seen, scans, strict=True)]
    assert min(alike) > 0.9
    assert np.mean(alike) > 0.95


def test_difficulties_are_of_the_same_parts_and_tune_has_other_validation_images() -> None:
    uris = ["", ":tune", ":hard,tune", ":tune,hard", *(f":{name}" for name in SCENES)]
    found = {uri: fingerprint(open_data(f"clutter{uri}")) for uri in uris}
    assert found[":medium"] == found[""] and found[":tune,hard"] == found[":hard,tune"]
    assert found[":tune"]["train"] == found[""]["train"]
    assert found[":tune"]["val"] != found[""]["val"]
    for part in ("train", "val"):
        prints = [found[f":{name}"][part] for name in SCENES]
        assert len({one["content"] for one in prints}) == len(SCENES)
        assert len({one["labels"] for one in prints}) == 1


# Draws


def test_draws_are_even_and_each_images_own() -> None:
    images = np.arange(5000)
    taken = Draws(9, images, 3).integers(-2, 3, 3)
    for draw in taken.T:
        counts = np.unique(draw, return_counts=True)
        assert counts[0].tolist() == [-2, -1, 0, 1, 2]
        assert abs(counts[1] - 1000).max() < 120  # four standard deviations
    between = np.corrcoef(np.concatenate([taken.T, taken.T[:, ::-1]]))
    assert np.abs(between - np.diag(np.diag(between))).max() < 0.06
    assert (Draws(9, images[70:80], 3).integers(-2, 3, 3) == taken[70:80]).all()
    assert (Draws(10, images, 3).integers(-2, 3, 3) != taken).any(1).mean() > 0.9
    draws = Draws(9, images, 3)
    draws.integers(0, 5, 3)
    with pytest.raises(IndexError, match="4 draws per image, but 3 were made"):
        draws.integers(0, 5)


def test_the_test_part_is_looked_at_once_and_its_groups_are_kept(tmp_path: Path) -> None:
    for data, looks in (("clutter:tune", [True, True]), ("clutter", [False, True])):
        run = make_tiny_run(epochs=2, global_batch_size=1024, crop="none")
        result = train(run.model_copy(update={"data": data}), tmp_path / data[-4:])
        lines = records.read(tmp_path / data[-4:]).epochs
        assert [line.value is not None for line in lines] == looks
        samples = evidence(result.metric)
        groups = samples.group_array()
        assert groups is not None
        opened = open_data(data).val_groups
        assert opened is not None
        assert groups.tolist() == opened.tolist()
