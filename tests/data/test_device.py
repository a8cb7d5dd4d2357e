"""From pixels to what a network is given: normalised and erased on its device, copied ahead."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.images import make_folder
from support.runs import make_tiny_run
from support.training import assert_resumes

from convnext_study.data import open_data
from convnext_study.data.dataset import DatasetPair
from convnext_study.data.device import Prefetcher, ToDevice, erase, prefetcher
from convnext_study.data.loader import Batch, train_batches
from convnext_study.data.workers import EraseBox
from convnext_study.recipes import MODERN
from convnext_study.runs import records
from convnext_study.training.loop import train
from convnext_study.training.tasks import base


@pytest.fixture(scope="module")
def data() -> DatasetPair:
    return open_data("synthetic:4,16,64")


def batch_of(count: int = 6, number: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=draw)
    return Batch(images, torch.arange(count), torch.arange(count), number)


class FakeStreams:
    """Writes down what is asked of a device."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @contextmanager
    def parallel(self) -> Iterator[None]:
        self.log.append("{")
        yield
        self.log.append("}")

    def wait(self) -> None:
        self.log.append("wait")

    def keep(self, tensor: torch.Tensor) -> None:
        self.log.append("keep images" if tensor.ndim == 4 else "keep labels")


def copying(streams: FakeStreams) -> Prefetcher:
    """A copy to a device that is none."""

    def copy(batch: Batch) -> Batch:
        streams.log.append(f"copy {batch.step}")
        return replace(batch, images=batch.images.clone(), labels=batch.labels.clone())

    return Prefetcher(copy, streams)


def test_a_batch_is_copied_while_the_one_before_is_worked_on() -> None:
    streams = FakeStreams()
    given = [batch_of(number=number) for number in range(3)]
    for found, expected in zip(copying(streams)(given), given, strict=True):
        assert torch.equal(found.images, expected.images)
        streams.log.append(f"use {found.step}")
    ready = ["wait", "keep images", "keep labels"]
    assert streams.log == [
        *("{", "copy 0", "}", *ready),
        # The work on a batch waits for its own copy, and not for the next one's.
        *("{", "copy 1", "}", "use 0", *ready),
        *("{", "copy 2", "}", "use 1", *ready),
        "use 2",
    ]
    assert list(copying(streams)([])) == []


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_without_such_streams_nothing_is_taken_ahead(device: str) -> None:
    batches = [batch_of()]
    assert next(prefetcher(device)(batches)) is batches[0]


def test_bad_images_count_when_they_are_used(tmp_path: Path) -> None:
    """A batch that was only copied ahead comes again after a stop, and would count twice."""
    root = make_folder(tmp_path, count=8)
    for part in ("cat", "dog"):
        for index in range(0, 8, 2):
            (root / "train" / part / f"{index}.jpg").write_bytes(b"")
    data = open_data(f"folder:{root}", corrupt_images="skip")
    recipe = MODERN.replace(global_batch_size=4, image_size=24)
    own, counted = [], []
    for batch in train_batches(data, recipe, 0, 0, ahead=copying(FakeStreams())):
        own.append(len(batch.bad))
        counted.append(data.corrupt.replaced)
    assert counted == [sum(own[: place + 1]) for place in range(4)]
    assert counted[-1] == 8


def test_copies_ahead_change_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_tiny_run(mixup=0.8, cutmix=1.0, drop_path=0.2)
    train(run, tmp_path / "plain")
    streams = FakeStreams()
    monkeypatch.setattr(base, "prefetcher", lambda _: copying(streams))
    assert_resumes(tmp_path / "plain", run, tmp_path / "ahead", 4)
    # Both epochs' nine steps, one that was stopped after the fourth, three times evaluation.
    assert streams.log.count("wait") > 18
    done, again = (records.read(tmp_path / name).result for name in ("plain", "ahead"))
    assert done is not None and again is not None
    assert done.metrics == again.metrics


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_layouts_have_the_same_bits(data: DatasetPair, layout: torch.memory_format) -> None:
    batch = batch_of()
    kept = batch.images.clone()
    images, labels = ToDevice(data, "cpu", layout)(batch)
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    expected = (kept.float() - (mean * 255).view(-1, 1, 1)) / (std * 255).view(-1, 1, 1)
    assert torch.equal(images, expected)
    assert images.is_contiguous(memory_format=layout)
    assert torch.equal(labels, batch.labels)
    images.zero_()  # is nobody else's: a batch may be used twice
    assert torch.equal(batch.images, kept)


def boxes() -> Iterable[EraseBox]:
    return (EraseBox(1, 2, 3, 8, 9, seed=5), EraseBox(4, 0, 0, 15, 15, seed=6))


def test_boxes_are_filled_with_normal_noise_of_their_own() -> None:
    images = torch.full((6, 3, 16, 16), 7.0)
    erase(images, boxes())
    erased = images != 7
    assert erased.flatten(1).any(1).tolist() == [False, True, False, False, True, False]
    assert erased[1].nonzero().amin(0).tolist() == [0, 2, 3]
    assert erased[1].nonzero().amax(0).tolist() == [2, 9, 11]
    noise = images[4][:, :15, :15]
    assert abs(float(noise.mean())) < 0.15
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    # Whatever the layout and whoever the neighbours are.
    other = torch.full((2, 3, 16, 16), 7.0).contiguous(memory_format=torch.channels_last)
    state = torch.get_rng_state()
    erase(other, [box._replace(image=place) for place, box in enumerate(boxes())])
    assert torch.equal(other, images[[1, 4]])
    assert torch.equal(torch.get_rng_state(), state)
