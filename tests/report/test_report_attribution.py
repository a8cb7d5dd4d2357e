"""What steps are worth, from fake runs of sets of steps: one number, wherever it stands."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from support.fakes import fake_run, fake_runs, write_run, write_study
from support.pages import set_commit, text_in

from convnext_study.experiments.context import Context
from convnext_study.report.findings import write_findings
from convnext_study.report.write import write_report
from convnext_study.results.attribution import (
    Attribution,
    add_one_in_effects,
    attributions,
    leave_one_out_effects,
    section_effects,
    shapley_effects,
    steps_of_sections,
)
from convnext_study.results.effects import Effects
from convnext_study.results.load import load_results
from convnext_study.results.statistics.subsets import (
    all_coalitions,
    coalitions_of,
    coalitions_within,
    sampled_permutations,
)
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.extensions import sections
from convnext_study.runs.records import Run, scan

pytestmark = pytest.mark.usefixtures("no_figures")
NANO = get_roadmap("nano")
CONTEXT = Context(road=NANO, seeds=(0, 1, 2))
SECTION_SETS = [steps_of_sections(NANO, names) for names in all_coalitions(tuple(sections(NANO)))]
END = coalitions_within(CONTEXT.steps, "end", 1)


def write_sets(folder: Path, subsets: Any, kind: str, context: Context = CONTEXT) -> list[Run]:
    """Fake runs of sets of steps, worth 0.8 points each, under the names that a study gives."""
    runs = list({one.key: one for one in context.subsets(subsets, kind)}.values())
    for run in runs:
        if (folder / "runs" / run.id).exists():
            continue
        steps = len(run.metadata.get("steps") or context.road.adopted())
        top1 = 85 + 0.8 * steps + 0.2 * run.seed
        write_run(folder, run, top1=top1, result={"macs": 10_000_000 + 100_000 * steps})
    return runs


def tables_of(found: Attribution) -> dict[str, Effects]:
    return {table.kind: table for table in found.tables}


def disturb(folder: Path) -> None:
    """Beside a study: the first row and its last network with other recipes, data and code, and
    networks that are no set of its steps, all with seeds far apart.
    """
    road = NANO.variants()
    others = [
        *CONTEXT.runs([road[0].name]),
        *CONTEXT.runs(["kernel_11"]),
        *CONTEXT.without_recipe(),
        *Context(road=NANO, seeds=(0, 1), changes={"epochs": 3}).subsets(END[:5], "leave_one_out"),
        *Context(road=NANO, seeds=(0, 1), data="cifar10:x").subsets(END[:5], "leave_one_out"),
    ]
    for run in others:
        write_run(folder, run, top1=80 + 4 * run.seed)
    old = Context(road=NANO, seeds=(7, 8)).subsets(END[:3], "leave_one_out")
    for run in old:
        write_run(folder, run, top1=40 + 4 * run.seed)
    set_commit(folder, old, "f" * 40)


def test_the_study_and_the_page_tell_one_p_and_one_deviation(tmp_path: Path) -> None:
    study, report = tmp_path / "study", tmp_path / "report"
    write_sets(study, END, "leave_one_out")
    write_sets(study, coalitions_within(CONTEXT.steps, "base", 1), "add_one_in")
    write_sets(study, coalitions_of(sampled_permutations(CONTEXT.steps, 2)), "subset")
    alone = leave_one_out_effects(CONTEXT.group_by_subset(scan(study)))
    disturb(study)

    results = CONTEXT.group_by_subset(scan(study))
    study_tables = [
        f(results) for f in (leave_one_out_effects, add_one_in_effects, shapley_effects)
    ]
    shown = next(one for one in load_results(study).attributions if one.name == "attribution-nano")
    assert list(shown.tables) == study_tables, "the page shows the study's own tables"

    # What was disturbed is not pooled: the other rows are as they were.
    found = study_tables[0]
    assert found is not None and alone is not None
    assert list(found.rows)[1:] != [] and found.rows[0].name == "resnet"
    assert [row.diff for row in found.rows[1:]] == [row.diff for row in alone.rows]
    assert [row.interval for row in found.rows[1:]] == [row.interval for row in alone.rows]
    text = " ".join(found.notes)
    assert "10 run(s) with another recipe are not counted" in text
    assert "6 run(s) not made at commit 0123456789 are not counted" in text

    # And so it stands in the files and on the page.
    write_findings("leave_one_out", [found], study)
    written = json.loads((study / "leave_one_out.json").read_text())
    paths, _ = write_report(study, report)
    table = report / "attribution-nano" / "tables" / "leave_one_out.csv"
    assert table in paths and table.read_text() == (study / "leave_one_out.csv").read_text()
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p_adjusted"]) for row in rows] == pytest.approx(
        [row["p_adjusted"] for row in written["rows"]], abs=1e-6
    )
    page = text_in((report / "report.html").read_text())
    assert all(note in page for note in found.notes)


def test_runs_of_any_commit_count_where_that_is_asked(tmp_path: Path) -> None:
    runs = write_sets(tmp_path, END, "leave_one_out")
    set_commit(tmp_path, [run for run in runs if run.name == CONTEXT.last_step], "f" * 40)
    assert leave_one_out_effects(CONTEXT.group_by_subset(scan(tmp_path))) is None
    assert attributions(scan(tmp_path)) == []
    mixed = leave_one_out_effects(
        Context(road=NANO, seeds=(0, 1, 2), any_commit=True).group_by_subset(scan(tmp_path))
    )
    assert mixed is not None and len(mixed.rows) == len(CONTEXT.steps)
    (found,) = load_results(tmp_path, any_commit=True).attributions
    assert found.tables == (mixed,)


def test_the_step_of_the_recipe_is_tested_by_the_recipe_most_like(tmp_path: Path) -> None:
    short = Context(road=NANO, seeds=(0, 1), changes={"epochs": 3})
    for context, top1 in ((CONTEXT, 90.0), (short, 60.0)):
        write_sets(tmp_path, END, "leave_one_out", context)
        for run in context.without_recipe():
            write_run(tmp_path, run, top1=top1)
    for context, top1 in ((CONTEXT, 90.0), (short, 60.0)):
        found = leave_one_out_effects(context.group_by_subset(scan(tmp_path)))
        assert found is not None and found.rows[0].name == "resnet"
        assert found.rows[0].value == pytest.approx(top1, abs=0.1)


def test_shapley_values_of_sections_are_exact(tmp_path: Path) -> None:
    write_sets(tmp_path, SECTION_SETS, "attribution")
    (found,) = attributions(scan(tmp_path))
    shapley = tables_of(found)["shapley_sections"]
    assert shapley.notes[0].startswith("Top-1: exact, from all 32 sets")
    assert shapley.rows[-1].label == "2.6 Micro design"
    assert shapley == section_effects(CONTEXT.group_by_subset(scan(tmp_path)))


def test_rows_of_other_recipes_and_commits_are_not_pooled(tmp_path: Path) -> None:
    write_study(tmp_path, fake_runs(seeds=(0, 1, 2)), spread=0.3)
    alone = load_results(tmp_path).studies[0].tests.std
    assert alone is not None and alone.source == "17 rows of this study"
    recipes: dict[str, dict[str, Any]] = {"x": {"epochs": 3}, "y": {}}
    for name, recipe in recipes.items():
        others = [fake_run(NANO.variant("gelu"), seed, **recipe) for seed in (0, 1)]
        others = [run.model_copy(update={"name": name}) for run in others]
        for run in others:
            write_run(tmp_path, run, top1=50 + 40 * run.seed)
        if not recipe:
            set_commit(tmp_path, others, "f" * 40)
    assert load_results(tmp_path).studies[0].tests.std == alone


def test_a_road_map_alone_is_no_attribution(tmp_path: Path) -> None:
    write_study(tmp_path, fake_runs(seeds=(0, 1)))
    assert load_results(tmp_path).attributions == []
