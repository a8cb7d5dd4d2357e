"""Metrics that the package has never heard of, through everything that shows or tests a result."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fakes import fake_run, write_run
from support.pages import on_screen
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.errors import UserError
from convnext_study.experiments.context import Context
from convnext_study.experiments.progress import live_table, plain_line, progress
from convnext_study.report.page import render
from convnext_study.report.page_figures import write_figures
from convnext_study.report.tables.render import Screen, to_latex
from convnext_study.report.tables.results import results_table, terminal_table, write_results
from convnext_study.report.text import ONE_SEED, methods, summary
from convnext_study.results.attribution import leave_one_out_effects
from convnext_study.results.compare import compare
from convnext_study.results.effects import detectable_note
from convnext_study.results.load import load_results
from convnext_study.results.rows import ResultRow
from convnext_study.results.subset_results import group_by_subset
from convnext_study.results.summary import summarize
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.files import LOG
from convnext_study.runs.metrics import Metric, Samples
from convnext_study.runs.records import scan

NANO = get_roadmap("nano")
IMAGES = 120
STEPS = ("fewer_norms", "layer_norm", "separate_downsampling")


def latency(draw: np.random.Generator, gain: float, groups: Any) -> Metric:
    """Milliseconds of each image: lower is better."""
    values = draw.gamma(4.0, 3.0, IMAGES) + 30 - 5 * gain
    samples = Samples.of_values(values, groups)
    return Metric(
        value=float(values.astype("f4").mean()),
        label="latency",
        unit="ms",
        higher_is_better=False,
        samples=samples,
    )


def iou(draw: np.random.Generator, gain: float, groups: Any) -> Metric:
    """Intersections by unions of three classes, in percent."""
    unions = draw.integers(50, 100, (IMAGES, 3))
    shares = np.clip(draw.normal(0.5 + 0.1 * gain, 0.1, (IMAGES, 3)), 0, 1)
    counts = np.stack([(unions * shares).astype(int), unions], axis=-1)
    sums = counts.sum(axis=0)
    return Metric(
        value=100 * float((sums[:, 0] / sums[:, 1]).mean()),
        label="mIoU",
        samples=Samples.of_ratio(counts, groups),
    )


Make = Callable[[np.random.Generator, float, Any], Metric]
METRICS: dict[str, Make] = {"latency": latency, "iou": iou}


def write_study(
    folder: Path, name: str, seeds: int = 1, groups: Any = None, metrics: Any = None
) -> list[ResultRow]:
    """Three rows of the nano road, each better than the one before by a good deal."""
    for seed in range(seeds):
        for place, step in enumerate(STEPS):
            draw = np.random.default_rng([seed, place])
            run = fake_run(NANO.variant(step), seed)
            primary = METRICS[name](draw, place + 0.02 * seed, groups)
            others = {
                f"exit_{exit}": METRICS[name](draw, place - exit, groups).model_copy(
                    update={"samples": None}
                )
                for exit in (1, 2)
            }
            costs = {part: {"macs": 10, "params": 2, "activations": 1} for part in ("exit_1",)}
            costs["network"] = {"macs": 9_000_000 + place, "params": 1000, "activations": 100}
            path = write_run(
                folder,
                run,
                result={
                    "metrics": {name: primary, **others},
                    "primary": name,
                    "costs": costs,
                    "val_images": IMAGES,
                },
            )
            relabel(path / LOG, name, primary)
    return summarize(scan(folder))


def relabel(log: Path, name: str, metric: Metric) -> None:
    """The log as a task with this metric writes it; every other epoch was not evaluated."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if line["event"] == "epoch":
            there = line["epoch"] % 2 == 0
            line |= {"metrics": {name: metric.value} if there else {}}
            line |= {"primary": name if there else "", "label": metric.label, "unit": metric.unit}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))


def on_terminal(rows: list[ResultRow]) -> str:
    return on_screen(Screen(terminal_table(rows)), width=140)


@pytest.mark.parametrize(
    ("name", "heading", "unit", "step_unit"),
    [("latency", "latency ms ↓", "ms", "ms"), ("iou", "mIoU %", "%", "points")],
)
@pytest.mark.usefixtures("plain_page")
def test_a_metric_that_nobody_knows(
    tmp_path: Path, name: str, heading: str, unit: str, step_unit: str
) -> None:
    study = tmp_path / "study"
    rows = write_study(study, name, seeds=3)
    better = [row.value for row in rows if row.value is not None]
    assert len(better) == len(rows)
    assert better == sorted(better, reverse=name == "latency")
    assert all(row.gain is not None and row.gain > 0 for row in rows[1:])  # better, up or down
    assert all(row.significant for row in rows[1:])
    for row in rows:
        assert row.interval_method == "bootstrap" and row.interval and row.value
        assert row.interval[0] < row.value < row.interval[1]

    screen, latex = on_terminal(rows), to_latex(results_table(rows))
    assert heading in screen
    assert heading.replace("%", r"\%").replace("↓", r"$\downarrow$") in latex
    assert f"{rows[0].value:.2f}" in screen and f"{rows[0].value:.2f}" in latex
    assert detectable_note(rows) in " ".join(screen.split()) or step_unit in screen
    written, table = (path.read_text() for path in write_results(tmp_path, rows, "a title"))
    first = next(csv.DictReader(io.StringIO(table)))
    assert (first["metric"], first["unit"]) == (name, unit)
    assert float(first["value"]) == pytest.approx(rows[0].value)
    assert float(first["metric_exit_1"]) == pytest.approx(rows[0].metrics["exit_1"])
    assert first["cost_exit_1_macs"] == "10"
    one = json.loads(written)["rows"][0]
    assert one["metrics"].keys() == {"exit_1", "exit_2"}
    assert one["costs"]["exit_1"]["macs"] == 10

    loaded = load_results(study)
    page = unescape(render(loaded).html)
    assert heading in page and f"{step_unit}, " in page
    for text in (screen, latex, table, written, page):
        assert "accuracy" not in text.lower().replace("imagenet-1k accuracies", "")
        assert "top-1" not in text and "top1" not in text
    if name == "latency":
        assert "lower latency is better" in screen and "lower latency is better" in page
        assert "points" not in screen.lower()
        assert write_figures(loaded.studies[0], tmp_path)
    words = ["power", "--effect", "1.5", "--study", str(study), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert json.loads(done.stdout)["unit"] == step_unit
    # While it is trained.
    records = list(scan(study))
    second, third = records[0].epochs[1:3]
    assert f"{rows[0].metric.label} {second.value:.2f} {unit}  " in plain_line(
        records[0].run, second
    )
    assert rows[0].metric.label not in plain_line(records[0].run, third)  # not evaluated
    live = live_table(progress(records, [record.run for record in records]))
    assert heading in on_screen(live, width=100)


@pytest.mark.parametrize("name", [*METRICS])
def test_one_seed_has_intervals_of_its_images_and_no_test(tmp_path: Path, name: str) -> None:
    write_study(tmp_path, name)
    study = load_results(tmp_path).studies[0]
    for row in study.rows[1:]:
        assert row.significant is None
        found = study.tests.primary[row.name].difference
        assert "bootstrap over 120 test images" in found.method
        assert (found.diff > 0) == (name == "iou") and found.p is None
        assert found.interval.low < found.diff < found.interval.high
    assert any(line.startswith(ONE_SEED) for line in methods(study))
    page = unescape(render(load_results(tmp_path)).html)
    assert "nothing is tested and nothing is called significant" in page
    assert "McNemar" not in page and "Wilson" not in page


def test_images_of_one_group_are_told_of(tmp_path: Path) -> None:
    write_study(tmp_path, "iou", groups=np.repeat(np.arange(12), 10))
    study = load_results(tmp_path).studies[0]
    assert {row.image_groups for row in study.rows} == {12}
    assert {row.interval_method for row in study.rows} == {"t, over groups"}
    found = study.tests.primary["layer_norm"].difference
    assert "t interval on jackknife values over 12 groups of test images" in found.method
    page = " ".join(unescape(render(load_results(tmp_path)).html).split())
    assert "another choice of the 12 groups of test images; with so few, they are rough" in page


@pytest.mark.parametrize(("count", "method"), [(20, "t, over groups"), (60, "Wilson, by groups")])
def test_right_and_wrong_answers_in_groups(tmp_path: Path, count: int, method: str) -> None:
    groups = np.repeat(np.arange(count), 30)
    for step, share in (("fewer_norms", 0.6), ("layer_norm", 0.7)):
        bits = np.repeat(np.random.default_rng(7).random(count) < share, 30)
        metric = Metric(
            value=100 * float(bits.mean()), label="hits", samples=Samples.of_bits(bits, groups)
        )
        result = {"metrics": {"hits": metric}, "primary": "hits", "val_images": 30 * count}
        write_run(tmp_path, fake_run(NANO.variant(step)), result=result)
    rows = {row.name: row for row in summarize(scan(tmp_path))}
    row = rows["layer_norm"]
    assert row.interval_method == method and row.interval is not None
    assert row.interval[1] - row.interval[0] > 20  # as of so many images, not of 30 times as many
    assert row.significant is None
    assert f"{count} groups" in detectable_note(list(rows.values()))


def test_without_evidence_only_seeds_tell(tmp_path: Path) -> None:
    def results(folder: Path, seeds: int) -> list[ResultRow]:
        for seed in range(seeds):
            for place, step in enumerate(STEPS[:2]):
                value = 0.31 - 0.05 * place + 0.001 * (seed + place * seed**2)
                metric = Metric(value=value, label="error", unit="", higher_is_better=False)
                result = {"metrics": {"error": metric}, "primary": "error"}
                write_run(folder, fake_run(NANO.variant(step), seed), result=result)
        return summarize(scan(folder))

    rows = results(tmp_path / "one", 1)
    assert [row.interval for row in rows] == [None, None]
    assert rows[1].gain == pytest.approx(0.05) and rows[1].significant is None
    assert detectable_note(rows).startswith("One seed per row")
    assert "0.3100" in on_terminal(rows)
    page = unescape(render(load_results(tmp_path / "one")).html)
    assert "error ↓" in page
    rows = results(tmp_path / "three", 3)
    assert rows[1].significant
    assert "Welch's t test" in detectable_note(rows)


def test_other_metrics_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path, fake_run(NANO.variant("fewer_norms")))
    draw = np.random.default_rng(0)
    changed = {"metrics": {"latency": latency(draw, 0, None)}, "primary": "latency"}
    write_run(tmp_path, fake_run(NANO.variant("layer_norm")), result=changed)
    records = list(scan(tmp_path))
    rows = summarize(records)
    assert rows[1].gain is None
    assert rows[1].remarks == ("not compared with fewer_norms: other metric (top-1)",)
    with pytest.raises(UserError, match="latency and top-1 cannot be compared"):
        compare(records[:1], records[1:])
    screen = on_terminal(rows)
    assert "latency" in screen and "top1" in screen  # a column says whose value it is
    assert render(load_results(tmp_path)).html


def test_an_attribution_is_for_the_better_where_lower_is(tmp_path: Path) -> None:
    context = Context(road=NANO, seeds=(0, 1))
    sets = [set(context.steps) - {left_out} for left_out in ("", "gelu", "layer_norm")]
    for run in context.subsets(sets, "leave_one_out"):
        draw = np.random.default_rng(run.seed)
        metric = latency(draw, 3.0 if run.name == context.last_step else 0.0, None)
        write_run(tmp_path, run, result={"metrics": {"latency": metric}, "primary": "latency"})
    found = leave_one_out_effects(group_by_subset(scan(tmp_path), NANO))
    assert found is not None and len(found.rows) == 2
    for row in found.rows:
        assert row.diff == pytest.approx(15, abs=2)  # ms that are lost without it
        assert row.interval and row.interval.low < row.diff < row.interval.high
    assert "Above 0 is better: a lower latency." in found.notes


def test_sentences_have_the_signs_of_the_table_of_differences(tmp_path: Path) -> None:
    """A metric that falls for the better, too: above 0 for the better are gains alone."""
    for seeds in (1, 3):
        write_study(tmp_path / str(seeds), "latency", seeds)
        (study,) = load_results(tmp_path / str(seeds)).studies
        ends = next(line for line in summary(study) if line.startswith("From"))
        assert f"{study.rows[-1].label}: −" in ends
    said = next(line for line in summary(study) if line.startswith("Of"))
    assert said.count("(−") == 2 and "(+" not in said
