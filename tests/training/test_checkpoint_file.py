"""Checkpoints: exact, checked, and never a way to run code."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext_study.runs.files import CHECKPOINT
from convnext_study.training import checkpoint_file


def make_state(step: int = 1) -> dict[str, Any]:
    return {"model": {"w": torch.arange(6.0)}, "state": {"step": step, "history": [{"a": 1.5}]}}


def test_round_trip(tmp_path: Path) -> None:
    assert checkpoint_file.load(tmp_path, pytest.fail) is None
    checkpoint_file.save(tmp_path, make_state())
    # The checksum is a zip comment, so plain torch.load reads the file as it is.
    plain = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    for loaded in (checkpoint_file.load(tmp_path, pytest.fail), plain):
        assert loaded is not None
        assert torch.equal(loaded["model"]["w"], torch.arange(6.0))
        assert loaded["state"] == make_state()["state"]


def packed(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    checkpoint_file.write(state, file)
    return file.getvalue()


def test_a_flipped_byte_and_a_cut_are_noticed(tmp_path: Path) -> None:
    data, path = packed(make_state()), tmp_path / "x.ckpt"
    damaged = [data[:keep] for keep in (0, 1, 40, 500)]
    for place in {*range(0, len(data), 11), *range(len(data) - 60, len(data))}:
        damaged.append(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(checkpoint_file.DamagedError, match=r"x\.ckpt: damaged"):
            checkpoint_file.read(path)


@pytest.mark.parametrize("how", ["damaged", "killed between the renames"])
def test_the_one_before_takes_its_place(tmp_path: Path, how: str) -> None:
    for step in (1, 2):
        checkpoint_file.save(tmp_path, make_state(step))
    if how == "damaged":
        (tmp_path / CHECKPOINT).write_bytes(b"rubbish")
    else:
        (tmp_path / CHECKPOINT).unlink()
    warned: list[str] = []
    loaded = checkpoint_file.load(tmp_path, warned.append)
    assert loaded is not None
    assert loaded["state"]["step"] == 1
    assert len(warned) == (how == "damaged")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("evil-was-here",))


def test_pickled_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.ckpt").write_bytes(packed({"model": _Evil()}))
    with pytest.raises(checkpoint_file.CheckpointError, match="more than tensors"):
        checkpoint_file.read(tmp_path / "x.ckpt")
    (tmp_path / CHECKPOINT).write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(checkpoint_file.CheckpointError):
        checkpoint_file.load(tmp_path, lambda text: None)
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("version 99 is not supported"), "intact, but torch .*version 99"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_an_intact_one_that_cannot_be_read_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception, words: str
) -> None:
    for step in (1, 2):
        checkpoint_file.save(tmp_path, make_state(step))

    def refuse(*_: Any, **__: Any) -> None:
        raise trouble

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(checkpoint_file.CheckpointError, match=words) as caught:
        checkpoint_file.load(tmp_path, pytest.fail)
    assert str(tmp_path / CHECKPOINT) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_renames_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    honest = os.fsync

    def fsync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        honest(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoint_file.save(tmp_path, {"model": {}})
    assert synced[-1] == str(tmp_path)  # the folder, after the file in it


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    checkpoint_file.save(tmp_path, make_state(1))
    with pytest.raises(AttributeError):
        checkpoint_file.save(tmp_path, {"model": lambda: None})  # cannot be pickled
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_large_state_is_never_held_as_a_file(tmp_path: Path) -> None:
    class Counting(io.FileIO):
        largest = 0

        def write(self, data: Any) -> int:
            Counting.largest = max(Counting.largest, memoryview(data).nbytes)
            return super().write(data)

    one = torch.zeros(250_000)
    with Counting(tmp_path / "x.ckpt", "w+") as file:
        checkpoint_file.write({"model": {str(i): one + i for i in range(8)}}, file)
    assert Counting.largest <= one.nbytes
    assert len(checkpoint_file.read(tmp_path / "x.ckpt")["model"]) == 8


@pytest.mark.parametrize("room", [0, 1000, 50_000])
def test_a_disk_that_fills_up_is_told_as_such(room: int) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > room:
                raise OSError(28, "No space left on device")
            return super().write(data)

    with pytest.raises(OSError, match="No space left on device"):
        checkpoint_file.write({"model": {str(i): torch.zeros(5_000) for i in range(9)}}, Full())
