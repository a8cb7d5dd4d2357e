"""What a training left behind, compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext_study.runs import records
from convnext_study.training import checkpoint_file

TIMES = ("seconds", "images_per_s")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = checkpoint_file.load(folder, pytest.fail)
    assert state is not None
    model: dict[str, torch.Tensor] = state["model"]
    return model


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The log's epochs without what a clock decides."""
    record = records.read(folder)
    return [line.model_dump(exclude=set(TIMES)) for line in record.epochs]


def assert_same(one: Path, other: Path) -> None:
    assert numbers(one) == numbers(other)
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    results = [records.read(folder).result for folder in (one, other)]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].metric.samples == results[1].metric.samples


def stop_after(steps: int) -> Callable[[], bool]:
    count = iter(range(1, 10_000))
    return lambda: next(count) >= steps
