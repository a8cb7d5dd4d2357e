"""What a run goes on from: the right bytes, the right data, a log that is kept, a trace of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import make_tiny_run
from support.training import assert_same, cut_off, numbers, stop_after

from convnext_study.runs import records
from convnext_study.runs.files import CHECKPOINT, LOG, PREVIOUS
from convnext_study.runs.folder import RunFolder
from convnext_study.training import checkpoint_file, loop
from convnext_study.training.build import build_train_state
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.classification import Classification


@pytest.mark.parametrize(("optimizer", "saved_last"), [("adamw", False), ("sgd", True)])
def test_moments_survive_another_memory_layout(
    tmp_path: Path, saved_last: bool, optimizer: str
) -> None:
    # Dense 3x3 kernels: the fused optimizer walks memory, and must find each moment in its place.
    run = make_tiny_run("stage_ratio", optimizer=optimizer, epochs=1)
    cut_off(run, tmp_path, 4, Runtime(channels_last=saved_last))
    with RunFolder(tmp_path, run) as folder:
        runtime = Runtime(channels_last=not saved_last)
        training = build_train_state(run, folder, runtime, lambda: False)
        training.restore()
    saved = checkpoint_file.read(tmp_path / CHECKPOINT)["optimizer"]["state"].values()
    assert len(training.optimizer.state) == len(saved) > 0
    relaid = 0
    for before, (parameter, state) in zip(saved, training.optimizer.state.items(), strict=True):
        for name, moment in state.items():
            assert torch.equal(moment, before[name])
            if moment.shape == parameter.shape:
                assert moment.stride() == parameter.stride()
                relaid += moment.stride() != before[name].stride()
    assert relaid


def test_what_is_logged_before_the_log_is_rewound(tmp_path: Path) -> None:
    run = make_tiny_run("depthwise_conv", epochs=1)
    cut_off(run, tmp_path, 2, Runtime(micro_batch_size=16))
    # The warning about BatchNorm comes before; so does the one about a damaged checkpoint.
    cut_off(run, tmp_path, 2, Runtime(micro_batch_size=16))
    data = bytearray((tmp_path / CHECKPOINT).read_bytes())
    data[100] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(bytes(data))
    train(run, tmp_path, Runtime(micro_batch_size=16))
    record = records.read(tmp_path)
    names = [event["event"] for event in record.events]
    assert names[-1] == "done"
    assert names.count("resumed") == 2
    assert len(record.epochs) == 1
    assert any("damaged" in event.get("text", "") for event in record.events)


def test_checkpoints_that_cannot_be_read_are_no_fresh_start(tmp_path: Path) -> None:
    run = make_tiny_run()
    cut_off(run, tmp_path, 9)
    epochs, files = numbers(tmp_path), [tmp_path / name for name in (CHECKPOINT, PREVIOUS)]
    for file in files:
        file.write_bytes(b"rubbish")
    with pytest.raises(checkpoint_file.CheckpointError, match="no checkpoint is left") as caught:
        train(run, tmp_path)
    assert all(str(file) in str(caught.value) for file in files)
    assert numbers(tmp_path) == epochs
    assert [file.read_bytes() for file in files] == [b"rubbish"] * 2


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    cut_off(run, tmp_path, 1)
    left: list[Path] = []

    def die(*_: Any) -> None:
        left.extend(tmp_path.glob(".*"))
        raise SystemExit  # at the moment between the file and its name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_file, "put_in_place", die)
        with pytest.raises(SystemExit):
            train(run, tmp_path, stop=stop_after(1))
    assert left
    assert list(tmp_path.glob(f".{CHECKPOINT}.*"))
    train(run, tmp_path)
    assert not list(tmp_path.glob(f".{CHECKPOINT}.*"))


def test_stopped_in_an_evaluation(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_tiny_run()
    # Seven steps, and between the second and third of the evaluation's batches.
    monkeypatch.setattr("convnext_study.training.tasks.classification.EVAL_BATCH", 100)
    cut_off(run, tmp_path / "cut", 7 + 2)
    record = records.read(tmp_path / "cut")
    assert not record.epochs
    saved = checkpoint_file.read(tmp_path / "cut" / CHECKPOINT)
    assert saved["state"]["step"] == 7
    monkeypatch.undo()
    train(run, tmp_path / "cut")
    assert_same(whole, tmp_path / "cut")


def test_an_epoch_is_saved_before_a_long_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_tiny_run()
    monkeypatch.setattr(loop, "LONG", 0.0)
    honest, evaluations = Classification.evaluate, iter(range(10))

    def evaluate(self: Any, *given: Any) -> Any:
        if next(evaluations) == 1:
            raise SystemExit  # killed in the second epoch's
        return honest(self, *given)

    monkeypatch.setattr(Classification, "evaluate", evaluate)
    with pytest.raises(SystemExit):
        train(run, tmp_path)
    assert checkpoint_file.read(tmp_path / CHECKPOINT)["state"]["step"] == 14


def test_every_start_leaves_a_trace(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    cut_off(run, tmp_path, 2)
    train(run, tmp_path, Runtime(channels_last=False))
    started, resumed = (
        event for event in records.read(tmp_path).events if event["event"] in ("started", "resumed")
    )
    for start in (started, resumed):
        assert start["world_size"] == 1
        assert torch.__version__.startswith(start["versions"]["torch"])
        assert start["hardware"]["processor"]
        assert "commit" in start
    assert started["settings"]["channels_last"] is True
    assert resumed["settings"]["channels_last"] is False
    assert all("/" not in str(value) for value in resumed["settings"].values())


def test_deterministic_is_a_switch_of_the_run_alone(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    train(run, tmp_path / "strict", Runtime(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    train(run, tmp_path / "not", Runtime())
    assert not torch.are_deterministic_algorithms_enabled()
    assert_same(tmp_path / "strict", tmp_path / "not")
    assert (tmp_path / "not" / LOG).exists()
