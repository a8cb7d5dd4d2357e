"""What a result says of the images that were skipped and of the memory that was taken."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support.images import make_folder
from support.runs import make_tiny_run
from support.several import CONTEXT

from convnext_study.errors import RunFailed
from convnext_study.runs import folder as run_folder
from convnext_study.runs import records
from convnext_study.runs.files import LOG, RESULT, RUN
from convnext_study.runs.folder import RunFolder
from convnext_study.training import loop, outcome
from convnext_study.training.loop import TrainingInterrupted, train
from convnext_study.training.runtime import Runtime

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="nobody counts here")


def test_skipped_images_are_counted_and_named(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data", count=8)
    for name in ("train/cat/1.jpg", "val/dog/2.jpg"):
        (data / name).write_bytes(b"")
    run = make_tiny_run(global_batch_size=8, mixup=0.0, cutmix=0.0)
    run = run.model_copy(update={"data": f"folder:{data}"})
    folder, stops = tmp_path / "run", iter([False, False, True])
    runtime = Runtime(corrupt_images="skip")
    with pytest.raises(TrainingInterrupted):
        train(run, folder, runtime, stop=lambda: next(stops))
    result = train(run, folder, runtime).model_dump()
    assert result["corrupt_images"] == 2  # once in each of two epochs
    assert (result["corrupt_val_images"], result["val_images"]) == (1, 15)
    assert result["metrics"]["top1"]["samples"]["count"] == 15
    named = [event["names"] for event in records.read(folder).events if "names" in event]
    assert [Path(name).name for names in named for name in sorted(names)] == ["1.jpg", "2.jpg"]
    assert "corrupt_images" in (folder / LOG).read_text()


def test_a_batch_that_the_data_cannot_fill_has_the_rate_of_one_that_it_can(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "data", count=4)
    (data / "train" / "cat" / "x.gif").touch()
    run, found = make_tiny_run(mixup=0.0, cutmix=0.0), []
    for batch in (64, 8):
        recipe = {**run.recipe, "global_batch_size": batch, "min_lr": 0.0}
        one = run.model_copy(update={"data": f"folder:{data}", "recipe": recipe})
        found.append(train(one, tmp_path / str(batch)))
        record = records.read(tmp_path / str(batch))
        warned = [event["text"] for event in record.events if event["event"] == "warning"]
        assert any("1 .gif" in text for text in warned)
        assert any("8 training images, fewer than the batch of 64" in one for one in warned) == (
            batch > 8
        )
    assert found[0].metrics == found[1].metrics
    logs = [records.read(tmp_path / str(batch)).epochs for batch in (64, 8)]
    assert [line.lr for line in logs[0]] == [line.lr for line in logs[1]] != []
    assert found[0].model_dump()["batch"]["global"] == 8


@linux
def test_the_peak_of_memory_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(loop, "reset_peak", told.append)
    small = train(make_tiny_run(epochs=1), tmp_path / "small").model_dump()["peak_memory"]
    assert told == ["cpu"]
    assert 100e6 < small < 20e9  # torch alone is more than the one, the machine less than the other


def forgotten() -> int:
    """Bytes that are no longer part of the peak."""
    large = torch.ones(100_000_000)  # 400 MB, and touched
    high = outcome.peak_memory("cpu")
    del large
    outcome.reset_peak("cpu")
    low = outcome.peak_memory("cpu")
    return (high or 0) - (low or 0)


@linux
def test_a_peak_can_be_forgotten() -> None:
    # In a process of its own: one that has freed much before keeps this for its next tensors.
    with CONTEXT.Pool(1) as pool:
        assert pool.apply(forgotten) > 300e6


def test_where_nobody_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outcome, "PROCESS", tmp_path / "none")
    outcome.reset_peak("cpu")
    assert outcome.peak_memory("cpu") is None
    assert outcome.peak_memory("mps") is None


FULL = r"^{}: cannot be written \(No space left on device\); free some space, then rerun"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_log_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path, make_tiny_run()) as folder:
        folder._log = Path("/dev/full").open("a")  # noqa: SIM115
        with pytest.raises(RunFailed, match=FULL.format(tmp_path)) as caught:
            folder.event("started")
        folder.failed(caught.value, rank=0)  # there is no telling; the error is told all the same


@pytest.mark.parametrize("what", [RUN, LOG, RESULT])
def test_on_a_full_disk_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run = make_tiny_run(epochs=1)

    def full(path: Path, *value: Any) -> None:
        if path.name == what:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *value)

    name = "write_bytes" if what == LOG else "write_json"
    write = getattr(run_folder, name)
    monkeypatch.setattr(run_folder, name, full)
    with pytest.raises(RunFailed, match=FULL.format(tmp_path)):
        train(run, tmp_path)
    monkeypatch.undo()
    assert train(run, tmp_path).epochs == 1
