"""What an anytime network's evaluation tells beside accuracy."""

import math
from typing import Any

import pytest
import torch
from support.exits import exit_run

from convnext_study.data.rng import fold_in
from convnext_study.runs.records import ModelRef, Run
from convnext_study.studies.anytime.layer_cost import exit_macs
from convnext_study.studies.anytime.segmentation import (
    BINS,
    AnytimeSegmentation,
    calibration_error,
    confidence_bins,
)
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks import exits, make_task


@pytest.fixture(autouse=True)
def _several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "EVAL_BATCH", 4)


def anytime_run(**spec: Any) -> Run:
    fields = {"backbone": "hrnet_digits_narrow", **spec}
    run = exit_run("digit-canvas:32,16,6", task="anytime")
    return run.model_copy(update={"model": ModelRef(builder="anytime", args=fields)})


def make(**spec: Any) -> tuple[AnytimeSegmentation, Any]:
    task = make_task(anytime_run(**spec), Runtime(channels_last=False))
    assert isinstance(task, AnytimeSegmentation)
    torch.manual_seed(0)
    return task, task.build().eval()


def test_masks_cost_what_they_compute_on_each_image() -> None:
    task, net = make(masks="random", random_shares=[0.75, 0.5, 0.25])
    metrics = task.evaluate(net).metrics
    layers, expected = net.layer_costs((3, 32, 32)), []
    for first in (0, 4):
        pairs = [task.data.val.pixels(index)[0] for index in range(first, min(first + 4, 6))]
        torch.manual_seed(fold_in(0, "evaluate", first))
        outputs = list(net.run(torch.stack(pairs).float()))
        for image in range(len(pairs)):
            masks = [one.computed for one in outputs]
            mine = [None if one is None else one[image : image + 1] for one in masks]
            expected.append(exit_macs(layers, mine))
    found = [metrics[f"macs_exit{number}"].samples for number in (2, 3, 4)]
    for exit, samples in enumerate(found, 1):
        assert samples is not None
        assert samples.array() == pytest.approx([one[exit] for one in expected])
    assert metrics["computed_exit2"].value > metrics["computed_exit4"].value
    dense = task.costs(net)
    assert metrics["macs_exit4"].value < dense["exit4"].macs
    assert metrics["macs_exit1"].value == dense["exit1"].macs


def test_an_average_of_the_weights_is_measured_too() -> None:
    task, net = make(masks="confidence")
    average = torch.optim.swa_utils.AveragedModel(net).eval()
    assert task.evaluate(average).metrics == task.evaluate(net).metrics


def test_the_calibration_error_of_known_pixels() -> None:
    """Of 4 pixels 3 are right at 0.9, and of 2 none at 0.6; one is ignored."""
    probabilities = torch.zeros(1, 2, 1, 7)
    probabilities[0, 0, 0] = torch.tensor([0.9] * 4 + [0.6] * 2 + [0.99])
    probabilities[0, 1] = 1 - probabilities[0, 0]
    labels = torch.tensor([[[0, 0, 0, 1, 1, 1, 255]]], dtype=torch.uint8)
    bins = confidence_bins(probabilities, labels)
    assert bins.shape == (1, BINS, 3)
    assert bins[0, :, 0].tolist() == [0] * 9 + [2] + [0] * 3 + [4] + [0]
    expected = (4 * abs(0.9 - 0.75) + 2 * 0.6) / 6
    assert calibration_error(bins[0]) == pytest.approx(expected)
    assert math.isnan(calibration_error(torch.zeros(BINS, 3)))
