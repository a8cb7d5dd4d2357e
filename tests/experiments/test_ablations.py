"""The files in ablations/: what they ask for, and what they make of the records."""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from support.fakes import write_run
from support.pages import on_screen

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import StudyFile, load_study, make_context
from convnext_study.report.attribution import effects_table
from convnext_study.report.findings import write_findings
from convnext_study.report.tables.render import Screen
from convnext_study.results.effects import Effect, Effects
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import Record, Run, scan

FOLDER = Path(__file__).parents[2] / "ablations"
# Runs of one seed, on the file's own road map, and how many of them are distinct networks.
COUNTS = {
    "road_map": (17, 17),
    "base_regime": (17, 17),
    "kernel_size": (15, 15),
    "beyond": (4, 4),
    "agreement": (68, 68),
    "imagenet_96": (17, 17),
    "layer_scale": (16, 16),
    "leave_one_out": (14, 14),
    "add_one_in": (13, 13),
    "reorder": (46, 46),
    "pairs": (79, 79),
    "attribution": (8 * 13, 82),
    "example_own_step": (3, 3),
    "multipath": (10, 10),
    "anytime": (5, 5),
    "pruning": (39, 39),
}
ROAD = get_roadmap("nano")
# Worth of each step in points where nothing interacts, and in MACs.
WORTH = {name: 0.1 * place - 0.35 for place, name in enumerate(ROAD.adopted())}
Value = Callable[[frozenset[str]], float]


def ablation(name: str) -> StudyFile:
    return load_study(FOLDER / f"{name}.py")


def context_of(name: str, **fields: Any) -> Context:
    return make_context(ablation(name), None, **fields)


def additive(steps: frozenset[str]) -> float:
    return 50 + 2 * sum(WORTH[step] for step in steps)


def trained(folder: Path, context: Context, runs: Iterable[Run], top1: Value) -> list[Record]:
    """Records of these runs, with the accuracy that ``top1`` gives to their steps."""
    by_spec = {variant.spec: variant for variant in context.road.variants()}
    for run in {run.key: run for run in runs}.values():
        steps = run.metadata.get("steps")
        if steps is None:
            variant = next(p for spec, p in by_spec.items() if spec.to_dict() == run.model.args)
            place = context.road.adopted().index(variant.name)
            steps = context.road.adopted()[: place + 1]
        known = frozenset(steps) & set(context.steps)
        macs = 1_000_000 * (1 + sum(map(context.steps.index, known)))
        if "resnet" not in steps:  # the recipe's
            known |= {"resnet"}
        result = {"macs": macs}
        accuracy = top1(known & set(context.steps)) - (3 if "resnet" not in steps else 0)
        write_run(folder, run, top1=accuracy, result={**result, "val_images": 100_000})
    return list(scan(folder))


def by_name(effects: Effects) -> dict[str, Effect]:
    return {line.name: line for line in effects.rows}


def reported(folder: Path, name: str, top1: Value, **fields: Any) -> tuple[Any, Context]:
    """What a study says of all its runs."""
    context, file = context_of(name, **fields), ablation(name)
    return file.report(trained(folder, context, file.runs(context), top1), context), context


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_file_asks_for_the_runs_that_its_docstring_names(name: str) -> None:
    runs = ablation(name).runs(context_of(name))
    assert (len(runs), len({run.key for run in runs})) == COUNTS[name]
    assert len({run.id for run in runs}) == COUNTS[name][1]
    about = ablation(name).module.__doc__ or ""
    assert f"convnext-study study {name}" in about
    assert re.search(r"^Runs: .*\d", about, re.MULTILINE)
    assert "Cost" in about and "Expect" in about
    three = ablation(name).runs(context_of(name, seeds=(0, 1, 2)))
    assert len({run.key for run in three}) == 3 * COUNTS[name][1]


def test_studies_share_their_networks_under_one_name() -> None:
    sets = ("leave_one_out", "pairs", "attribution", "reorder", "add_one_in")
    runs = {name: ablation(name).runs(context_of(name)) for name in ("road_map", *sets)}
    keys = {name: {run.key for run in asked} for name, asked in runs.items()}
    assert keys["leave_one_out"] - keys["pairs"] == {context_of("pairs").without_recipe()[0].key}
    assert len(keys["leave_one_out"] & keys["road_map"]) == 2  # the end, and the row before it
    assert len(keys["reorder"] & keys["road_map"]) == 13
    assert keys["attribution"] & keys["leave_one_out"]
    named = {(run.key, run.id) for name in sets for run in runs[name]}
    assert len(named) == len({key for key, _ in named})


def test_what_each_step_is_worth_alone(tmp_path: Path) -> None:
    found, context = reported(tmp_path / "out", "leave_one_out", additive, seeds=(0, 1, 2))
    lines = by_name(found)
    assert list(lines) == list(ROAD.adopted())
    for step in context.steps:
        assert lines[step].diff == pytest.approx(2 * WORTH[step], abs=0.002)
        assert lines[step].macs == 1_000_000 * context.steps.index(step)
        assert lines[step].seeds == 3
        assert lines[step].interval is not None
    assert lines["resnet"].diff == pytest.approx(3, abs=0.002)
    assert any("Welch's t test" in note for note in found.notes)
    # Where nothing interacts a step adds what is lost without it.
    added, _ = reported(tmp_path / "in", "add_one_in", additive)
    gains = {name: pytest.approx(2 * WORTH[name], abs=0.002) for name in context.steps}
    assert {line.name: line.diff for line in added.rows} == gains


def test_pairs_that_need_each_other_are_seen(tmp_path: Path) -> None:
    def together(steps: frozenset[str]) -> float:
        return additive(steps) + (4 if {"gelu", "layer_norm"} <= steps else 0)

    found, _ = reported(tmp_path, "pairs", together)
    assert len(found.rows) == 66
    assert found.rows[0].name == "gelu+layer_norm"
    assert found.rows[0].diff == pytest.approx(4, abs=0.005)
    assert all(abs(line.diff) < 0.005 and line.macs == 0 for line in found.rows[1:])


def test_the_gains_of_every_order_add_up_to_the_same(tmp_path: Path) -> None:
    said, context = reported(tmp_path, "reorder", additive)
    totals = [sum(line.diff for line in one.rows) for one in said]
    assert totals == pytest.approx([2 * sum(WORTH[step] for step in context.steps)] * 4, abs=0.01)
    assert [line.name for line in said[1].rows] == list(context.steps[::-1])


def curved(steps: frozenset[str]) -> float:
    """Steps that get in each other's way."""
    return 60 + 30 * (1 - math.exp(-0.3 * sum(WORTH[step] + 0.5 for step in steps)))


def test_shapley_values_add_up_and_more_orders_narrow_them(tmp_path: Path) -> None:
    widths = []
    for permutations in (8, 32):
        (sections, found), context = reported(
            tmp_path / str(permutations), "attribution", curved, permutations=permutations
        )
        assert sections is None  # not all of their sets are there
        assert list(by_name(found)) == list(context.steps)
        assert found.total.diff == pytest.approx(curved(frozenset(context.steps)) - 60, abs=0.01)
        assert sum(line.diff for line in found.rows) == pytest.approx(found.total.diff)
        assert sum(line.macs for line in found.rows) == pytest.approx(found.total.macs)
        intervals = [line.interval for line in found.rows]
        widths.append(sum(one.high - one.low for one in intervals) / len(intervals))
    assert widths[1] < widths[0] * 0.7


def test_sections_are_exact_and_have_32_networks(tmp_path: Path) -> None:
    (found, steps), context = reported(tmp_path, "attribution", additive, players="section")
    assert steps is None and len([*scan(tmp_path)]) == 32
    lines = by_name(found)
    for section in ("2.2", "2.3", "2.4", "2.5", "2.6"):
        own = [step for step in context.steps if context.road.step(step).section == section]
        worth = 2 * sum(WORTH[step] for step in own)
        assert lines[section].diff == pytest.approx(worth, abs=0.002)
    assert sum(line.diff for line in found.rows) == pytest.approx(found.total.diff)
    assert {(line.interval, line.significant) for line in found.rows} == {(None, None)}, "one seed"


def test_a_lying_record_is_passed(tmp_path: Path) -> None:
    context = context_of("leave_one_out")
    runs = context.subsets([context.steps[:1], context.steps[1:]], "x")
    lying = runs[1].model_copy(
        update={"metadata": {**runs[1].metadata, "steps": ["resnet", "gelu"]}}
    )
    results = context.group_by_subset(trained(tmp_path, context, [runs[0], lying], additive))
    assert list(results.networks) == [frozenset(context.steps[:1])]


def test_effects_are_shown_and_written(tmp_path: Path) -> None:
    lines = (
        Effect(name="a", label="<script> [bold]", diff=1.5, macs=2e6, p_adjusted=0.0001),
        Effect(name="b", label="b", diff=-0.2, macs=-1e6, p_adjusted=0.4),
    )
    total = Effect(name="total", label="total", diff=1.3, macs=1e6)
    effects = Effects(kind="test", title="Test", effect_label="share", rows=lines, total=total)
    text = on_screen(Screen(effects_table(effects)), width=100)
    assert "<script> [bold]" in text
    assert "−0.20 " in text and "< 0.001" in text and "+2.000" in text
    paths = write_findings("test", [effects], tmp_path)
    assert [path.name for path in paths] == ["test.json", "test.csv", "test.svg", "test.png"]
    assert "<script>" not in paths[2].read_text()
    before = paths[2].read_bytes()
    write_findings("test", [effects], tmp_path)
    assert paths[2].read_bytes() == before
    assert len(paths[1].read_text().splitlines()) == 4
