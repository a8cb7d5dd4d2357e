"""The same gradient however the batch is split; switches that change no result; skipped steps."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import make_tiny_run
from support.several import train_well_in
from support.training import assert_resumes, assert_same, cut_off, weights

from convnext_study.recipes import RecipeError
from convnext_study.runs import records
from convnext_study.training import checkpoint_file
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

# LayerNorm, so that no layer looks at the rest of its batch.
PLAIN: dict[str, Any] = {"global_batch_size": 64, "drop_path": 0.2, "epochs": 1}


def losses(folder: Path) -> list[float]:
    return [line.loss for line in records.read(folder).epochs]


@pytest.fixture(scope="module")
def undivided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undivided")
    train(make_tiny_run(**PLAIN), folder)
    return folder


def assert_close(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    assert losses(one) == pytest.approx(losses(other), abs=tolerance)
    mine, its = weights(one), weights(other)
    # AdamW divides by the gradient's size, so a rounding error can grow to the learning rate.
    worst = max(float((mine[name] - its[name]).abs().max()) for name in mine)
    assert worst < 50 * tolerance


@pytest.mark.parametrize(("mix", "group"), [(0.0, 64), (0.8, 24)])
def test_accumulation_changes_nothing(tmp_path: Path, mix: float, group: int) -> None:
    run = make_tiny_run(**PLAIN, mixup=mix, cutmix=mix, mix_group_size=group)
    train(run, tmp_path / "whole")
    train(run, tmp_path / "split", Runtime(micro_batch_size=16))
    assert_close(tmp_path / "split", tmp_path / "whole")
    result = records.read_result(tmp_path / "split")
    assert result.model_dump()["batch"] == {
        "global": 64,
        "world_size": 1,
        "accum_steps": 4,
        "micro_batch_size": 16,
    }


def test_two_processes_change_nothing(undivided: Path, tmp_path: Path) -> None:
    run = make_tiny_run(**PLAIN)
    again = tmp_path / "again"
    train_well_in(2, run, (tmp_path / "two", None), (again, 7))
    assert_close(tmp_path / "two", undivided)
    result = records.read_result(tmp_path / "two")
    assert result.val_images == 787  # each once, over both
    # TrainingInterrupted half-way in both and resumed, two processes end bit for bit the same.
    assert records.read(again).status == "unfinished"
    train_well_in(2, run, (again, None))
    assert_same(tmp_path / "two", again)


@pytest.mark.parametrize(
    "switch",
    [Runtime(channels_last=False), Runtime(grad_checkpointing=True), Runtime(compile=True)],
)
def test_switches_change_nothing(
    undivided: Path, tmp_path: Path, switch: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tracing is what can change a network; generating code for it takes a minute and is torch's.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compile_(net, backend="aot_eager"))
    train(make_tiny_run(**PLAIN), tmp_path, switch)
    assert_close(tmp_path, undivided)
    assert all("_orig_mod" not in name for name in weights(tmp_path))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_learns_and_resumes(tmp_path: Path, precision: str) -> None:
    run = make_tiny_run(precision=precision, clip_grad=1.0)
    train(run, tmp_path / "one")
    first, last = losses(tmp_path / "one")
    assert last < first - 0.1
    assert_resumes(tmp_path / "one", run, tmp_path / "two", 9)


def test_clipping_bounds_the_gradient(tmp_path: Path) -> None:
    # With plain SGD a step can move the weights by no more than lr times the bound.
    run = make_tiny_run(
        epochs=1, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_grad=1e-3, lr=0.1
    )
    start = tmp_path / "start"
    cut_off(run, start, 1)
    one = weights(start)
    cut_off(run, start, 1)
    two = weights(start)
    moved = math.sqrt(sum(float((two[name] - one[name]).square().sum()) for name in one))
    assert 0 < moved <= 0.1 * 2 * 1e-3 * 1.01  # the rate is 0.1 at 64 images, and this batch is 128


def test_the_average_is_judged_and_can_be_the_result(tmp_path: Path) -> None:
    both = make_tiny_run(ema=0.9)
    ema = make_tiny_run(ema=0.9, eval_weights="ema")
    raw_result, ema_result = train(both, tmp_path / "raw"), train(ema, tmp_path / "ema")
    lines = records.read(tmp_path / "raw").epochs
    assert all({"top1_raw", "top1_ema"} <= line.metrics.keys() for line in lines)
    assert raw_result.value == raw_result.metrics["top1_raw"].value
    assert ema_result.value == ema_result.metrics["top1_ema"].value
    assert ema_result.metrics["top1_raw"].value == raw_result.value
    assert_resumes(tmp_path / "ema", ema, tmp_path / "resumed", 9)
    with pytest.raises(RecipeError, match="ema is off"):
        make_tiny_run(eval_weights="ema")


def test_batch_norms_statistics_are_copied_into_the_average(tmp_path: Path) -> None:
    train(make_tiny_run("depthwise_conv", epochs=1, ema=0.999), tmp_path)
    state = checkpoint_file.load(tmp_path, pytest.fail)
    assert state is not None
    names = [name for name in state["model"] if name.endswith("running_var")]
    assert names
    for name in names:
        assert torch.equal(state["model_ema"][name], state["model"][name])


def test_a_small_batch_for_batch_norm_is_told(tmp_path: Path) -> None:
    run = make_tiny_run("depthwise_conv", epochs=1, global_batch_size=64)
    cut_off(run, tmp_path / "a", 1, Runtime(micro_batch_size=16))
    texts = [event.get("text", "") for event in records.read(tmp_path / "a").events]
    assert any("BatchNorm sees 16 images at a time, under 32" in text for text in texts)
    cut_off(make_tiny_run(**PLAIN), tmp_path / "b", 1, Runtime(micro_batch_size=16))
    assert not any("BatchNorm" in str(event) for event in records.read(tmp_path / "b").events)


def test_saved_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    honest = checkpoint_file.save

    def save(folder: Path, state: dict[str, Any], *checks: Any) -> None:
        saved.append(state["state"]["step"])
        honest(folder, state, *checks)

    monkeypatch.setattr(checkpoint_file, "save", save)
    train(make_tiny_run(epochs=1), tmp_path, Runtime(checkpoint_seconds=0.0))
    last = len(saved) - 2
    assert saved == [*range(1, last + 1), last, last]  # and before and after evaluating


def test_a_clock_that_goes_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10**6, 0, -1))
    monkeypatch.setattr("time.time", lambda: float(next(times)))
    train(make_tiny_run(epochs=1), tmp_path)
    record = records.read(tmp_path)
    assert record.status == "done"
    assert [line.seconds > 0 for line in record.epochs] == [True]
