"""Several processes and parts of a batch: one network, one end; what is refused, in a line."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.images import make_folder
from support.runs import make_tiny_run
from support.several import train_in, train_well_in
from support.training import assert_resumes, assert_same
from torch import nn

from convnext_study.errors import RunFailed, UserError
from convnext_study.runs import records
from convnext_study.runs.files import CHECKPOINT, PREVIOUS
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.log import read_events
from convnext_study.runs.records import Run
from convnext_study.training import checkpoint_file, loop
from convnext_study.training.build import build_train_state
from convnext_study.training.loop import train
from convnext_study.training.outcome import evaluate
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks import base, classification
from convnext_study.training.tasks.classification import Classification


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
    assert "but this one sees another file" in second
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
        with pytest.raises(ValueError, match="its checkpoint belongs to another run"):
            training.restore()


def with_data(run: Run, data: str, **recipe: Any) -> Run:
    return run.model_copy(update={"data": data, "recipe": {**run.recipe, **recipe}})


class Answers(nn.Module):
    """Says class 0 with certainty that grows with the image's mean."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(images.mean((1, 2, 3))[:, None], (0, self.classes - 1))


@pytest.mark.parametrize("world_size", [2, 5, 16])
def test_every_process_checks_equally_often(
    monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    """``check`` is a collective, and parts of 9 images differ by one, which can be a batch."""
    run = with_data(make_tiny_run(), "synthetic:4,16,36")
    monkeypatch.setattr(classification, "EVAL_BATCH", 2)
    monkeypatch.setattr(classification, "check_split", lambda *_: None)
    counts, parts = [], []

    def collect(mine: Any) -> Any:
        parts.append(mine[0])
        every = {"right": torch.ones(9, dtype=torch.bool), "val_loss": torch.zeros(9)}
        return [({**every, "places": torch.arange(9)}, 0)]

    monkeypatch.setattr(base, "all_gather", collect)
    for rank in range(world_size):
        calls = iter(range(100))
        task = Classification(run, Runtime(rank=rank, world_size=world_size))
        task.evaluate(Answers(classes=4), lambda calls=calls: next(calls))  # type: ignore[misc]
        counts.append(next(calls))
    places = [part["places"].tolist() for part in parts if part]
    assert counts == [-(-max(map(len, places)) // 2)] * world_size
    assert [index for indices in places for index in indices] == list(range(9))


def test_fewer_validation_images_than_processes(tmp_path: Path) -> None:
    # Two of them: one of three processes has none.
    run = with_data(make_tiny_run(epochs=1, global_batch_size=6, drop_path=0.0), "synthetic:2,32,8")
    alone = train(run, tmp_path / "alone")
    assert alone.val_images == 2
    for code, errors in train_in(3, run, (tmp_path / "three", None)):
        assert code == 0, errors
    together = records.read_result(tmp_path / "three")
    assert together.val_images == alone.val_images
    assert together.metrics["val_loss"].value == pytest.approx(
        alone.metrics["val_loss"].value, rel=1e-4
    )


def test_evaluation_needs_no_float64_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPUs have none: sums are float32 on the device, and float64 on the host."""
    run = make_tiny_run()
    task, net = Classification(run, Runtime()), Answers()
    honest = torch.Tensor.double

    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.float32:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return honest(tensor)

    expected = task.evaluate(net)
    monkeypatch.setattr(torch.Tensor, "double", refuse)
    assert task.evaluate(net).metrics["val_loss"].value == expected.metrics["val_loss"].value


@pytest.mark.parametrize(
    ("batch", "runtime", "says"),
    [
        (63, Runtime(), r"batch_size 63, one process.*process has 63; .*62 and 64"),
        (66, Runtime(world_size=2), r"batch_size 66, 2 processes.*has 33; .*64 and 68"),
        (64, Runtime(micro_batch_size=1), r"at most 1 image.*use a micro batch of 2"),
        (2000, Runtime(world_size=4), r"2000: .* only 1010.* 4 equal pieces of pairs"),
    ],
)
def test_images_without_a_partner_are_refused_before_training(
    batch: int, runtime: Runtime, says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        Classification(make_tiny_run(global_batch_size=batch, mixup=0.8), runtime)
    assert "\n" not in str(caught.value)
    if runtime.world_size == 1:
        Classification(make_tiny_run(global_batch_size=batch), runtime)  # nothing is mixed


def test_pieces_are_even_where_images_are_mixed() -> None:
    # 15 at a time would be two odd pieces of 30.
    run = make_tiny_run(global_batch_size=30, mixup=0.8, epochs=1)
    task = Classification(run, Runtime(micro_batch_size=15))
    assert task.accum_steps == 3
    batch = next(task.train_batches(0, 0))
    loss, images = task.loss(task.build(), batch)
    assert (images, bool(torch.isfinite(loss))) == (10, True)
    unmixed = Classification(make_tiny_run(global_batch_size=30), Runtime(micro_batch_size=15))
    assert unmixed.accum_steps == 2


def test_synchronised_batch_norm_needs_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_tiny_run("depthwise_conv", sync_bn=True, epochs=1)
    for code, errors in train_in(2, run, (tmp_path / "two", None)):
        assert code != 0
        (said,) = {line for line in errors.splitlines() if "UserError: sync_bn: torch" in line}
        assert said.endswith("leave it out, or use one process with a larger micro batch")
    # One process has nothing to synchronise, nor has LayerNorm.
    monkeypatch.setattr("convnext_study.training.build._wrap", lambda model, _: model)
    for other, runtime in ((run, Runtime()), (make_tiny_run(sync_bn=True), Runtime(world_size=2))):
        with RunFolder(tmp_path / other.id, other) as folder:
            build_train_state(other, folder, runtime, lambda: False)


def test_out_of_memory_is_one_line_that_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore of it")

    monkeypatch.setattr(loop, "_train", full)
    with pytest.raises(RunFailed) as failed:
        train(make_tiny_run(), tmp_path)
    for option in ("--micro-batch-size", "--grad-checkpointing", "--precision"):
        assert option in str(failed.value)
    assert "Tried to allocate 2 GiB" in str(failed.value) and "\n" not in str(failed.value)
    assert read_events(tmp_path)[-1]["event"] == "failed"


def test_a_published_recipe_takes_the_published_images_at_a_time() -> None:
    run = with_data(make_tiny_run(), "synthetic:4,16,300", global_batch_size=256, name="modern")
    assert Classification(run, Runtime()).accum_steps == 2
    assert Classification(run, Runtime(micro_batch_size=64)).accum_steps == 4
    own = with_data(run, run.data, name="mine")
    assert Classification(own, Runtime()).accum_steps == 1


@pytest.mark.parametrize("data", ["synthetic:4,32,24", "folder"])
def test_images_have_another_side_in_the_first_epochs(tmp_path: Path, data: str) -> None:
    uri = data if ":" in data else f"folder:{make_folder(tmp_path / 'data', count=6)}"
    sides = {"image_size": 32, "early_image_size": 16, "early_epochs": 2}
    run = with_data(make_tiny_run(epochs=3, global_batch_size=4), uri, **sides)
    task = Classification(run, Runtime())
    seen = [{one.images.shape[-1] for one in task.train_batches(epoch, 0)} for epoch in range(3)]
    assert seen == [{16}, {16}, {32}]
    assert {one.images.shape[-1] for one in task.val_batches()} == {32}
    train(run, tmp_path / "whole")
    assert_resumes(tmp_path / "whole", run, tmp_path / "cut", 5)
