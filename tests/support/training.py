"""What a training left behind, compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext_study.runs import records
from convnext_study.runs.metrics import Metric, Samples
from convnext_study.runs.records import Run
from convnext_study.training import checkpoint_file
from convnext_study.training.loop import TrainingInterrupted, train
from convnext_study.training.runtime import Runtime

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
    results = [records.read_result(folder) for folder in (one, other)]
    assert results[0].metric.samples == results[1].metric.samples


def evidence(metric: Metric) -> Samples:
    """What a metric is computed from."""
    assert metric.samples is not None
    return metric.samples


def cut_off(run: Run, folder: Path, steps: int, runtime: Runtime | None = None) -> None:
    """Train a run in its folder, and stop it after so many steps, its state saved."""
    with pytest.raises(TrainingInterrupted):
        train(run, folder, runtime, stop=stop_after(steps))


def assert_resumes(whole: Path, run: Run, folder: Path, *steps: int) -> None:
    """Stopped after so many steps, and again after so many, a run ends as the whole one did."""
    for count in steps:
        cut_off(run, folder, count)
    train(run, folder)
    assert_same(whole, folder)


def stop_after(steps: int) -> Callable[[], bool]:
    count = iter(range(1, 10_000))
    return lambda: next(count) >= steps
