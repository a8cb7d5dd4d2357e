"""What steps are worth, from fake runs of sets of steps."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_run, fake_runs, write_run, write_study

from convnext_study.launching.context import Context
from convnext_study.records import scan
from convnext_study.results.attribution import plan_exact, plan_near, plan_orders, sampled_orders
from convnext_study.results.attribution.findings import leave_one_out_findings
from convnext_study.results.attribution.measured import measure
from convnext_study.results.report.gather import Extras, gather
from convnext_study.results.report.page import render
from convnext_study.results.report.worth import find_worth
from convnext_study.roadmap import get_roadmap

NANO = get_roadmap("nano")


def page_of(folder: Path, **how: Any) -> str:
    return render(gather(folder), Extras(), **how).html


def text_in(html: str) -> str:
    """What a reader sees, roughly."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def write_sets(folder: Path, subsets: Any, kind: str) -> None:
    """Fake runs of sets of steps, worth 0.4 points each, under the names that a study gives."""
    context = Context(road=NANO, seeds=(0, 1, 2))
    for run in {one.key: one for one in context.sets(subsets, kind)}.values():
        if (folder / "runs" / run.id).exists():
            continue
        steps = len(run.facts.get("steps") or NANO.adopted())
        top1 = 85 + 0.8 * steps + 0.2 * run.seed
        write_run(folder, run, top1=top1, result={"macs": 10_000_000 + 100_000 * steps})


def test_leave_one_out_is_tested_against_the_end(tmp_path: Path) -> None:
    steps = Context(road=NANO).steps
    write_sets(tmp_path, plan_near(steps, "end", 1).subsets, "leave_one_out")
    (worth,) = find_worth(gather(tmp_path).studies)
    # The end without its last step is a row of the road, and is found there.
    assert [one.label for one in worth.without] == [NANO.step(name).label for name in steps]
    assert worth.alone == [] and worth.shares is None
    kernel = next(one for one in worth.without if one.label == "kernel size → 7")
    assert kernel.comparison.difference.points == pytest.approx(0.8, abs=0.2)
    assert kernel.comparison.family == len(steps)
    assert kernel.macs == 100_000
    # The page and the study's own table say the same.
    told = leave_one_out_findings(measure(scan(tmp_path), NANO))
    assert told is not None
    assert [one.p for one in told.lines] == pytest.approx(
        [one.comparison.p_corrected for one in worth.without]
    )
    html = page_of(tmp_path)
    assert "points, pooled over 13 networks, 26 degrees of freedom)" in text_in(html)
    assert "Lost without the step" in html and "The same in MACs" in html


def test_shapley_values_of_sampled_orders_add_up(tmp_path: Path) -> None:
    steps = Context(road=NANO).steps
    write_sets(tmp_path, plan_orders(sampled_orders(steps, 2)).subsets, "attribution")
    (worth,) = find_worth(gather(tmp_path).studies)
    assert worth.shares and worth.macs
    assert worth.order == list(steps)
    assert sum(one.value for one in worth.shares.shares.values()) == pytest.approx(
        worth.shares.total
    )
    assert "4 sampled orders" in worth.shares.method
    assert "They add up to" in text_in(page_of(tmp_path))


def test_shapley_values_of_sections_are_exact(tmp_path: Path) -> None:
    sections: dict[str, list[str]] = {}
    for name in Context(road=NANO).steps:
        sections.setdefault(NANO.step(name).section, []).append(name)
    chosen = [
        [name for section in subset for name in sections[section]]
        for subset in plan_exact(list(sections)).subsets
    ]
    write_sets(tmp_path, chosen, "attribution")
    (worth,) = find_worth(gather(tmp_path).studies)
    assert worth.shares and worth.shares.method.startswith("exact, from all 32 sets")
    assert worth.labels["2.6"] == "Micro design"


def test_a_road_map_alone_is_no_attribution(tmp_path: Path) -> None:
    write_study(tmp_path, fake_runs(seeds=(0, 1)))
    assert find_worth(gather(tmp_path).studies) == []


def test_facts_may_name_what_is_left_out_instead(tmp_path: Path) -> None:
    road = [fake_run(NANO.points()[-1])]
    for name in ("gelu", "kernel_7", "layer_norm"):
        run = fake_run(NANO.point("gelu"))
        facts = {"regime": "nano", "study_kind": "leave_one_out", "left_out": name}
        update = {"study": "mine", "name": f"no-{name}", "facts": facts}
        road.append(run.model_copy(update={**update, "seed": 0}))
    write_study(tmp_path, road, top1={"no-gelu": 90})
    (worth,) = find_worth(gather(tmp_path).studies)
    assert [one.label for one in worth.without] == ["kernel size → 7", "ReLU → GELU", "BN → LN"]
    assert "each pair tested by its own runs" in text_in(page_of(tmp_path))
