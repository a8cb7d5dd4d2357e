"""From a request to runs, and from runs to processes that may die."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from support.fakes import write_run
from support.images import make_folder
from support.runs import make_tiny_run
from support.training import assert_same

from convnext_study.cli import run_study
from convnext_study.cli.options import StudyOptions
from convnext_study.errors import EXIT_FAILED, EXIT_STOPPED, Busy, UserError
from convnext_study.experiments.plan import RunCollection, plan
from convnext_study.experiments.roadmap_runs import choose_variants, parse_seeds, roadmap_runs
from convnext_study.launchers import resources as machine_module
from convnext_study.launchers.graph import Job, Outcome
from convnext_study.launchers.local import Local, Pool
from convnext_study.launchers.resources import Machine, Node, choose_resources, pick_device
from convnext_study.launchers.slurm.cluster import read_cluster
from convnext_study.launchers.slurm.submit import fit_to_node
from convnext_study.launchers.worker import train_job
from convnext_study.roadmap import get_roadmap
from convnext_study.runs import folder as folders
from convnext_study.runs import records
from convnext_study.runs.files import CHECKPOINT, LOCK, LOG
from convnext_study.runs.folder import RunFolder
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

NANO = get_roadmap("nano")


def test_seeds() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("0,4,7") == (0, 4, 7)
    assert parse_seeds("1000")[-1] == 999 and parse_seeds("7,1000000007") == (7, 1000000007)
    endless = ("1000000000", "9" * 30, f"0,{2**63}", "9" * 5000)
    for text in ("", "0", "-1", "a", "1,1", "1,-2", *endless):
        with pytest.raises(UserError, match=r"^seeds: .{,200}$"):
            parse_seeds(text)


def test_rows_and_their_recipes() -> None:
    assert [one.name for one in choose_variants(NANO, "gelu, resnet")] == ["resnet", "gelu"]
    runs = roadmap_runs(NANO, choose_variants(NANO, None), data="digits", seeds=[0])
    assert len({run.key for run in runs}) == 17
    assert [run.recipe["name"] for run in runs] == ["classic-small", *["modern-small"] * 16]
    road = get_roadmap("t")
    runs = roadmap_runs(road, road.variants(), data="folder:/data", seeds=[0, 1])
    assert [run.recipe["name"] for run in runs] == ["classic", *["modern"] * 16] * 2
    assert runs[0].recipe["image_size"] == 224


def test_a_folder_of_images_is_seen_at_the_roads_size() -> None:
    variants = [NANO.variant("gelu")]
    for given, size in (({}, 64), ({"image_size": None}, 64), ({"image_size": 48}, 48)):
        (run,) = roadmap_runs(NANO, variants, data="folder:x", seeds=[0], changes=given)
        assert run.recipe["image_size"] == size


FOUR = Node(64, ("cuda:0", "cuda:1", "cuda:2", "cuda:3"))
CPU, CORE = Node(8, ("cpu",)), Node(1, ("cuda",))


@pytest.mark.parametrize(
    ("node", "requested", "images", "expected"),
    [
        # What decides rounding, the threads, must not depend on how many run at a time.
        (CPU, {}, {"image_size": 32}, (8, 1, 0)),
        (CPU, {"jobs": 1}, {"image_size": 32}, (1, 1, 0)),
        (CPU, {}, {"image_size": 32, "runs": 1}, (1, 1, 0)),
        (CPU, {}, {}, (1, 8, 0)),
        # On GPUs one training each, a core for it and the rest for its readers.
        (FOUR, {}, {}, (4, 1, 15)),
        (FOUR, {"jobs": 8}, {}, (8, 1, 7)),
        (FOUR, {"jobs": 1}, {}, (1, 64 - 16, 16)),
        (FOUR, {"workers": 2}, {}, (4, 14, 2)),
        (FOUR, {"workers": 0, "threads": 3}, {}, (4, 3, 0)),
        (FOUR, {"jobs": 1}, {"processes": 4}, (1, 1, 15)),
        (CORE, {}, {}, (1, 1, 1)),  # a GPU waits for one core's images
        (FOUR, {}, {"from_files": False}, (4, 16, 0)),
        (CORE, {"deterministic": True, "tf32": True, "cudnn_benchmark": True}, {}, (1, 1, 1)),
    ],
)
def test_a_machine_is_shared_out(
    node: Node, requested: dict[str, Any], images: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    about: dict[str, Any] = {"image_size": 224, "runs": 17, "from_files": True, **images}
    found = choose_resources(Machine(**requested), node=node, **about)
    assert (found.jobs, found.runtime.threads, found.runtime.workers) == expected
    assert all(getattr(found.runtime, name, value) == value for name, value in requested.items())
    several = len(node.devices) > 1
    assert found.devices == (node.devices if several else ())
    assert found.runtime.device == ("cuda" if several else node.devices[0])


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == "cuda:1"
    assert machine_module.this_node("cuda").devices == ("cuda:0", "cuda:1")
    assert machine_module.this_node("cuda:1").devices == ("cuda:1",)
    for device in ("cuda:2", "cuda:x"):
        with pytest.raises(UserError, match=f"'{device}'; the GPUs here are cuda:0 to cuda:1"):
            pick_device(device)


@pytest.mark.parametrize("gpus", [0, 1])
def test_threads_are_those_of_the_node_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    monkeypatch.setattr(machine_module, "cores", lambda: 2)  # of a login node
    site, data = tmp_path / "site.toml", f"folder:{make_folder(tmp_path / 'data')}"
    site.write_text(f"minutes = 9\ngpus = {gpus}\ncpus_per_process = 16\n")
    options = Machine(launcher="slurm", cluster=site)
    (run,) = roadmap_runs(NANO, [NANO.variant("gelu")], data=data, seeds=[0])
    run = run.model_copy(update={"recipe": {**run.recipe, "image_size": 128}})
    found = plan(RunCollection((run,), tmp_path), options).resources
    assert found
    fitted = fit_to_node(Job(run, tmp_path, found.runtime), read_cluster(site)).runtime
    assert fitted.device == ("cuda" if gpus else "cpu")
    assert (fitted.threads, fitted.workers) == ((1, 15) if gpus else (16, 0))


def make_study(folder: Path, count: int = 2) -> RunCollection:
    runs = tuple(make_tiny_run().model_copy(update={"seed": seed}) for seed in range(count))
    return RunCollection(runs, folder)


def test_side_by_side_is_the_same_as_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    two = Machine(device="cpu", jobs=2)
    outcomes = plan(study, two).train(lambda: None)
    assert {outcome.status for outcome in outcomes} == {"done"}
    train(study.runs[1], tmp_path / "alone")
    assert_same(study.path(study.runs[1]), tmp_path / "alone")
    assert plan(study, two).train(lambda: None) == []


def test_a_run_that_another_command_trains_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "PATIENCE", 0.2)
    parent = make_tiny_run()
    child = parent.model_copy(update={"name": "child", "init_from": parent.key})
    jobs = [Job(run, tmp_path / "runs" / run.id, Runtime()) for run in (parent, child)]
    with RunFolder(jobs[0].folder, parent):
        status, reason, _ = train_job(jobs[0], lambda: False)
        assert (status, f"process {os.getpid()}" in reason) == ("busy", True)
        assert "\n" not in reason
        # Where the parent is not among the jobs.
        assert train_job(jobs[1], lambda: False)[0] == "busy"
        with pytest.raises(Busy, match="is being trained by another process"):
            plan(RunCollection((child,), tmp_path), Machine(device="cpu")).train(lambda: None)
    assert records.read(jobs[0].folder).events == []
    assert train_job(jobs[1], lambda: False)[0] == "failed"


@pytest.mark.parametrize(
    ("other", "code"),
    [("done", EXIT_STOPPED), ("stopped", EXIT_STOPPED), ("failed", EXIT_FAILED)],
)
def test_the_exit_code_of_a_command_whose_runs_are_busy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    other: str,
    code: int,
) -> None:
    study = make_study(tmp_path)
    busy, run = study.runs
    ends = [Outcome(busy, "busy", "x"), Outcome(run, other, "x")]
    monkeypatch.setattr(Local, "run", lambda *_: ends)
    with pytest.raises(typer.Exit) as left:
        run_study.run_study(study, StudyOptions(device="cpu"))
    assert left.value.exit_code == code
    assert f"{busy.id} is busy: x" in capsys.readouterr().err
    # What the other command has finished in the meantime is not busy any longer.
    write_run(study.folder, busy)
    if other == "done":
        run_study.run_study(study, StudyOptions(device="cpu"))
        assert "busy" not in capsys.readouterr().err


def test_a_killed_or_failing_process_takes_only_its_run_and_an_interrupt_stops_the_rest(
    tmp_path: Path,
) -> None:
    runs = [make_tiny_run(epochs=30), make_tiny_run(lr=1e4, optimizer="sgd"), make_tiny_run()]
    runs += [make_tiny_run(epochs=200), make_tiny_run(epochs=201)]
    jobs = [Job(run, tmp_path / run.id, Runtime()) for run in runs]
    logs = [job.folder / LOG for job in jobs]
    killed: list[int] = []

    def kill_and_interrupt() -> None:
        trained = [log.exists() and '"epoch"' in log.read_text() for log in logs]
        if trained[0] and not killed:
            killed.append(int((jobs[0].folder / LOCK).read_text().split()[0]))
            os.kill(killed[0], signal.SIGKILL)
        if trained[3]:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    outcomes = Pool(1, kill_and_interrupt).run(jobs)
    assert killed and signal.getsignal(signal.SIGINT) is before
    ends = ("failed", "failed", "done", "stopped", "stopped")
    assert [one.run for one in outcomes] == runs
    assert tuple(one.status for one in outcomes) == ends
    assert "SIGKILL" in outcomes[0].reason and "not finite" in outcomes[1].reason
    assert records.read(jobs[0].folder).status == "unfinished"
    assert (jobs[3].folder / CHECKPOINT).exists() and not jobs[4].folder.exists()
