"""From records to rows, tables and files. Expected numbers are worked out by hand or by scipy."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest
from support.fakes import fake_run, fake_runs, write_run, write_study

from convnext_study.report.tables.results import write_results
from convnext_study.report.text import summary
from convnext_study.results.effects import detectable_note, pooled_std
from convnext_study.results.load import load_results
from convnext_study.results.rows import ResultRow, study_title
from convnext_study.results.statistics.power import detectable_effect
from convnext_study.results.summary import summarize
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import PAPER
from convnext_study.runs.files import RUN, write_json
from convnext_study.runs.records import Run, TaskRef, scan

NANO = get_roadmap("nano")


def rows_of(folder: Path, requested: list[Run] | None = None) -> dict[str, ResultRow]:
    return {row.name: row for row in summarize(scan(folder), requested or [])}


def write_point(folder: Path, name: str, seed: int = 0, **how: Any) -> Run:
    recipe = how.pop("recipe", {})
    run = fake_run(NANO.variant(name), seed, data=how.pop("data", "digits"), **recipe)
    write_run(folder, run, **how)
    return run


# Rows


def test_mean_deviation_and_gain_over_seeds(tmp_path: Path) -> None:
    # Of 100 images: 90, 92, 97 right; mean 93, squares 9 + 1 + 16 over 2.
    for seed, (parent, child) in enumerate([(80, 90), (84, 92), (82, 97)]):
        write_point(tmp_path, "kernel_7", seed, top1=parent, result={"val_images": 100})
        speed = {"val_images": 100, "images_per_s": [10.0, 30.0, 100.0][seed]}
        write_point(tmp_path, "gelu", seed, top1=child, result=speed)
    row = rows_of(tmp_path)["gelu"]
    assert row.seeds == {0: 90, 1: 92, 2: 97}
    assert row.value == pytest.approx(93)
    assert row.std == pytest.approx(math.sqrt(13))
    assert row.gain == pytest.approx(93 - 82)
    assert row.images_per_s == 30
    assert (row.seeds_requested, row.statuses, row.state) == (3, {"done": 3}, "done")


@pytest.mark.parametrize(("right", "images"), [(0, 10), (590, 599), (599, 599), (40_000, 50_000)])
def test_interval_is_wilsons(tmp_path: Path, right: int, images: int) -> None:
    write_point(tmp_path, "gelu", top1=100 * right / images, result={"val_images": images})
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    row = rows_of(tmp_path)["gelu"]
    assert (row.std, row.gain) == (None, None)  # of one seed, whose parent was not run
    assert row.interval == pytest.approx((100 * expected.low, 100 * expected.high))
    assert row.interval_method == "Wilson"


def test_rows_stand_in_the_roads_order_and_show_what_is_missing(tmp_path: Path) -> None:
    runs = fake_runs(seeds=(0, 1))
    write_study(tmp_path, runs[5:20], status={"gelu": "failed", "layer_norm": "unfinished"})
    rows = summarize(scan(tmp_path), runs)
    assert [row.name for row in rows] == [point.name for point in NANO.variants()]
    by_name = {row.name: row for row in rows}
    assert by_name["stage_ratio"].statuses == {"done": 1, "new": 1}
    assert by_name["depthwise_conv"].state == "not run"
    assert by_name["gelu"].state == "failed"
    assert by_name["layer_norm"].state == "unfinished"
    assert by_name["gelu"].value is None
    assert by_name["fewer_activations"].gain is None

    bare = fake_run(NANO.variant("gelu")).model_copy(update={"name": "mine", "metadata": {}})
    write_run(tmp_path, bare)
    mine = summarize(scan(tmp_path))[-1]
    assert (mine.name, mine.label, mine.adopted, mine.section) == ("mine", "mine", True, None)


@pytest.mark.parametrize("regime", ["t", "b"])
def test_the_papers_numbers_are_the_papers(tmp_path: Path, regime: str) -> None:
    runs = fake_runs(regime)
    write_study(tmp_path, runs)
    # Published steps elsewhere, say one left out of ConvNeXt-T, have no numbers of the paper.
    metadata = {**runs[12].metadata, "published": False}
    elsewhere = runs[12].model_copy(update={"name": "elsewhere", "metadata": metadata})
    write_run(tmp_path, elsewhere)
    rows = rows_of(tmp_path)
    assert rows.pop("elsewhere").paper_value is None
    for name, row in rows.items():
        assert row.paper_value == PAPER[regime][name].top1
        assert row.paper_gflops == PAPER[regime][name].gflops


# What may be averaged


def note_data(folder: Path, run: Run, images: int, digest: str = "a") -> None:
    """As a training does that finds so many images."""
    path = folder / "runs" / run.id / RUN
    part = {"images": images, "names": digest}
    write_json(path, {**json.loads(path.read_text()), "data": {"classes": 2, "train": part}})


@pytest.mark.parametrize("is_identified", [True, False])
def test_runs_on_data_that_has_changed_are_left_out_with_the_reason(
    tmp_path: Path, is_identified: bool
) -> None:
    asked = []
    for seed, (images, digest) in enumerate(((160, "a"), (159, "b"), (159, "b"), (159, "c"))):
        run = fake_run(get_roadmap("nano").variant("gelu"), seed, data="folder:cls")
        if is_identified:  # as the command line does it: the key tells, too
            run = run.model_copy(update={"data_id": f"folder:#{images}{digest}"})
        write_run(tmp_path, run)
        note_data(tmp_path, run, images, digest)
        asked.append(run)
    row = rows_of(tmp_path)["gelu"]
    assert list(row.seeds) == [1, 2]
    reasons = {one.run: one.reason for one in row.excluded}
    rest = "in the runs that are counted"
    assert reasons == {
        asked[0].id: f"other data: train has 160 images, 159 {rest}",
        asked[3].id: f"other data: train has 159 images as {rest}, but under other names",
    }
    if is_identified:  # what is asked for now is kept, however few there are
        assert list(rows_of(tmp_path, asked[:1])["gelu"].seeds) == [0]
    # And rows on the one and on the other are not compared.
    run = fake_run(NANO.variant("fewer_activations"), data="folder:cls")
    write_run(tmp_path, run)
    note_data(tmp_path, run, 160)
    row = rows_of(tmp_path)["fewer_activations"]
    assert (row.gain, row.remarks) == (None, ("not compared with gelu: other data",))


def test_data_that_was_moved_is_one_data_set(tmp_path: Path) -> None:
    for seed, place in enumerate(("folder:/a/cls", "folder:/b/cls2")):
        for name in ("gelu", "fewer_activations"):
            run = fake_run(get_roadmap("nano").variant(name), seed, data=place)
            run = run.model_copy(update={"data_id": "folder:#ab"})
            write_run(tmp_path, run)
            note_data(tmp_path, run, 160)
    rows = rows_of(tmp_path)
    assert [list(row.seeds) for row in rows.values()] == [[0, 1]] * 2
    assert rows["fewer_activations"].gain is not None
    assert "," not in study_title([*rows.values()]).data


def test_what_was_asked_for_is_kept_even_if_it_is_rare(tmp_path: Path) -> None:
    write_study(tmp_path, fake_runs(), spread=0)
    short = write_point(tmp_path, "gelu", recipe={"epochs": 2}, top1=50)
    row = rows_of(tmp_path, [short])["gelu"]
    assert row.epochs == 2
    assert row.value == pytest.approx(50, abs=0.1)
    assert [one.reason for one in row.excluded] == ["recipe epochs: 10, not 2"]
    # It stands beside rows of ten epochs, with which it is not to be compared.
    assert row.gain is None
    assert row.remarks == ("not compared with kernel_7: other recipe (modern-small)",)


def test_another_network_and_the_same_run_again_are_left_out(tmp_path: Path) -> None:
    runs = [fake_run(NANO.variant("gelu"), seed) for seed in (0, 1)]
    write_study(tmp_path, runs)
    model = runs[0].model
    wider = model.model_copy(update={"args": {**model.args, "width": 999}})
    write_run(tmp_path, runs[0].model_copy(update={"model": wider}))
    shutil.copytree(tmp_path / "runs" / runs[1].id, tmp_path / "copy")
    row = rows_of(tmp_path)["gelu"]
    assert (len(row.seeds), row.seeds_requested) == (2, 2)
    assert {one.reason for one in row.excluded} == {
        "model width: 999, not 12",
        "seed 1 is counted from another folder",
    }


@pytest.mark.parametrize(
    ("change", "may_differ", "other"),
    [
        ({"epochs": 3}, "recipe", None),
        ({"epochs": 3}, "recipe.epochs", None),
        ({"epochs": 3}, "recipe.lr", "recipe (modern-small)"),
        ({"epochs": 3}, "task", "recipe (modern-small)"),
        ({"task": TaskRef(name="segmentation")}, None, "task (classification)"),
        ({"data": "cifar10:here"}, None, "data"),
    ],
)
def test_a_row_is_compared_where_it_may_differ(
    tmp_path: Path, change: dict[str, Any], may_differ: str | None, other: str | None
) -> None:
    write_point(tmp_path, "kernel_7")
    task = {"task": change.pop("task")} if "task" in change else {}
    run = fake_run(NANO.variant("gelu"), **change)
    facts = {**run.metadata, **({"may_differ": [may_differ]} if may_differ else {})}
    write_run(tmp_path, run.model_copy(update={"metadata": facts, **task}))
    row = rows_of(tmp_path)["gelu"]
    assert (row.gain is None) == bool(other)
    assert row.remarks == ((f"not compared with kernel_7: other {other}",) if other else ())


def test_rows_that_start_from_other_runs_are_compared_where_they_may(tmp_path: Path) -> None:
    for seed in (0, 1):  # each seed starts from its own
        origin = write_point(tmp_path, "stage_ratio", seed)
        write_point(tmp_path, "kernel_7", seed)
        run = fake_run(NANO.variant("gelu"), seed)
        write_run(tmp_path, run.model_copy(update={"init_from": origin.key}))
    row = rows_of(tmp_path)["gelu"]
    assert set(row.seeds) == {0, 1} and row.excluded == ()
    assert row.remarks == ("not compared with kernel_7: it starts from scratch",)
    tuned = fake_run(NANO.variant("fewer_activations"))
    tuned = tuned.model_copy(
        update={"init_from": origin.key, "metadata": {**tuned.metadata, "parent": "kernel_7"}}
    )
    may = tuned.model_copy(update={"metadata": {**tuned.metadata, "may_differ": "init_from"}})
    write_run(tmp_path, may)
    assert rows_of(tmp_path)["fewer_activations"].gain is not None


# Noise


def test_what_several_seeds_detect(tmp_path: Path) -> None:
    for seed, right in enumerate((96, 98)):  # deviation sqrt(2), twice
        for name in ("kernel_7", "gelu"):
            write_point(tmp_path, name, seed, top1=right, result={"val_images": 100})
    rows = summarize(scan(tmp_path))
    pooled = pooled_std(rows, "rows")
    assert pooled and pooled.std == pytest.approx(math.sqrt(2)) and pooled.df == 2
    assert pooled.source == "2 rows"
    note = detectable_note(rows)
    effect = detectable_effect(2, math.sqrt(2), tests=1)
    assert f"detects a true difference of {effect:.1f} points in 80 % of studies" in note
    assert "Two seeds find next to nothing" in note


def test_nothing_done_or_one_seed_detects_nothing(tmp_path: Path) -> None:
    run = write_point(tmp_path, "gelu", top1=100)
    assert detectable_note(summarize([], [run])).startswith("No run is finished yet")
    assert "nothing is tested" in detectable_note(summarize(scan(tmp_path)))
    write_point(tmp_path, "kernel_7")
    assert detectable_note(summarize(scan(tmp_path))).startswith("One seed per row, so nothing is")


def test_rows_on_other_numbers_of_test_images_are_not_compared(tmp_path: Path) -> None:
    for seed, images in enumerate((599, 598, 599)):  # an image could not be read once
        write_point(tmp_path, "kernel_7", seed, top1=90)
        write_point(tmp_path, "gelu", seed, top1=95, result={"val_images": images})
    gelu = rows_of(tmp_path)["gelu"]
    assert gelu.gain is None
    assert gelu.remarks == ("not compared with kernel_7: other data (598 and 599 test images)",)
    (study,) = load_results(tmp_path).studies
    assert not [line for line in summary(study) if "One seed" in line or "points" in line]


def test_a_row_with_one_seed_between_others_is_called_that(tmp_path: Path) -> None:
    write_point(tmp_path, "kernel_7", top1=90)
    for seed in range(3):
        write_point(tmp_path, "gelu", seed, top1=95 + seed)
    assert detectable_note(summarize(scan(tmp_path))).startswith("No two compared rows have two")


# Rows picked from a road


def test_picked_rows_are_compared_with_the_nearest_earlier_row_that_is_there(
    tmp_path: Path,
) -> None:
    asked = ("stage_ratio", "gelu", "separate_downsampling")
    runs = [fake_run(NANO.variant(name), seed) for seed in (0, 1, 2) for name in asked]
    write_study(tmp_path, runs)
    rows = rows_of(tmp_path)
    assert [row.parent for row in rows.values()] == ["resnet", "stage_ratio", "gelu"]
    assert rows["stage_ratio"].gain is None
    for name in asked[1:]:
        assert rows[name].gain is not None and rows[name].significant is not None


def test_a_row_picked_behind_the_change_of_recipe_may_differ_in_it(tmp_path: Path) -> None:
    write_study(tmp_path, [fake_run(NANO.variant(name)) for name in ("resnet-90ep", "gelu")])
    row = rows_of(tmp_path)["gelu"]
    assert (row.parent, row.remarks) == ("resnet-90ep", ())
    assert row.gain is not None


# Files


def test_results_are_written_for_machines(tmp_path: Path) -> None:
    runs = fake_runs(seeds=(0, 1))
    write_study(tmp_path, runs, status={"gelu": "new"})
    rows = summarize(scan(tmp_path), runs)
    paths = write_results(tmp_path, rows, "a title")
    written = json.loads(paths[0].read_text())
    assert (written["title"], written["notes"]) == ("a title", [detectable_note(rows)])
    objects = {one["name"]: one for one in written["rows"]}
    assert list(objects) == [row.name for row in rows]
    one = objects["layer_norm"]
    assert set(one["seeds"]) == {"0", "1"}
    assert (one["data"], one["recipe"], one["epochs"]) == ("digits", "modern-small", 10)
    assert one["provenance"][0]["versions"]["torch"] == "2.14.1"
    with paths[1].open() as file:
        lines = {line["name"]: line for line in csv.DictReader(file)}
    assert float(lines["layer_norm"]["ci_low"]) == pytest.approx(one["ci_low"])
    assert lines["gelu"]["value"] == "" and objects["gelu"]["state"] == "not run"
    assert {path.name for path in tmp_path.iterdir()} == {"runs", *(path.name for path in paths)}
