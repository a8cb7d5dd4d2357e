"""What a benchmark is made of; no test here depends on how fast anything is."""

import itertools
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from support.command import Command
from support.pages import on_screen

from convnext_study import cost
from convnext_study.benchmarks import Settings, growth, networks, pipeline
from convnext_study.benchmarks.networks import forms, make_step, timm_twin
from convnext_study.benchmarks.timing import (
    Spread,
    compare,
    comparison_table,
    interleave,
    rate,
    ratio,
)
from convnext_study.report.tables.render import Screen
from convnext_study.roadmap import get_roadmap

NANO = get_roadmap("nano")
TINY = Settings(regime="nano", repeats=1, seconds=0.0, batch_size=4, threads=1, quick=True)


def test_turns_are_interleaved_and_reversed_and_ratios_are_of_the_same() -> None:
    called: list[str] = []

    def measure(name: str) -> float:
        called.append(name)
        return float(len(called))

    found = interleave({name: partial(measure, name) for name in "ab"}, 3)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == Spread(2.0, 1.0, 3.0, 3)


def test_a_rate_is_images_over_time() -> None:
    looks = itertools.count()  # a second passes between two looks
    calls: list[int] = []
    measure = rate(lambda: calls.append(1), images=8, seconds=4.0, clock=lambda: next(looks))
    assert len(calls) == 2
    assert measure() == 8 * 4 / 1.0
    assert len(calls) == 6


def test_the_table_has_the_first_forms_rate_and_the_ratios() -> None:
    rows = [
        compare("gelu", {"ours": [30.0, 40.0, 20.0], "plain": [10.0, 10.0, 10.0]}, job="training"),
        compare("end", {"ours": [1234.0], "plain": [617.0], "timm": [1234.0]}, job="training"),
    ]
    shown = on_screen(Screen(comparison_table("networks", "", rows)), width=120)
    cells = [line.split() for line in shown.splitlines()]
    assert ["networks", "job", "images/s", "over", "plain", "over", "timm"] in cells
    assert ["gelu", "training", "30", "3.00", "(2.00-4.00)"] in cells
    assert ["end", "training", "1,234", "2.00", "(2.00-2.00)", "1.00", "(1.00-1.00)"] in cells


@pytest.mark.parametrize(("regime", "end"), [("t", 0), ("t", -1), ("b", -1), ("nano", -1)])
def test_timms_twin_is_the_same_network(regime: str, end: int) -> None:
    road = get_roadmap(regime)
    spec, side = road.variants()[end].spec, road.image_size
    twin = timm_twin(spec, road.num_classes)
    assert twin is not None
    with torch.device("meta"):
        net = twin()
    assert cost.count(net, (3, side, side)) == cost.count_spec(spec, side, road.num_classes)
    assert timm_twin(road.variant("gelu").spec, road.num_classes) is None


def test_the_forms_are_one_network_and_a_step_changes_its_own() -> None:
    nets = {form: make() for form, make in forms(NANO.variants()[-1].spec, 10).items()}
    assert list(nets) == ["ours", "plain", "timm"]
    before = [weight.clone() for weight in nets["plain"].parameters()]
    make_step("ours", nets["ours"], (2, 3, 32, 32), "cpu", train=False)()
    make_step("timm", nets["timm"], (2, 3, 32, 32), "cpu", train=True)()
    for form in ("ours", "plain"):
        assert all(map(torch.equal, before, nets[form].parameters()))
    make_step("plain", nets["plain"], (2, 3, 32, 32), "cpu", train=True)()
    assert not all(map(torch.equal, before, nets["plain"].parameters()))


def test_networks_are_compared_in_every_form() -> None:
    _, rows = networks.measure(TINY, lambda _: None)
    assert [(row["name"], row["job"]) for row in rows] == [
        (name, job)
        for name in ("resnet-90ep", "separate_downsampling")
        for job in ("training", "inference", "one image")
    ]
    assert all(set(row["ratio"]) == {"plain"} for row in rows[:3])
    assert all(set(row["ratio"]) == {"plain", "timm"} for row in rows[3:])


def test_readers_are_compared_with_both_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "QUICK_IMAGES", 16)
    _, rows = pipeline.measure(TINY, lambda _: None)
    assert [row["name"] for row in rows] == ["crop and flip", "modern"]
    assert all(row["ratio"]["timm"]["median"] > 0 for row in rows)


def test_growth_is_timed_at_every_size() -> None:
    found = growth.measure((2, 3), (100, 200))
    sizes = [[2, 3], [2, 3], [100, 200], [100, 200]]
    assert [list(seconds) for seconds in found.values()] == sizes
    assert all(took > 0 for seconds in found.values() for took in seconds.values())


def test_the_command_writes_what_it_measured(tmp_path: Path, command: Command) -> None:
    words = ["bench", "--parts", "engine_overhead", "--quick", "--repeats", "1", "--threads", "1"]
    code, shown, errors = command(*words, "--out", str(tmp_path), "--json")
    assert code == 0, errors
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["settings"]["repeats"] == 1
    names = [row["name"] for row in written["engine_overhead"]]
    assert names == ["training", "with evaluation, saving"]
    assert json.loads(shown) == {"schema": 1, **written}
    assert "torch" in written["hardware"]["versions"]
