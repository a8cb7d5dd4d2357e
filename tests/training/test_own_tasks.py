"""The engine trains what it does not know: maps for labels, exits, metrics, a run after a run."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fakes import write_run
from support.runs import make_tiny_run
from support.several import train_well_in
from support.toys import masked_run, segmentation_run
from support.training import assert_resumes, assert_same, cut_off, weights

from convnext_study.experiments.plan import Plan, RunCollection
from convnext_study.launchers import torchrun
from convnext_study.launchers.graph import Job, Outcome
from convnext_study.launchers.local import Local
from convnext_study.launchers.resources import Machine, Resources
from convnext_study.launchers.worker import train_job
from convnext_study.runs import records
from convnext_study.runs.files import CHECKPOINT, KEPT_RECORD, KEPT_WEIGHTS, RESULT
from convnext_study.runs.parents import ParentError, check_parent, forget_parent
from convnext_study.runs.records import Result, Run
from convnext_study.training import checkpoint_file
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime


def jobs_in(folder: Path, *runs: Run) -> list[Job]:
    return [Job(run, folder / "runs" / run.id, Runtime()) for run in runs]


def finished(folder: Path, run: Run) -> Result:
    return records.read_result(folder / "runs" / run.id)


def test_dense_prediction_learns_and_says_its_own_metric(tmp_path: Path) -> None:
    result = train(segmentation_run(), tmp_path / "run")
    assert result.primary == "miou_2"
    assert set(result.metrics) == {"miou_1", "miou_2"}
    assert result.value > 45  # one class everywhere has under 15
    assert set(result.costs) == {"network", "exit 1"}
    assert result.cost.macs == 12 * 20 * 4 * (9 * 3 + 9 * 4 + 2 * 3)
    samples = result.metric.samples
    assert samples is not None and samples.array().shape == (10, 3, 2)
    inside, union = samples.array().sum(0).T
    assert 100 * (inside / union).mean() == pytest.approx(result.value)
    lines = records.read(tmp_path / "run").epochs
    assert [line.value for line in lines][-1] == result.value


@pytest.mark.parametrize("steps", [1, 4, 12])
def test_dense_prediction_resumes_bit_for_bit(tmp_path: Path, steps: int) -> None:
    run = segmentation_run(ema=0.9)
    train(run, tmp_path / "calm")
    assert_resumes(tmp_path / "calm", run, tmp_path / "cut", steps)


def test_dense_prediction_in_two_processes(tmp_path: Path) -> None:
    run = segmentation_run()
    cut = tmp_path / "cut"
    train_well_in(2, run, (tmp_path / "calm", None), (cut, 6), (cut, None))
    assert_same(tmp_path / "cut", tmp_path / "calm")


def test_two_phases(whole: Path, tmp_path: Path) -> None:
    parent = make_tiny_run()
    children = [masked_run(parent), masked_run(parent, "random")]
    shutil.copytree(whole, tmp_path / "runs" / parent.id)
    for run in children:
        train(run, tmp_path / "runs" / run.id)
    assert len({parent.key, *(child.key for child in children)}) == 3
    kept = [weights(tmp_path / "runs" / child.id) for child in children]
    for name, value in kept[0].items():
        if value.ndim == 4:
            share = float((value != 0).double().mean())
            assert 0.2 < share < 0.45, name
            # One mask, which is the parent's, on weights of their own.
            assert torch.equal(value != 0, kept[1][name] != 0)
            assert not torch.equal(value, kept[1][name])
    # Inherited weights are ahead of random ones after so short a training.
    inherited, random = (finished(tmp_path, child).value for child in children)
    assert inherited > random


@pytest.mark.parametrize("steps", [1, 7])
def test_a_second_phase_resumes_bit_for_bit(whole: Path, tmp_path: Path, steps: int) -> None:
    parent = make_tiny_run()
    child = masked_run(parent)
    calm, cut = (tmp_path / name / "runs" / child.id for name in ("calm", "cut"))
    for folder in (calm, cut):
        shutil.copytree(whole, folder.with_name(parent.id))
    train(child, calm)
    assert_resumes(calm, child, cut, steps)


def test_a_graph_through_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = make_tiny_run(epochs=1)
    bad = parent.model_copy(update={"data": "folder:/nowhere"})
    good, lost = masked_run(parent), masked_run(bad)
    trained: list[str] = []

    def alone(job: Job, *_: object) -> Outcome:
        """What processes of torchrun do, in this one."""
        trained.append(job.run.key)
        status, reason, _error = train_job(job, lambda: False)
        return Outcome(job.run, status, reason)

    monkeypatch.setattr(torchrun, "_train", alone)
    outcomes = torchrun.run_torchrun(jobs_in(tmp_path, good, lost, parent, bad), 2)
    found = {outcome.run.key: outcome for outcome in outcomes}
    assert found[parent.key].status == found[good.key].status == "done"
    assert found[bad.key].status == "failed"
    assert found[lost.key].reason == f"its parent run failed: {bad.id}"
    assert trained == [parent.key, good.key, bad.key]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("begun")
    parent = make_tiny_run(epochs=1)
    child = masked_run(parent)
    train(parent, root / "other" / "runs" / parent.id)
    cut_off(child, root / "study" / "runs" / child.id, 2)
    return root


@pytest.fixture
def begun(trained_once: Path, tmp_path: Path) -> tuple[Run, Path, Run, Path]:
    """A finished parent in another study's folder, and a child that was stopped, with their
    folders."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    parent = make_tiny_run(epochs=1)
    child = masked_run(parent)
    its, own = tmp_path / "other" / "runs" / parent.id, tmp_path / "study" / "runs" / child.id
    return parent, its, child, own


def test_a_parent_that_is_changed_or_missing(begun: tuple[Run, Path, Run, Path]) -> None:
    _, its, child, own = begun
    (its / CHECKPOINT).write_bytes((own / CHECKPOINT).read_bytes())
    with pytest.raises(Exception, match="has other weights than when this run began"):
        train(child, own)
    shutil.rmtree(its)
    forget_parent(own)
    with pytest.raises(ParentError, match="train that first") as caught:
        train(child, own)
    assert "\n" not in str(caught.value)


def test_a_parent_trained_again_to_the_same_bits_is_the_same(
    begun: tuple[Run, Path, Run, Path],
) -> None:
    parent, its, child, own = begun
    before = checkpoint_file.digest(its / CHECKPOINT)
    shutil.rmtree(its)
    train(parent, its)
    assert checkpoint_file.digest(its / CHECKPOINT) != before  # it holds times
    assert train(child, own).epochs == 1


@pytest.mark.parametrize(
    ("lost", "linked"),
    [("folder", True), ("checkpoint", True), ("result", True), ("folder", False)],
)
def test_a_child_that_has_begun_needs_no_parent(
    begun: tuple[Run, Path, Run, Path], monkeypatch: pytest.MonkeyPatch, lost: str, linked: bool
) -> None:
    parent, its, child, own = begun
    if not linked:  # as on file systems without hard links

        def refused(*_: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        forget_parent(own)
        monkeypatch.setattr("os.link", refused)
        cut_off(child, own, 2)
    if lost == "folder":
        shutil.rmtree(its)
    else:
        (its / {"checkpoint": CHECKPOINT, "result": RESULT}[lost]).unlink()
    check_parent(child, own)
    job = Job(child, own, Runtime())
    assert job.waits_for is None
    assert Job(child, own.with_name("new"), Runtime()).waits_for == parent.key
    train(child, own)
    assert not (own / KEPT_WEIGHTS).exists()
    assert not (own / KEPT_RECORD).exists()


def test_a_done_parent_without_weights_is_said_before_anything_trains(tmp_path: Path) -> None:
    parent = make_tiny_run()
    child = masked_run(parent)
    its = write_run(tmp_path, parent)
    study, where = RunCollection((parent, child), tmp_path), Resources(1, Runtime())
    for start in (
        lambda: Plan(study, [child], Local(Machine()), where).train(lambda: None),
        lambda: train(child, study.path(child)),
    ):
        with pytest.raises(ParentError) as caught:
            start()
        advice = f"restore it, or remove {its} and train that run again"
        assert str(caught.value).endswith(advice)
        assert "\n" not in str(caught.value)
