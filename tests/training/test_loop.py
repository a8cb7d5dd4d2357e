"""The loop: same seed, same bits; stopped anywhere, the same end; one process a run."""

from pathlib import Path

import pytest
import torch
from support.runs import make_tiny_run
from support.training import assert_resumes, assert_same, cut_off, numbers

from convnext_study.runs import records
from convnext_study.runs.files import LOG
from convnext_study.runs.folder import RunError
from convnext_study.training.loop import train

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
