"""Packed data: the same images in the same order, whole or not at all, and checked."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import make_folder, picture, refused
from support.runs import make_tiny_run
from support.training import assert_same

from convnext_study.data import fingerprint, open_data, packing
from convnext_study.data.dataset import CorruptImage, DataError, DatasetPair, digest
from convnext_study.data.encoded import EncodedImages
from convnext_study.data.packing import Packing, pack
from convnext_study.data.sources.packed import PACK, IndexEntry, _check
from convnext_study.errors import Busy, RunFailed
from convnext_study.recipes import CLASSIC
from convnext_study.runs import locks
from convnext_study.training.loop import train

WHOLE = Packing()
RECIPE = CLASSIC.replace(global_batch_size=4, image_size=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_folder(tmp_path_factory.mktemp("images"), count=5)
    picture(99, 30, 80).save(root / "train" / "cat" / "0.png")
    return root


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD", 3)


def packed(folder: Path, out: Path, how: Packing = WHOLE, jobs: int = 1) -> DatasetPair:
    pack(f"folder:{folder}", out, how, jobs)
    return open_data(f"packed:{out}")


@pytest.mark.parametrize("raw", [False, True])
def test_small_images_are_kept(folder: Path, tmp_path: Path, raw: bool, small_shards: None) -> None:
    """JPEG files are kept as they are, others are only so as raw pixels."""
    source = open_data(f"folder:{folder}")
    found = packed(folder, tmp_path / "out", Packing(raw=raw))
    assert found.classes == source.classes
    assert len(found.train) == len(source.train) == 11
    for index in range(11):
        (pixels, label), (mine, own) = source.train.pixels(index), found.train.pixels(index)
        assert own == label and mine.shape == pixels.shape
        if raw or index != 1:  # the PNG file
            assert torch.equal(mine, pixels)
        else:
            assert (mine.int() - pixels.int()).abs().float().mean() < 6


def test_large_images_get_the_short_side(folder: Path, tmp_path: Path, small_shards: None) -> None:
    found = packed(folder, tmp_path / "out", Packing(side=20, raw=True))
    sizes = {tuple(found.train.pixels(index)[0].shape[1:]) for index in range(11)}
    assert sizes == {(20, 25), (53, 20)}
    assert found.size == 32


def test_a_training_has_the_folders_order(folder: Path, tmp_path: Path, small_shards: None) -> None:
    packed(folder, tmp_path / "out", Packing(raw=True))
    run = make_tiny_run(epochs=1, global_batch_size=4, image_size=32, crop="random_resized")
    results = [
        train(run.model_copy(update={"data": uri}), tmp_path / str(place))
        for place, uri in enumerate((f"folder:{folder}", f"packed:{tmp_path / 'out'}"))
    ]
    assert results[0].metrics == results[1].metrics
    assert_same(tmp_path / "0", tmp_path / "1")


def test_what_was_stopped_goes_on_and_ends_equal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_shards: None
) -> None:
    out, how = tmp_path / "out", Packing(side=20)
    whole = packed(folder, tmp_path / "whole", how)
    honest = packing._Packer.make
    made: list[tuple[str, int]] = []

    def stop_at_third(self: Any, which: tuple[str, int]) -> int:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(which)
        return honest(self, which)

    monkeypatch.setattr(packing._Packer, "make", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        packed(folder, out, how)
    refused(f"packed:{out}", "no such file; run convnext-study pack")
    with pytest.raises(DataError, match="another side"):
        packed(folder, out, Packing(side=21))
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(packing._Packer, "make", honest)
    pack(f"folder:{folder}", out, how, 1, lambda *done: seen.append(done))
    assert seen[0] == (6, 21) and seen[-1] == (21, 21)
    assert fingerprint(open_data(f"packed:{out}")) == fingerprint(whole)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}


def test_in_processes_that_are_killed(folder: Path, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "many", count=600)
    command = [sys.executable, "-m", "convnext_study", "pack", f"folder:{root}"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "out"), "--side", "20", "--jobs", "2"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not list(tmp_path.glob("out/*.places")) and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = packed(root, tmp_path / "out", Packing(side=20))
    assert fingerprint(found) == fingerprint(packed(root, tmp_path / "alone", Packing(side=20)))
    assert {one.name for one in (tmp_path / "out").iterdir()} == {
        one.name for one in (tmp_path / "alone").iterdir()
    }


def test_damage_is_noticed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = packed(folder, out)
    assert pickle.loads(pickle.dumps(data.train)).labels.tolist() == data.train.labels.tolist()  # type: ignore[attr-defined]
    shard, index = out / "train-00000.bin", out / "train.index"
    changed = bytearray(shard.read_bytes())
    changed[len(changed) // 2] ^= 1
    shard.write_bytes(changed)
    bad, broken = open_data(f"packed:{out}"), []
    for place in range(len(bad.train)):
        try:
            bad.train.pixels(place)
        except CorruptImage as error:
            broken.append(error.name)
    assert len(broken) == 1 and "train-00000.bin:" in broken[0]
    shard.write_bytes(changed[:-1])
    refused(f"packed:{out}", r"train-00000\.bin: has .* of .* bytes")
    index.write_bytes(index.read_bytes()[:-1] + b"x")
    refused(f"packed:{out}", "was changed after packing")
    known = json.loads((out / PACK).read_text())
    known["parts"]["../elsewhere"] = known["parts"]["val"]
    for content in (json.dumps(known), "{}"):
        (out / PACK).write_text(content)
        refused(f"packed:{out}", r"pack\.json: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [("shard", 7), ("shard", -1), ("offset", -8), ("size", 1 << 40), ("label", 9), ("height", 5)],
)
def test_an_index_to_elsewhere(folder: Path, tmp_path: Path, field: str, value: int) -> None:
    """A digest only says that the index is the one of ``pack.json``."""
    out = tmp_path / "out"
    packed(folder, out)
    numbers = np.frombuffer((out / "val.index").read_bytes(), dtype="<i8", count=7).copy()
    numbers[IndexEntry._fields.index(field)] = value
    content = numbers.tobytes() + (out / "val.index").read_bytes()[56:]
    (out / "val.index").write_bytes(content)
    known = json.loads((out / PACK).read_text())
    known["parts"]["val"]["digest"] = digest(content)
    (out / PACK).write_text(json.dumps(known))
    refused(f"packed:{out}", "image 0 is in no shard")


def test_raw_pixels_that_are_too_long() -> None:
    columns: Any = np.array([[0], [0], [3 * 501], [0], [0], [1], [501]])
    with pytest.raises(DataError, match="image 0"):
        _check(Path("val.index"), IndexEntry(*columns), np.array([3 * 501]), 1)


def test_val_alone_is_no_training_data(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    packed(folder, out)
    with pytest.raises(DataError, match="is already packed"):
        pack(f"packed:{out}", tmp_path / "again", Packing(raw=True), 1)
    known = json.loads((out / PACK).read_text())
    del known["parts"]["train"]
    (out / PACK).write_text(json.dumps(known))
    refused(f"packed:{out}", "has no training part")
    assert len(open_data(f"packed:{out}", val_alone=True).val) == 10


class _Deadly(EncodedImages):
    """Images whose reader is killed, as where memory is short."""

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def digests(self) -> dict[str, str]:
        return {}


def test_a_killed_process_ends_it(tmp_path: Path, small_shards: None) -> None:
    packer = packing._Packer({"train": _Deadly(np.zeros(6, "<i8"))}, tmp_path, WHOLE)
    with pytest.raises(RunFailed, match="rerun the same command"):
        packer.run(2, lambda done, images: None)


def test_one_at_a_time_packs_into_a_folder(folder: Path, tmp_path: Path) -> None:
    with locks.take(tmp_path / packing.LOCK), pytest.raises(Busy):
        packed(folder, tmp_path)
    (tmp_path / packing.SETTINGS).write_text("{}")
    with pytest.raises(DataError, match=r"packing\.json: "):
        packed(folder, tmp_path)


def test_a_bad_image_stops_it_or_keeps_its_place(folder: Path, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "bad")
    (root / "train" / "dog" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(CorruptImage, match=r"1\.jpg"):
        packed(root, tmp_path / "out")
    data = packed(root, tmp_path / "out", Packing(on_corrupt="skip"))
    assert len(data.train) == 8
    again = pack(f"folder:{root}", tmp_path / "out", WHOLE, 1)
    assert {name: part.empty for name, part in again.parts.items()} == {"train": 1, "val": 0}
    with pytest.raises(CorruptImage, match="the file is empty"):
        data.train.pixels(5)
    with pytest.raises(DataError, match="only those can be packed"):
        pack("digits", tmp_path / "digits", Packing(), 1)
    Image.new("RGB", (4, 4)).save(root / "train" / "dog" / "new.jpg")
    with pytest.raises(DataError, match="made with other data"):
        packed(root, tmp_path / "out")
