"""The study's arms: their runs, and what the two controls do."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.dense import make_pairs
from support.training import assert_same, cut_off

from convnext_study.data.dataset import DataError
from convnext_study.errors import UserError
from convnext_study.imports import TaskError
from convnext_study.models.builders import get_builder
from convnext_study.report.tables import Table
from convnext_study.runs.metrics import Metric
from convnext_study.runs.records import Result, Run, read, scan
from convnext_study.studies.anytime.arms import (
    AUXILIARY,
    DEMONSTRATED,
    SMALL_STEPS,
    arms_of,
    runs_of,
)
from convnext_study.studies.anytime.findings import findings
from convnext_study.studies.anytime.segmentation import last_exit_alone, shares_of
from convnext_study.studies.anytime.spec import published
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Parent
from convnext_study.training.tasks import make_task

TINY = "digit-canvas:32,16,6"
NARROW = "hrnet_digits_narrow"
CHANGES = {"epochs": 2, "global_batch_size": 8}


def tiny(arm: str, seed: int = 0) -> Run:
    runs = runs_of(TINY, [seed], None, CHANGES, [NARROW])
    return next(run for run in runs if run.metadata["row"] == arm)


def test_every_arm_is_a_run_of_its_own() -> None:
    runs = runs_of("digit-canvas", (0, 1))
    assert len({run.key for run in runs}) == len({run.id for run in runs}) == len(runs) == 16
    assert [run.name for run in runs[:8]] == [
        *("plain", "plain_narrow", "plain_wide", "deep", "ee", "rh", "ca", "random"),
    ]
    for run in runs:
        get_builder(run.model.builder)  # known
        assert run.task.args["class_weights"][0] < run.task.args["class_weights"][1]
    # Random masks wait for the adaptive network of their seed.
    adaptive = {run.seed: run.key for run in runs if run.name == "ca"}
    for run in runs:
        assert run.init_from == (adaptive[run.seed] if run.name == "random" else None)


def test_signs_have_five_arms_and_steps_do_not_depend_on_the_images(tmp_path: Path) -> None:
    signs, tuned = runs_of("digit-signs", (0,)), runs_of("digit-signs:tune", (0,))
    assert [run.name for run in signs] == [run.name for run in tuned] == [*DEMONSTRATED]
    assert all(run.recipe["lr"] > runs_of(TINY, (0,))[0].recipe["lr"] for run in signs)
    for data, images, batch in (
        ("digit-signs", 1000, 8),
        ("digit-canvas", 2000, 16),
        (f"pairs:{make_pairs(tmp_path, 24)}", 24, 16),
    ):
        recipe = runs_of(data, (0,))[0].recipe
        assert recipe["global_batch_size"] == batch
        assert recipe["epochs"] * (images // batch) == SMALL_STEPS


@pytest.mark.parametrize(
    ("data", "backbones", "message"),
    [
        ("clutter:hard", [], r"has a class for every image.*; use digit-canvas.*, cityscapes:PATH"),
        ("digitcanvas", [], "did you mean digit-canvas"),
        ("digit-canvas", ["convnext_ato"], r"^backbone convnext_ato: .*did you mean convnext_atto"),
    ],
)
def test_bad_data_and_backbones_are_one_line_before_anything_runs(
    data: str, backbones: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        runs_of(data, (0,), backbones=backbones)
    assert "\n" not in str(caught.value)


def test_cityscapes_is_trained_as_published() -> None:
    stated = published()["recipe"]
    runs = runs_of("cityscapes:/data", (0,))
    assert {run.recipe["epochs"] for run in runs} == {stated["epochs"]}
    assert {run.model.args["backbone"] for run in runs} == {"hrnet_w18_small_v2", "hrnet_w48"}
    assert all(run.model.args["pretrained"] for run in runs)
    for run in runs:
        assert run.task.args["crop"] == stated["crop"]
        assert len(run.task.args["class_weights"]) == 19
        assert (min(run.task.args["scales"]), max(run.task.args["scales"])) == (0.5, 2.1)
    road = runs_of("cityscapes:/data", (0,), backbones=["roadmap_nano_gelu"])
    assert not any(run.model.args.get("pretrained") for run in road)  # there are no such weights
    small = runs_of("cityscapes:/data", (0,), "small", {"epochs": 1})
    assert {run.recipe["epochs"] for run in small} == {1}
    with pytest.raises(DataError, match="/data"):  # its epochs follow from the images
        runs_of("cityscapes:/data", (0,), "small")


def test_any_backbone_has_arms_of_its_own_names() -> None:
    runs = runs_of("digit-canvas", (0,), backbones=("convnext_atto", "resnet18"))
    assert len(runs) == 2 * len(arms_of("resnet18"))
    assert {run.model.args["backbone"] for run in runs} == {"convnext_atto", "resnet18"}
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    parents = {run.metadata["parent"] for run in runs} - {None}
    assert parents <= set(names)


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the trained network with one exit."""
    run = tiny("plain")
    folder = tmp_path_factory.mktemp("plain") / run.id
    train(run, folder)
    return folder


def test_deep_supervision_answers_once_and_leaves_its_heads_behind(
    tmp_path: Path, plain_folder: Path
) -> None:
    run, plain = tiny("deep"), tiny("plain")
    assert run.task.args["exit_weights"] == [AUXILIARY] * 3 + [1.0]
    result, other = train(run, tmp_path / "deep"), read(plain_folder).result
    assert other is not None
    assert list(result.costs) == ["network"]
    assert result.cost == other.cost
    assert result.metrics["macs_exit1"].value == other.metrics["macs_exit1"].value
    assert result.metrics.keys() == other.metrics.keys()
    assert result.metrics["miou"].label == other.metrics["miou"].label
    task = make_task(run, Runtime())
    net = task.build().eval()
    whole = task.evaluate(net).metrics
    alone = make_task(plain, Runtime()).evaluate(last_exit_alone(net)).metrics  # type: ignore[arg-type]
    assert whole["miou"] == alone["miou"]


def share(result: Result, exit: int) -> float:
    """Of the positions that an exit computed; nothing is kept of all of them."""
    metric = result.metrics.get(f"computed_exit{exit}")
    return 1.0 if metric is None else metric.value / 100


def adaptive_and_random(threshold: float) -> tuple[Run, Run]:
    """The two runs, with a threshold that untrained networks reach at some positions."""
    adaptive, chance = tiny("ca"), tiny("random")
    args = {**adaptive.model.args, "threshold": threshold}
    model = adaptive.model.model_copy(update={"args": args})
    adaptive = adaptive.model_copy(update={"model": model})
    return adaptive, chance.model_copy(update={"init_from": adaptive.key})


def test_random_masks_take_the_shares_and_resume_bit_for_bit(tmp_path: Path) -> None:
    adaptive, chance = adaptive_and_random(0.24)
    first = train(adaptive, tmp_path / "study" / "runs" / adaptive.id)
    whole, parts = tmp_path / "study" / "runs" / chance.id, tmp_path / "other" / "runs" / chance.id
    result = train(chance, whole)
    wanted = [share(first, exit) for exit in (2, 3, 4)]
    assert 0 < wanted[-1] < wanted[0]
    assert result.model is not None
    assert result.model.args["random_shares"] == wanted
    found = [share(result, exit) for exit in (2, 3, 4)]
    assert found == pytest.approx(wanted, abs=0.1)  # 6 images of 8x8 positions each

    cut_off(chance, parts, 3)
    assert train(chance, parts).metrics == result.metrics
    assert_same(whole, parts)


def test_shares_that_are_not_there_are_one_line(plain_folder: Path) -> None:
    record = read(plain_folder)
    with pytest.raises(TaskError, match="has no shares for 4 exits"):
        shares_of(Parent(record, record.folder), 4)
    result = record.result
    assert result is not None
    macs = Metric(value=1.0, label="MACs", unit="")
    dense = result.model_copy(update={"metrics": {**result.metrics, "macs_exit4": macs}})
    parent = Parent(record.model_copy(update={"result": dense}), record.folder)
    assert shares_of(parent, 4) == (1, 1, 1)


def test_joints_have_arms_of_their_own() -> None:
    runs = runs_of("mpii:PATH", (0,))
    assert [run.name for run in runs] == ["plain", "ee", "rh", "ca"]
    assert {run.task.name for run in runs} == {"anytime-pose"}
    assert {run.model.args["backbone"] for run in runs} == {"hrnet_w32"}
    assert all(run.model.args["pretrained"] for run in runs)
    assert (runs[0].recipe["epochs"], runs[0].recipe["milestones"]) == (210, [170, 200])
    assert "hrnet_w32" not in {run.model.args.get("backbone") for run in runs_of("figures", (0,))}


def test_joints_are_found_at_every_exit_and_what_is_skipped_is_counted(tmp_path: Path) -> None:
    runs = runs_of("figures:32,16,6", (0,), None, CHANGES, [NARROW])
    for run in runs:
        if run.name in ("plain", "ca"):
            train(run, tmp_path / "runs" / run.id)
    records = [record for record in scan(tmp_path / "runs") if record.result]
    adaptive = next(one.result for one in records if one.run.name == "ca" and one.result)
    assert adaptive.primary == "pckh"
    assert {f"pckh_exit{exit}" for exit in range(1, 5)} < set(adaptive.metrics)
    found = {one.name: one for one in findings(records) if isinstance(one, Table)}
    rows = [row for row in found["anytime_exits"].records() if row["arm"] == "ca"]
    assert [row["exit"] for row in rows] == [1, 2, 3, 4]
    wanted = [adaptive.metrics[f"pckh_exit{exit}"].value for exit in range(1, 5)]
    assert [row["pckh"] for row in rows] == pytest.approx(wanted, abs=1e-5)
    swept = found["anytime_thresholds"].records()
    assert swept[0]["macs_exit4"] == rows[3]["dense"] >= swept[-1]["macs_exit4"]
    assert [row["claim"] for row in found["anytime_claims"].records()] == ["3: CA over one exit"]
