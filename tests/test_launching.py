"""From a request to runs, and from runs to processes that may die."""

import os
import signal
import time
from pathlib import Path

import pytest
from conftest import make_tiny_run
from test_engine import assert_same

from convnext_study import records
from convnext_study.errors import BadRequest
from convnext_study.launching import study as study_module
from convnext_study.launching.local import Job, Pool
from convnext_study.launching.machine import cores, make_plan, pick_device
from convnext_study.launching.runs import choose_points, parse_seeds, roadmap_runs
from convnext_study.launching.study import Study, train_all
from convnext_study.records import Run
from convnext_study.roadmap import StepError, get_roadmap
from convnext_study.training.engine import train
from convnext_study.training.run import RunFolder
from convnext_study.training.task import Machine

NANO = get_roadmap("nano")


def test_seeds() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("0,4,7") == (0, 4, 7)
    for text in ("", "0", "-1", "a", "1,1", "1,-2"):
        with pytest.raises(BadRequest, match="seed"):
            parse_seeds(text)


def test_points() -> None:
    assert len(choose_points(NANO, None)) == 17
    assert [p.name for p in choose_points(NANO, "gelu, resnet")] == ["resnet", "gelu"]
    with pytest.raises(StepError, match="did you mean gelu"):
        choose_points(NANO, "gellu")
    with pytest.raises(BadRequest, match="names no step"):
        choose_points(NANO, ",")


def test_runs_of_the_default_road_map() -> None:
    runs = roadmap_runs(NANO, NANO.points(), data="digits", seeds=[0])
    assert len({run.key for run in runs}) == 17
    assert [run.recipe["name"] for run in runs][:3] == ["classic-small", *["modern-small"] * 2]
    assert {run.recipe["name"] for run in runs[1:]} == {"modern-small"}


def test_runs_of_the_papers_road_map() -> None:
    road = get_roadmap("t")
    runs = roadmap_runs(road, road.points(), data="folder:/data", seeds=[0, 1])
    assert [run.recipe["name"] for run in runs[:2]] == ["classic", "modern"]
    assert runs[0].recipe["image_size"] == 224
    assert len(runs) == 34


def test_a_folder_of_images_is_seen_at_the_roads_size() -> None:
    points = [NANO.point("gelu")]
    for given, size in (({}, 32), ({"image_size": None}, 32), ({"image_size": 48}, 48)):
        (run,) = roadmap_runs(NANO, points, data="folder:x", seeds=[0], changes=given)
        assert run.recipe["image_size"] == size


def test_what_decides_a_run_is_its_key() -> None:
    (one,) = roadmap_runs(NANO, [NANO.point("gelu")], data="digits", seeds=[0])
    assert one.model_copy(update={"facts": {}, "name": "other", "study": "x"}).key == one.key
    for change in ({"seed": 1}, {"data": "folder:x"}, {"recipe": {**one.recipe, "lr": 1.0}}):
        assert one.model_copy(update=change).key != one.key
    assert Run.model_validate_json(one.model_dump_json()).key == one.key


def test_the_machine_is_shared_out() -> None:
    small = make_plan(Machine(), image_size=32, runs=17, device="cpu")
    assert (small.jobs, small.machine.threads) == (cores(), 1)
    large = make_plan(Machine(), image_size=224, runs=17, device="cpu")
    assert (large.jobs, large.machine.threads) == (1, cores())
    assert make_plan(Machine(), image_size=32, runs=1, device="cpu").jobs == 1
    # What decides rounding must not depend on how many run at a time.
    assert make_plan(Machine(), image_size=32, runs=17, device="cpu", jobs=1).machine.threads == 1


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(BadRequest, match=r"device: 'tpu' is not on this machine; there is .*cpu"):
        pick_device("tpu")


def make_study(folder: Path, count: int = 2) -> Study:
    runs = tuple(make_tiny_run().model_copy(update={"seed": seed}) for seed in range(count))
    return Study(runs, folder)


def test_side_by_side_is_the_same_as_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    plan = make_plan(Machine(), image_size=32, runs=2, device="cpu", jobs=2)
    outcomes = train_all(study, plan, lambda: None)
    assert {outcome.status for outcome in outcomes} == {"done"}
    train(study.runs[1], tmp_path / "alone")
    assert_same(study.path(study.runs[1]), tmp_path / "alone")
    assert train_all(study, plan, lambda: None) == []


def test_a_run_in_use_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "PATIENCE", 0.5)
    study = make_study(tmp_path)
    plan = make_plan(Machine(), image_size=32, runs=2, device="cpu")
    with (
        RunFolder(study.path(study.runs[1]), study.runs[1]),
        pytest.raises(BadRequest, match="another process works on this run"),
    ):
        train_all(study, plan, lambda: None)
    assert not study.path(study.runs[0]).exists()


def test_a_killed_process_takes_only_its_run(tmp_path: Path) -> None:
    runs = [make_tiny_run(epochs=30), make_tiny_run().model_copy(update={"seed": 1})]
    jobs = [Job(run, tmp_path / run.id, Machine()) for run in runs]
    log = tmp_path / runs[0].id / records.LOG
    killed: list[int] = []

    def kill_the_first() -> None:
        if not killed and log.exists() and '"epoch"' in log.read_text():
            process = (log.parent / records.LOCK).read_text().split()[1]
            killed.append(int(process))
            os.kill(int(process), signal.SIGKILL)

    outcomes = Pool(1, kill_the_first).run(jobs)
    assert killed
    assert [(one.run.id, one.status) for one in outcomes] == [
        (runs[0].id, "failed"),
        (runs[1].id, "done"),
    ]
    assert "SIGKILL" in outcomes[0].reason
    assert records.read(tmp_path / runs[0].id).status == "unfinished"


def test_a_failing_run_does_not_stop_the_others(tmp_path: Path) -> None:
    runs = [make_tiny_run(lr=1e30, optimizer="sgd"), make_tiny_run()]
    outcomes = Pool(1).run([Job(run, tmp_path / run.id, Machine()) for run in runs])
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "loss is" in outcomes[0].reason


def test_an_interrupt_saves_and_stops(tmp_path: Path) -> None:
    runs = [make_tiny_run(epochs=200).model_copy(update={"seed": seed}) for seed in (0, 1)]
    jobs = [Job(run, tmp_path / run.id, Machine()) for run in runs]
    log = tmp_path / runs[0].id / records.LOG

    def interrupt() -> None:
        if log.exists() and '"epoch"' in log.read_text():
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    began = time.monotonic()
    outcomes = Pool(1, interrupt).run(jobs)
    assert [outcome.status for outcome in outcomes] == ["stopped", "stopped"]
    assert (tmp_path / runs[0].id / records.CHECKPOINT).exists()
    assert time.monotonic() - began < 120
    assert signal.getsignal(signal.SIGINT) is before


def test_wandb_modes(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="wandb: 'on'; use one of off, offline, online"):
        Study((), tmp_path, "on")
