"""The pruning study from its runs to tables, figure and page; and a few of its arms for real."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fakes import write_run
from support.images import make_folder
from support.pruning_runs import context
from typer.testing import CliRunner

from convnext_study.benchmarks.timing import Spread
from convnext_study.cli import app
from convnext_study.report.findings import StudyFigure, write_findings
from convnext_study.report.page import render
from convnext_study.report.tables import Table
from convnext_study.results.claims import PairTest
from convnext_study.results.load import load_results
from convnext_study.runs.files import RUN, write_json
from convnext_study.runs.records import Record, Run, scan
from convnext_study.studies.pruning import costs, plans
from convnext_study.studies.pruning.arms import OF_OTHER_DATA
from convnext_study.studies.pruning.claims import MARGIN, statements
from convnext_study.studies.pruning.figures import front
from convnext_study.studies.pruning.rows import Row, rows_of
from convnext_study.studies.pruning.tables import (
    arms_table,
    findings,
    per_network_table,
    statements_table,
)
from convnext_study.training.loop import train

STUDY = """
from convnext_study.studies.pruning.plans import runs_of
from convnext_study.studies.pruning.tables import findings

DATA = "digits"
NETWORKS = "as the pruning study's"
NAMES = {names!r}


def runs(context):
    return [run for run in runs_of(context) if run.name.partition("-")[2] in NAMES]


def report(records, context):
    return findings(records)
"""


def written(
    folder: Path, runs: Iterable[Run], tops: Mapping[str, float], spread: float = 0.3
) -> list[Record]:
    """Finished records of these runs; ``tops`` by the ends of their names."""
    for run in runs:
        top = next((value for end, value in tops.items() if run.name.endswith(end)), 95.0)
        noise = spread * ((run.seed * 7 + len(run.name)) % 3 - 1)
        write_run(folder, run, top1=top + noise, result={"val_images": 10_000})
        path = folder / "runs" / run.id / RUN
        about = json.loads(path.read_text())
        about["data"] = {"classes": 10, "train": {"images": 1010}, "val": {"images": 787}}
        write_json(path, about)
    return list(scan(folder / "runs"))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return plans.runs_of(context(seeds=(0, 1, 2)))


@pytest.fixture(scope="module")
def halves(runs: list[Run]) -> list[Run]:
    """The large networks, and half of each layer by the L1-norm."""
    return [run for run in runs if run.metadata["target"] in ("", "half")]


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock: every network takes as long as its name is."""

    def measure(rows: Mapping[str, Row]) -> dict[str, Spread]:
        return {name: Spread(len(name) / 100, 0.1, 1.0, 5) for name in rows}

    monkeypatch.setattr("convnext_study.studies.pruning.tables.measure_latency", measure)


def said(rows: Mapping[str, Row], first: str, second: str) -> PairTest[Row]:
    (found,) = [
        one
        for one in statements(rows)
        if one.first.name.endswith(first) and one.second.name.endswith(second)
    ]
    return found


@pytest.mark.parametrize(
    ("gain", "spread", "seeds", "verdict"),
    [
        (3.0, 0.1, 3, "better"),
        (-3.0, 0.1, 3, "worse"),
        (0.0, 0.1, 3, f"within {MARGIN:g}"),
        (0.0, 3.0, 3, "open"),
        (4.0, 0.3, 1, "open"),  # of one seed nothing is shown
    ],
)
def test_a_statement_is_what_the_runs_say(
    tmp_path: Path, halves: list[Run], gain: float, spread: float, seeds: int, verdict: str
) -> None:
    few = [run for run in halves if run.seed < seeds]
    rows = rows_of(written(tmp_path, few, {"half-scratch_b": 95.0 + gain}, spread))
    found = said(rows, "half-scratch_b", "half-fine_tuned")
    assert verdict in found.verdict
    assert found.is_equivalent is verdict.startswith("within")
    p, adjusted = found.comparison.difference.p, found.comparison.p_adjusted
    if seeds == 1:
        assert p is None
    else:
        assert p is not None and adjusted is not None and adjusted >= p
    if spread == 0.1:
        assert found.comparison.difference.diff == pytest.approx(gain, abs=0.5)
    if spread == 3.0:
        assert {one.verdict for one in statements(rows)} == {"open"}


def test_noisy_arms_do_not_hide_quiet_ones(tmp_path: Path, halves: list[Run]) -> None:
    written(tmp_path, [run for run in halves if "scratch_e" not in run.name], {}, 0.1)
    both = written(tmp_path, [run for run in halves if "scratch_e" in run.name], {}, 4.0)
    rows = rows_of(both)
    assert said(rows, "half-scratch_b", "half-fine_tuned").is_equivalent
    assert said(rows, "half-scratch_b", "half-scratch_e").verdict == "open"


def test_masks_trained_from_scratch_are_the_papers_negative_result(
    tmp_path: Path, runs: list[Run]
) -> None:
    names = ("dense", "sparse-fine_tuned", "sparse-scratch_b", "soft-dense", "soft-scratch_b")
    masks = [run for run in runs if run.name.partition("-")[2] in names]
    rows = rows_of(written(tmp_path, masks, {"sparse-scratch_b": 90.0}, spread=0.1))
    masked = {name: replace(row, is_masked="-s" in name) for name, row in rows.items()}
    question = "claim 2, masks: trained from scratch, or pruned and fine-tuned"
    found = {one.first.name: one for one in statements(masked) if one.question == question}
    assert found["vgg16_eighth-sparse-scratch_b"].verdict == "worse"
    # Soft filters are pruned in training: published ones have no fine-tuned arm.
    assert found["vgg16_eighth-soft-scratch_b"].second.name == "vgg16_eighth-soft-dense"


def test_computation_is_shown(tmp_path: Path, halves: list[Run]) -> None:
    rows = rows_of(written(tmp_path, halves, {}))
    dense, arm = (rows[f"vgg16_eighth-{name}"] for name in ("dense", "half-fine_tuned"))
    macs = dense.result.cost.macs
    assert dense.flops == 6 * macs * (1010 // 32) * 32 * 12 == dense.flops_in_all
    assert arm.flops == 6 * arm.result.cost.macs * (1010 // 32) * 32 * 3
    assert arm.flops_in_all == arm.flops + dense.flops
    scratch = rows["vgg16_eighth-half-scratch_b"]
    assert scratch.flops_in_all == scratch.flops
    (budget,) = [one for one in arms_table(rows, {}).columns if one.key == "budget"]
    assert budget.of(arm) == arm.flops / dense.flops
    (budget,) = [one for one in arms_table({"": arm}, {}).columns if one.key == "budget"]
    assert budget.of(arm) is None


def test_fine_tuning_of_other_lengths_is_not_compared(tmp_path: Path, runs: list[Run]) -> None:
    names = ("half-fine_tuned", "slimming-fine_tuned")
    tuned = [run for run in runs if run.name.partition("-")[2] in names]
    rows = rows_of(written(tmp_path, tuned, {}))
    assert len(statements(rows)) == 1
    half = rows["vgg16_eighth-half-fine_tuned"]
    longer = replace(half, result=half.result.model_copy(update={"epochs": 20}))
    assert statements({**rows, half.name: longer}) == []


@pytest.mark.usefixtures("still", "plain_page")
def test_findings_stand_in_files_and_on_the_page(tmp_path: Path, runs: list[Run]) -> None:
    records = written(tmp_path, runs, {"half-scratch_b": 98.0})
    found = findings(records)
    names = {path.name for path in write_findings("pruning", found, tmp_path)}
    assert names >= {
        "pruning.csv",
        "pruning_statements.json",
        "pruning_two_way_vgg16_eighth.csv",
        "pruning_pareto.svg",
        "pruning_pareto.png",
    }
    assert (tmp_path / "pruning_pareto.svg").stat().st_size > 10_000
    html = unescape(render(load_results(tmp_path)).html)
    for one in found:
        if isinstance(one, Table):
            assert one.title in html
            assert all(note in html for note in one.notes)
        elif isinstance(one, StudyFigure):
            assert one.title in html
    table = next(one for one in found if isinstance(one, Table) and one.name == "pruning")
    assert {row["network"] for row in table.records()} >= {"VGG-16, an eighth as wide"}
    assert len(table.records()) == len(runs) / 3
    assert "Shares of the variation" in html and "networks and schedules reduced, ours" in html
    assert not any(row["paper"] for row in table.records())


@pytest.mark.usefixtures("still")
def test_published_numbers_stand_beside_published_networks(tmp_path: Path) -> None:
    full = plans.runs_of(context(data="cifar10:x", networks=("resnet56",)))
    table = findings(written(tmp_path, full, {}))[0]
    assert isinstance(table, Table)
    paper = {row["name"]: row["paper"] for row in table.records()}
    assert paper["resnet56-resnet56-a-scratch_b"] == "93.09 ± 0.14"
    assert not paper["resnet56-resnet56-a-fine_tuned"]  # found in no source
    assert paper["resnet56-dense"] == "93.14 ± 0.12"
    assert any("not measured here" in note for note in table.notes)


def test_shares_of_other_data_are_compared_and_its_accuracies_are_not(
    tmp_path: Path,
) -> None:
    targets = ("slimming", "guided", "guided@clutter", "transferred@clutter")
    asked = plans.runs_of(context(seeds=(0, 1, 2), targets=targets))
    rows = rows_of(written(tmp_path, asked, {"_from_clutter-dense": 20.0}))
    own = "vgg16_eighth-guided_from_clutter"
    assert f"{own}-dense" not in rows and f"{own}-scratch_e" in rows
    parent = rows[f"{own}-scratch_e"].parent
    assert parent is not None and parent.run.data == "clutter"
    assert rows[f"{own}-scratch_e"].flops_in_all > rows[f"{own}-scratch_e"].flops
    said_of = said(rows, "guided_from_clutter-scratch_b", "guided-scratch_b")
    assert said_of.question.startswith("transfer: shares of other data or of the same")
    assert all(OF_OTHER_DATA not in row.run.metadata for row in rows.values())


def test_several_networks_are_compared_by_what_pruning_costs_them(
    tmp_path: Path, still: None
) -> None:
    names, targets = ("roadmap:stage_ratio", "roadmap:patchify_stem"), ("half",)
    asked = plans.runs_of(context(seeds=(0, 1, 2), networks=names, targets=targets))
    records = written(tmp_path, asked, {"stem-dense": 97.0, "stem-half-inherited": 92.0})
    rows = rows_of(records)
    said_of = statements(rows)
    (table,) = per_network_table(said_of)
    assert [test.first.network for test in table.rows] == [
        "nano_stage_ratio",
        "nano_patchify_stem",
    ]
    values = {key: table.records()[1][key] for key in ("dense", "inherited_dense")}
    assert values["dense"] == pytest.approx(97.0, abs=0.3)
    assert values["inherited_dense"] == pytest.approx(-5.0, abs=0.6)
    alone = {name: row for name, row in rows.items() if "stage" not in name}
    assert per_network_table(statements(alone)) == []
    words = next(one for one in findings(records) if isinstance(one, str))
    assert "stage ratio (nano), half (L1): " in words
    # Which network a statement is about has a column where there are several.
    shown = {column.key for column in statements_table(said_of).columns if column.screen}
    assert "network" in shown
    of_one = statements_table([one for one in said_of if "stem" in one.first.network])
    assert "network" not in {column.key for column in of_one.columns if column.screen}


def test_the_pareto_front() -> None:
    points = [(1.0, 90.0), (2.0, 89.0), (2.0, 95.0), (3.0, 95.0), (4.0, 96.0)]
    assert front(points) == [(1.0, 90.0), (2.0, 95.0), (4.0, 96.0)]


def test_latency_is_measured_once_for_each_network(
    tmp_path: Path, halves: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "SECONDS", 0.001)
    few = [run for run in halves if run.metadata["target"] and run.seed == 0]
    found = costs.measure_latency(rows_of(written(tmp_path, few, {})))
    assert len(found) == len(few)
    assert len({*found.values()}) == 1  # one architecture
    one = next(iter(found.values()))
    assert 0 < one.low <= one.median <= one.high


def test_a_study_from_the_command_line_to_an_exported_arm(
    tmp_path: Path, trains_here: None
) -> None:
    names = {"dense", "half-fine_tuned", "half-scratch_e", "sparse-fine_tuned"}
    file = tmp_path / "some.py"
    file.write_text(STUDY.format(names=names))
    out = tmp_path / "out"
    command = ["study", str(file), "--epochs", "1", "--batch-size", "256", "--out", str(out)]
    common = [*command, "--jobs", "1", "--device", "cpu"]
    dry = CliRunner().invoke(app, [*common, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert dry.output.count("to do") >= len(names)
    done = CliRunner().invoke(app, common)
    assert done.exit_code == 0, done.output
    assert "Pruning against training from scratch" in done.output
    assert {record.run.name.partition("-")[2] for record in scan(out / "runs")} == names
    (arm,) = out.glob("runs/*half-fine_tuned*")
    for words in (["eval", str(arm)], ["export", str(arm), "--to", "pt2"]):
        told = CliRunner().invoke(app, words)
        assert told.exit_code == 0, told.output
    assert "use --to onnx or pt2" in str(CliRunner().invoke(app, ["export", str(arm)]).exception)
    program: Any = torch.export.load(arm / "export-pt2" / "model.pt2").module()
    assert program(torch.zeros(4, 3, 16, 16)).shape == (4, 10)


def test_a_dry_run_tells_bounds_from_counts(tmp_path: Path) -> None:
    command = ["study", "pruning", "--dry-run", "--out", str(tmp_path), "--target"]
    dry = CliRunner().invoke(app, [*command, "slimming", "--target", "random_widths"])
    assert dry.exit_code == 0, dry.output
    bound = [line.split()[0] for line in dry.output.splitlines() if " <= " in line]
    arms = ("fine_tuned", "inherited", "scratch_e", "scratch_b")
    assert bound == [*(f"vgg16_eighth-slimming-{arm}" for arm in arms), "total"]
    assert "The parent run determines the network" in dry.output
    known = CliRunner().invoke(app, [*command, "half"])
    assert known.exit_code == 0 and "<=" not in known.output


def test_a_folder_of_images_works_unchanged(tmp_path: Path) -> None:
    images = make_folder(tmp_path / "images", count=2)
    asked = plans.runs_of(context(data=f"folder:{images}", changes={"epochs": 1}))
    found = {run.name.removeprefix("vgg16_eighth-"): run for run in asked}
    for name in ("dense", "half-fine_tuned", "thinet-fine_tuned"):
        run = found[name]
        assert run.recipe["image_size"] == 32
        result = train(run, tmp_path / "study" / "runs" / run.id)
        assert result.val_images == 4
