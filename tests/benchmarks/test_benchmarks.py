"""What a benchmark is made of; no test here depends on how fast anything is."""

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.fakes import fake_run, write_run
from typer.testing import CliRunner

from convnext_study.benchmarks.composition import composition
from convnext_study.benchmarks.engine_overhead import engine_overhead
from convnext_study.benchmarks.networks import Settings, networks
from convnext_study.benchmarks.peer import Command, _logged_rate, _our_rate, beside, peer
from convnext_study.benchmarks.pipeline import pipeline
from convnext_study.benchmarks.report import draw, tables
from convnext_study.benchmarks.scaling import scaling
from convnext_study.benchmarks.timing import Spread, interleave, rate, ratio
from convnext_study.benchmarks.workload import (
    Workload,
    build,
    peak_memory,
    timm_twin,
    training_step,
)
from convnext_study.cli import app
from convnext_study.errors import RunFailed, UserError
from convnext_study.report.tables.render import Screen
from convnext_study.roadmap import get_roadmap

NANO = get_roadmap("nano")
TINY = Settings(repeats=1, seconds=0.0, batch_size=4, threads=1, memory=False)


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
        twin = timm_twin(spec, road.num_classes)()
    from convnext_study import cost

    ours = cost.count_spec(spec, load.image_size, load.classes)
    assert cost.count(twin, (3, load.image_size, load.image_size)) == ours


def test_middle_steps_have_no_twin() -> None:
    with pytest.raises(KeyError):
        timm_twin(NANO.variant("gelu").spec, 10)


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
        "composition": composition(NANO, variants[1:2], TINY, silent),
        "scaling": scaling(NANO, TINY, silent),
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


def test_composition(found: dict[str, Any]) -> None:
    (row,) = found["composition"]
    speed = {name: one["median"] for name, one in row["images_per_s"].items()}
    assert row["ratio"]["low"] <= speed["composed"] / speed["trained"] <= row["ratio"]["high"]


def test_growth(found: dict[str, Any]) -> None:
    sizes = found["scaling"]["image_size"]
    assert [row["value"] for row in sizes] == [32, 64, 96]
    assert sizes[0]["seconds_an_image"]["median"] == 1
    assert sizes[1]["macs"] == pytest.approx(4, rel=0.01)
    assert [row["macs"] for row in found["scaling"]["batch"]] == [1, 1, 1]
    assert [row["value"] for row in found["scaling"]["blocks"]] == [6, 12, 18]


def test_tables_and_figure(found: dict[str, Any], tmp_path: Path) -> None:
    console = Console(width=120, record=True)
    console.print(*map(Screen, tables(found)))
    shown = console.export_text()
    for word in ("separate_downsampling", "bare step", "crop and flip", "composed", "image size"):
        assert word in shown
    svg, png = draw(found, tmp_path)
    assert "<svg" in svg.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
    assert draw({"engine_overhead": found["engine_overhead"]}, tmp_path) == []


def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        [
            *("bench", "--parts", "scaling", "--quick", "--repeats", "1", "--batch-size", "4"),
            *("--out", str(tmp_path), "--json"),
        ],
    )
    assert done.exit_code == 0, done.exception
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["settings"]["repeats"] == 1
    assert json.loads(done.stdout[done.stdout.index("{") :]) == written
    assert "torch" in written["hardware"]["versions"]


def test_memory_of_a_step_covers_weights_gradients_and_optimizer() -> None:
    spec = NANO.variants()[-1].spec.replace(width=96)
    load = Workload(spec, "plain", 2, 32, 10)
    weights = sum(weight.numel() * 4 for weight in build(load).parameters()) / 1e6
    measured = peak_memory(load, 1)
    assert measured is not None
    assert 3 * weights < measured < 20 * weights


def test_two_commands_run_in_turns() -> None:
    code = "print('Time: 0.5s,  116.06/s  (0.5s,  110.00/s)')"
    told: list[str] = []
    commands = (
        Command("ours", (sys.executable, "-c", "print('226.06/s')"), _logged_rate),
        Command("peer", (sys.executable, "-c", code), _logged_rate),
    )
    result = beside(commands, 2, told.append)
    assert [line.split(":")[0] for line in told] == ["ours", "peer", "peer", "ours"]
    assert result["images_per_s"]["peer"]["median"] == pytest.approx(113.03)
    assert result["rate_ratio"]["median"] == pytest.approx(226.06 / 113.03)
    assert result["time_ratio"]["repeats"] == 2


def test_a_peer_that_tells_no_rate() -> None:
    quiet = (sys.executable, "-c", "pass")
    commands = tuple(Command(name, quiet, _logged_rate) for name in ("ours", "peer"))
    result = beside(commands, 1, silent)
    assert result["rate_ratio"] is None
    assert result["seconds"]["peer"]["median"] > 0


def test_our_rate_is_that_of_the_record(tmp_path: Path) -> None:
    folder = write_run(tmp_path, fake_run(NANO.variant("gelu")))
    recorded = json.loads((folder / "result.json").read_text())
    assert _our_rate("", tmp_path) == recorded["images_per_s"]
    assert _our_rate("", tmp_path / "gone") is None


def test_rates_in_logs() -> None:
    assert _logged_rate("116 images/s and 120.5 img/s", Path()) == pytest.approx(118.25)
    assert _logged_rate("3 epochs, 1.2 steps/second, v1.2.3", Path()) is None


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        ("no_such_program_here --x", UserError, "no such program"),
        ("", UserError, "an empty command"),
        ("echo 'unfinished", UserError, "No closing quotation"),
        (f"{sys.executable} -c 'import sys; sys.exit(\"out of luck\")'", RunFailed, "out of luck"),
    ],
)
def test_a_peer_that_cannot_run(
    command: str, error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convnext_study.benchmarks.peer.interleave", _peer_only)
    with pytest.raises(error, match=says):
        peer(command, "steps", 1, silent)


def _peer_only(measures: dict[str, Any], _: int) -> Any:
    return measures["peer"]()


def test_parts_are_checked(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "--parts", "speed", "--out", str(tmp_path)])
    assert isinstance(done.exception, UserError)
    assert "use networks" in str(done.exception)
