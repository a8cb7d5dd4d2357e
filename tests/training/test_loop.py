"""The loop: same seed, same bits; stopped anywhere, the same end; what a run goes on from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import make_tiny_run
from support.training import assert_resumes, assert_same, cut_off, numbers, stop_after

from convnext_study.runs import records
from convnext_study.runs.files import CHECKPOINT, LOG, PREVIOUS
from convnext_study.runs.folder import RunError, RunFolder
from convnext_study.training import checkpoint_file, loop
from convnext_study.training.build import build_train_state
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.classification import Classification

STEPS = 7  # of an epoch


def test_it_learns_and_records(whole: Path) -> None:
    record = records.read(whole)
    assert record.status == "done"
    assert record.result is not None
    assert record.result.value > 40  # of ten classes, after two short epochs
    assert record.result.val_images == 787
    assert (record.result.corrupt_images, record.result.corrupt_val_images) == (0, 0)
    assert record.result.metric.samples is not None
    right = record.result.metric.samples.array()
    assert right.shape == (787,)
    assert record.result.value == pytest.approx(100 * right.mean())
    assert [line.epoch for line in record.epochs] == [1, 2]
    assert record.epochs[1].loss < record.epochs[0].loss
    assert torch.__version__.startswith(record.manifest["versions"]["torch"])
    assert record.result.cost.macs > 0
    assert [event["event"] for event in record.events] == ["started", "done"]


def test_the_seed_decides_the_bits(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # whatever happened before in this process
    train(make_tiny_run(), tmp_path / "same")
    assert_same(whole, tmp_path / "same")
    train(make_tiny_run().model_copy(update={"seed": 1}), tmp_path / "other")
    assert numbers(tmp_path / "other") != numbers(whole)


@pytest.mark.parametrize("steps", [3, STEPS, STEPS + 1, 2 * STEPS])
def test_stopped_anywhere_ends_the_same(whole: Path, tmp_path: Path, steps: int) -> None:
    cut_off(make_tiny_run(), tmp_path, steps)
    assert records.read(tmp_path).status == "unfinished"
    train(make_tiny_run(), tmp_path)
    assert_same(whole, tmp_path)


def test_stopped_at_every_step_of_a_mixed_and_clipped_run_with_batch_norm(tmp_path: Path) -> None:
    run = make_tiny_run("depthwise_conv", epochs=1, mixup=0.8, cutmix=1.0, clip_grad=1.0)
    one, other = tmp_path / "one", tmp_path / "other"
    train(run, one)
    assert_resumes(one, run, other, *[1] * STEPS)


def test_the_log_follows_the_checkpoint(whole: Path, tmp_path: Path) -> None:
    cut_off(make_tiny_run(), tmp_path, 11)
    # As if killed after the checkpoint and before the line, and with a line cut short.
    log = tmp_path / LOG
    lines = [line for line in log.read_text().splitlines() if '"epoch"' not in line]
    log.write_text("\n".join(lines) + '\n{"event": "epo')
    train(make_tiny_run(), tmp_path)
    assert_same(whole, tmp_path)


def test_a_finished_run_is_left_alone(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    again = train(make_tiny_run(), whole)
    assert again == records.read(whole).result
    assert {p: p.stat().st_mtime_ns for p in whole.iterdir() if p.name != "lock"} == {
        path: time for path, time in before.items() if path.name != "lock"
    }


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        train(make_tiny_run(), tmp_path / "file" / "run")


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
    with pytest.raises(
        checkpoint_file.CheckpointError, match="no usable checkpoint is left"
    ) as caught:
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
    monkeypatch.setattr(loop, "LONG_EVALUATION", 0.0)
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
