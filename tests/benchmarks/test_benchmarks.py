"""What a benchmark is made of; no test here depends on how fast anything is."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from convnext_study.benchmarks.engine_overhead import engine_overhead
from convnext_study.benchmarks.networks import Settings, networks
from convnext_study.benchmarks.pipeline import pipeline
from convnext_study.benchmarks.report import tables
from convnext_study.benchmarks.timing import Spread, interleave, rate, ratio
from convnext_study.benchmarks.workload import (
    Workload,
    build,
    timm_twin,
    training_step,
)
from convnext_study.cli import app
from convnext_study.errors import UserError
from convnext_study.report.tables.render import Screen
from convnext_study.roadmap import get_roadmap

NANO = get_roadmap("nano")
TINY = Settings(repeats=1, seconds=0.0, batch_size=4, threads=1)


def silent(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def test_turns_are_interleaved_and_reversed() -> None:
    called: list[str] = []

    def named(name: str) -> Any:
        def measure() -> float:
            called.append(name)
            return float(len(called))

        return measure

    found = interleave({"a": named("a"), "b": named("b")}, 3)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


def test_ratios_are_of_the_same_turn() -> None:
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == Spread(2.0, 1.0, 3.0, 3)
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])


def test_a_rate_is_images_over_time() -> None:
    looks = itertools.count()  # a second passes between two looks
    calls: list[int] = []
    measure = rate(lambda: calls.append(1), images=8, seconds=4.0, clock=lambda: next(looks))
    assert len(calls) == 2
    assert measure() == 8 * 4 / 1.0
    assert len(calls) == 6


@pytest.mark.parametrize(("regime", "end"), [("t", 0), ("t", -1), ("b", -1), ("nano", -1)])
def test_timms_twin_is_the_same_network(regime: str, end: int) -> None:
    road = get_roadmap(regime)
    spec = road.variants()[end].spec
    with torch.device("meta"):
        load = Workload(spec, "plain", 2, road.image_size, road.num_classes)
        twin = timm_twin(spec, road.num_classes)
        assert twin is not None
        net = twin()
    from convnext_study import cost

    ours = cost.count_spec(spec, load.image_size, load.classes)
    assert cost.count(net, (3, load.image_size, load.image_size)) == ours


def test_middle_steps_have_no_twin() -> None:
    assert timm_twin(NANO.variant("gelu").spec, 10) is None


def test_the_forms_differ_in_layout_only() -> None:
    load = Workload(NANO.variants()[-1].spec, "ours", 2, 32, 10)
    ours, plain = build(load), build(replace(load, implementation="plain"))
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    before = [weight.clone() for weight in plain.parameters()]
    training_step(replace(load, implementation="timm"))()
    assert all(torch.equal(a, b) for a, b in zip(before, plain.parameters(), strict=True))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Everything, as small as it can be."""
    variants = [NANO.variants()[0], NANO.variants()[1], NANO.variants()[-1]]
    return {
        "networks": networks(NANO, variants, TINY, silent),
        "engine_overhead": engine_overhead(NANO, TINY, silent),
        "pipeline": pipeline(None, 16, TINY, silent),
    }


def test_networks(found: dict[str, Any]) -> None:
    first, last = found["networks"]  # the first two rows are one network
    assert set(first["training"]["ratio"]) == {"plain"}
    assert set(last["training"]["ratio"]) == set(last["inference"]["ratio"]) == {"plain", "timm"}
    for row in (first, last):
        assert all(value > 0 for value in row["latency_ms"].values())


def test_loop_and_pipeline(found: dict[str, Any]) -> None:
    efficiency = found["engine_overhead"]["efficiency"]
    assert found["engine_overhead"]["data"] == "digits"
    assert 0 < efficiency["low"] <= efficiency["median"] <= efficiency["high"]
    for name in ("crop_and_flip", "modern"):
        assert found["pipeline"][name]["ratio"]["median"] > 0


def test_tables(found: dict[str, Any]) -> None:
    console = Console(width=120, record=True)
    console.print(*map(Screen, tables(found)))
    shown = console.export_text()
    for word in ("separate_downsampling", "bare step", "crop and flip"):
        assert word in shown


def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        [
            *(
                "bench",
                "--parts",
                "engine_overhead",
                "--quick",
                "--repeats",
                "1",
                "--batch-size",
                "4",
            ),
            *("--out", str(tmp_path), "--json"),
        ],
    )
    assert done.exit_code == 0, done.exception
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["settings"]["repeats"] == 1
    assert json.loads(done.stdout[done.stdout.index("{") :]) == written
    assert "torch" in written["hardware"]["versions"]


def test_parts_are_checked(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "--parts", "speed", "--out", str(tmp_path)])
    assert isinstance(done.exception, UserError)
    assert "use networks" in str(done.exception)
