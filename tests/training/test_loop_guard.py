"""Numbers that are not finite: in the loss, in a gradient, in a buffer, in the weights."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.exits import exit_run
from support.mpii import make_split
from support.runs import make_tiny_run
from support.training import assert_same, cut_off, weights
from torch import nn
from torch.optim.swa_utils import AveragedModel

from convnext_study.runs import records
from convnext_study.runs.files import CHECKPOINT, RESULT
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.metrics import Metric
from convnext_study.training import checkpoint_file, loop
from convnext_study.training.build import build_train_state
from convnext_study.training.guard import ScoresError
from convnext_study.training.loop import train
from convnext_study.training.outcome import evaluate
from convnext_study.training.runtime import Runtime
from convnext_study.training.state import TrainingError
from convnext_study.training.task import Evaluation
from convnext_study.training.tasks import make_task
from convnext_study.training.tasks.classification import Classification


def at_steps(
    monkeypatch: pytest.MonkeyPatch, which: set[int], harm: Callable[[nn.Module, Any], Any]
) -> None:
    """Have ``harm(model, loss)`` give the loss of some calls."""
    honest = Classification.loss
    calls = iter(range(10**6))

    def loss(self: Any, model: nn.Module, batch: Any) -> Any:
        value, count = honest(self, model, batch)
        return harm(model, value) if next(calls) in which else value, count

    monkeypatch.setattr(Classification, "loss", loss)


def spoil_gradient(model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """A finite value with a gradient that is not."""
    wrong = loss.clone()
    wrong.register_hook(lambda gradient: gradient * math.inf)
    return wrong


def spoil_statistics(model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """As an image full of NaN does: the statistics take it in before the loss is known."""
    images = torch.full((4, 3, 32, 32), math.nan)
    wrong: torch.Tensor = loss + model(images).sum()
    return wrong


def spoil_statistics_only(model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.data.fill_(math.inf)  # behind autograd's back, as an overflow does
    return loss


@pytest.mark.parametrize(
    ("harm", "trouble", "optimizer"),
    [
        (spoil_gradient, "gradient", "sgd"),
        (spoil_gradient, "gradient", "adamw"),
        (spoil_statistics, "loss", "adamw"),
        (spoil_statistics_only, "buffers", "sgd"),
    ],
)
def test_a_bad_step_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Any, trouble: str, optimizer: str
) -> None:
    # The first step, for SGD makes room for its momentum there, and a later one.
    run = make_tiny_run("depthwise_conv", optimizer=optimizer, epochs=1)
    with RunFolder(tmp_path / "one", run) as folder, monkeypatch.context() as patch:
        at_steps(patch, {0}, harm)
        training = build_train_state(run, folder, Runtime(), lambda: False)
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        stepper = loop.Stepper(training)
        stepper.take(list(training.task.train_batches(0, 0))[:1], due=False)
        after = training.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    at_steps(monkeypatch, {0, 5}, harm)
    result = train(run, tmp_path / "two")
    assert result.model_dump()["skipped_steps"] == 2
    assert math.isfinite(result.metrics["val_loss"].value)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "two").values())
    skipped = [event for event in records.read(tmp_path / "two").events if "reason" in event]
    assert [(event["step"], event["reason"]) for event in skipped] == [(0, trouble), (5, trouble)]


def test_many_bad_steps_stop_with_the_state_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_steps(monkeypatch, set(range(2, 100)), lambda model, loss: loss * math.nan)
    with pytest.raises(TrainingError, match=r"loss is nan\), the 10th time in a row; try a lower"):
        train(make_tiny_run(), tmp_path)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())
    assert records.read(tmp_path).status == "failed"
    assert not (tmp_path / RESULT).exists()


def test_numbers_read_late_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a GPU a step's numbers are read a step later; so it is tried here on the CPU.
    run = make_tiny_run("depthwise_conv", epochs=1)

    def trained(folder: Path) -> list[tuple[int, str]]:
        with monkeypatch.context() as patch:
            at_steps(patch, {2, 4}, spoil_gradient)
            train(run, folder)
        events = records.read(folder).events
        return [(event["step"], event["reason"]) for event in events if "loss" in event]

    skipped = trained(tmp_path / "at once")
    monkeypatch.setattr(loop, "report_delay", lambda device: 1)
    assert trained(tmp_path / "late") == skipped == [(2, "gradient"), (4, "gradient")]
    assert_same(tmp_path / "at once", tmp_path / "late")
    cut_off(run, tmp_path / "cut", 4)
    train(run, tmp_path / "cut")
    train(run, tmp_path / "whole")
    assert_same(tmp_path / "cut", tmp_path / "whole")


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    run = make_tiny_run()
    cut_off(run, tmp_path, 3)
    good = checkpoint_file.digest(tmp_path / CHECKPOINT)
    with RunFolder(tmp_path, run) as folder:
        training = build_train_state(run, folder, Runtime(), lambda: False)
        training.restore()
        with torch.no_grad():
            next(training.model.parameters())[0] = math.nan
        with pytest.raises(TrainingError, match="not finite after step 3; the last finite ones"):
            training.save()
    assert checkpoint_file.digest(tmp_path / CHECKPOINT) == good


class Spoilt(nn.Module):
    """A network, but for some of its scores of the first ``count`` images of each batch."""

    def __init__(self, net: nn.Module, value: float, count: int) -> None:
        super().__init__()
        self.net, self.value, self.count = net, value, count

    def forward(self, images: torch.Tensor) -> Any:
        said = self.net(images)
        every = [said] if isinstance(said, torch.Tensor) else list(said)
        every[-1][: self.count, 0] = self.value
        return every[0] if isinstance(said, torch.Tensor) else every


@pytest.mark.parametrize(
    ("what", "value"),
    [("classes", math.nan), ("classes", -math.inf), ("maps", math.inf), ("joints", math.nan)],
)
def test_scores_that_are_not_finite_are_no_result(what: str, value: float, tmp_path: Path) -> None:
    if what == "classes":
        run, batches, spoilt = make_tiny_run("depthwise_conv"), 4, 3
    elif what == "maps":
        run, batches, spoilt = exit_run(), 1, 1
    else:
        data = f"mpii:{make_split(tmp_path)}"
        run, batches, spoilt = exit_run(data, task="pose", size=64), 1, 1
    task = make_task(run, Runtime())
    honest = task.build().eval()
    images = evaluate(task, honest).images
    with pytest.raises(ScoresError, match=rf"of {spoilt * batches} of {images} validation images"):
        evaluate(task, Spoilt(honest, value, spoilt))
    with torch.no_grad():
        weight = next(honest.parameters())
        weight.view(-1)[0] = math.nan
    with pytest.raises(ScoresError, match=f"of {images} of .* nor are the weights"):
        evaluate(task, honest)


def test_a_metric_that_is_not_finite_is_no_result() -> None:
    task: Any = make_task(make_tiny_run(), Runtime())
    metric = Metric(value=math.nan, label="share of nothing")
    task.evaluate = lambda *_: Evaluation({"share": metric}, "share", 3)
    with pytest.raises(ScoresError, match="share of nothing is nan"):
        evaluate(task, task.build())


def test_a_run_fails_where_its_scores_are_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the weights that the run is not judged by, too.
    honest = Classification.evaluate

    def of_averaged(self: Any, model: nn.Module, check: Any) -> Any:
        averaged = isinstance(model, AveragedModel)
        return honest(self, Spoilt(model, math.inf, 1) if averaged else model, check)

    monkeypatch.setattr(Classification, "evaluate", of_averaged)
    with pytest.raises(TrainingError, match="ema weights: the scores of 4 of 787"):
        train(make_tiny_run(ema=0.9, epochs=1), tmp_path)
    assert records.read(tmp_path).status == "failed"
    assert records.read(tmp_path).result is None


def test_fp16s_overflows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A scale of 2**16 overflows on the way back from a large loss, until it is small enough.
    at_steps(monkeypatch, set(range(10**4)), lambda model, loss: loss * 1e4)
    result = train(make_tiny_run(precision="fp16", epochs=1), tmp_path)
    skipped = [event for event in records.read(tmp_path).events if event["event"] == "skipped"]
    assert 0 < len(skipped) == result.model_dump()["skipped_steps"] <= 7
    assert {event["reason"] for event in skipped} == {"gradient"}
