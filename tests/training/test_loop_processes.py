"""Several processes of one run: one network, one checkpoint, one end."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.runs import make_tiny_run
from support.several import train_in, train_well_in
from support.training import assert_same

from convnext_study.runs import records
from convnext_study.runs.files import CHECKPOINT, PREVIOUS
from convnext_study.runs.folder import RunFolder
from convnext_study.training import checkpoint_file
from convnext_study.training.build import build_train_state
from convnext_study.training.outcome import evaluate
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks import classification


@pytest.mark.parametrize("which", ["raw", "ema"])
def test_what_is_recorded_is_the_checkpoints(tmp_path: Path, which: str) -> None:
    # BatchNorm's running statistics are each process's own until they agree.
    ema = 0.9 if which == "ema" else 0.0
    run = make_tiny_run(
        "depthwise_conv", epochs=1, ema=ema, eval_weights=which, global_batch_size=96
    )
    train_well_in(2, run, (tmp_path / "run", None))
    recorded = records.read_result(tmp_path / "run")
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "run" / CHECKPOINT, tmp_path / "alone")
    with RunFolder(tmp_path / "alone", run) as folder:
        training = build_train_state(run, folder, Runtime(), lambda: False)
        training.restore()
    model = training.model if training.ema is None else training.ema
    alone = evaluate(training.task, model)
    assert recorded.value == alone.value
    assert recorded.metrics["val_loss"].value == pytest.approx(
        alone.metrics["val_loss"].value, rel=1e-6
    )


def test_three_processes_resume_bit_for_bit(tmp_path: Path) -> None:
    # Two summands commute; with three the order of a sum shows in the last bit.
    run = make_tiny_run("depthwise_conv", epochs=1, global_batch_size=96)
    cut = tmp_path / "cut"
    train_well_in(3, run, (tmp_path / "whole", None), (cut, 2), (cut, 5), (cut, None))
    assert_same(tmp_path / "whole", tmp_path / "cut")


def see_older_state(rank: int) -> None:
    """In the second process, as over a network file system."""
    honest = checkpoint_file.digest
    if rank == 1:
        checkpoint_file.digest = lambda path: honest(path.with_name(PREVIOUS))


def test_all_go_on_from_the_first_ones_checkpoint(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    train_well_in(2, run, (tmp_path, 3), (tmp_path, 3))
    assert checkpoint_file.digest(tmp_path / CHECKPOINT) != checkpoint_file.digest(
        tmp_path / PREVIOUS
    )
    (code, first), (other, second) = train_in(2, run, (tmp_path, None), before=see_older_state)
    assert code != 0
    assert other != 0
    assert "goes on from this checkpoint, and this one sees another file" in second
    assert "process 1: " in first  # and does not wait for it
    failed = [event for event in records.read(tmp_path).events if event["event"] == "failed"]
    assert {event["rank"] for event in failed} == {0, 1}


def lose_disk(rank: int) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no such disk on this node")

    if rank == 1:
        setattr(classification, "open_data", refuse)  # noqa: B010


def test_a_process_that_fails_is_told_and_ends_the_others(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    (code, first), (other, _) = train_in(2, run, (tmp_path, None), before=lose_disk)
    assert code != 0
    assert other != 0
    assert "process 1: no such disk on this node" in first
    reasons = {
        event["rank"]: event["reason"]
        for event in records.read(tmp_path).events
        if event["event"] == "failed"
    }
    assert reasons[1] == "OSError: no such disk on this node"


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    with RunFolder(tmp_path, run) as folder:
        training = build_train_state(run, folder, Runtime(), lambda: False)
        training.save()
        saved = checkpoint_file.read(tmp_path / CHECKPOINT)
        checkpoint_file.save(tmp_path, {**saved, "key": "0" * 64})
        with pytest.raises(ValueError, match="its checkpoint is of another run"):
            training.restore()
