"""Checkpoints: exact, checked, and never a way to run code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext_study.records import CHECKPOINT
from convnext_study.training import checkpoint


def make_state(step: int = 1) -> dict[str, Any]:
    return {"model": {"w": torch.arange(6.0)}, "state": {"step": step, "history": [{"a": 1.5}]}}


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, make_state())
    loaded = checkpoint.load(tmp_path, pytest.fail)
    assert loaded is not None
    assert torch.equal(loaded["model"]["w"], torch.arange(6.0))
    assert loaded["state"] == make_state()["state"]


def test_other_tools_can_read_it(tmp_path: Path) -> None:
    # The checksum is a zip comment, so plain torch.load reads the file as it is.
    checkpoint.save(tmp_path, make_state())
    loaded = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert torch.equal(loaded["model"]["w"], torch.arange(6.0))


def test_any_flipped_byte_is_noticed() -> None:
    data = checkpoint.pack(make_state())
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        with pytest.raises(checkpoint.CheckpointError, match=r"x\.ckpt: damaged"):
            checkpoint.unpack(bytes(damaged), "x.ckpt")


@pytest.mark.parametrize("keep", [0, 1, 40, 500])
def test_a_truncated_file_is_noticed(keep: int) -> None:
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.unpack(checkpoint.pack(make_state())[:keep], "x.ckpt")


def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, make_state(1))
    checkpoint.save(tmp_path, make_state(2))
    path = tmp_path / CHECKPOINT
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    told: list[str] = []
    loaded = checkpoint.load(tmp_path, told.append)
    assert loaded is not None
    assert loaded["state"]["step"] == 1
    assert len(told) == 1
    assert "damaged" in told[0]


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, make_state(1))
    (tmp_path / CHECKPOINT).rename(tmp_path / checkpoint.PREVIOUS)
    loaded = checkpoint.load(tmp_path, pytest.fail)
    assert loaded is not None
    assert loaded["state"]["step"] == 1


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("evil-was-here",))


def test_pickled_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = checkpoint.pack({"model": _Evil()})
    with pytest.raises(checkpoint.CheckpointError, match="more than tensors"):
        checkpoint.unpack(data, "x.ckpt")
    (tmp_path / CHECKPOINT).write_bytes(pickle.dumps(_Evil()))
    assert checkpoint.load(tmp_path, lambda text: None) is None
    assert not (tmp_path / "evil-was-here").exists()
