"""What notebooks import from the package itself: build, count, train, load, compare, draw."""

import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.spawn import get_preparation_data
from pathlib import Path

import pytest

from convnext_study import Step, compare, figure, load_results, roadmap, run_roadmap, train
from convnext_study.api import TrainOptions
from convnext_study.cost import count
from convnext_study.errors import RunFailed, UserError
from convnext_study.experiments.progress import Progress
from convnext_study.launchers.graph import Job, Outcome
from convnext_study.launchers.local import Local
from convnext_study.roadmap import ROADMAPS, StepError

SMALL: TrainOptions = {"batch_size": 128, "image_size": 32, "device": "cpu"}
WIDER = Step("expansion_6", "expansion 4 → 6", "Ours", "", {"expansion": 6})


def test_steps_are_networks_by_their_names() -> None:
    road = roadmap("nano")
    assert list(road) == [variant.name for variant in ROADMAPS["nano"].variants()]
    net = road["gelu"].build(num_classes=3)
    assert net.num_classes == 3
    assert road["gelu"].cost().macs == count(road["gelu"].build(), (3, 64, 64)).macs
    assert list(roadmap("nano", WIDER))[-1] == WIDER.name
    assert roadmap("nano", WIDER)[WIDER.name].variant.spec.expansion == 6
    assert "glu" not in road
    with pytest.raises(StepError, match="did you mean gelu"):
        road["glu"]


def test_a_road_is_trained_loaded_compared_and_drawn(tmp_path: Path, trains_here: None) -> None:
    states: list[list[str]] = []

    def on_progress(runs: object) -> None:
        assert isinstance(runs, list) and all(isinstance(run, Progress) for run in runs)
        states.append([run.state for run in runs])

    found = run_roadmap(
        roadmap("nano", WIDER),
        ["separate_downsampling", WIDER.name],
        seeds=2,
        data="digits",
        epochs=1,
        folder=tmp_path,
        progress=on_progress,
        **SMALL,
    )
    assert states[-1] == ["done"] * 4
    last, own = found.rows
    assert (own.name, own.parent, sorted(own.seeds)) == (WIDER.name, last.name, [0, 1])
    assert own.gain is not None and own.value is not None and last.value is not None
    assert compare(found, own.name).difference.diff == pytest.approx(own.value - last.value)
    table = load_results(tmp_path).to_pandas()
    assert list(table["value"]) == pytest.approx([last.value, own.value])
    assert {"macs", "ci_low", "significant"} <= set(table)
    assert len(repr(found)) < 200
    figure(found, tmp_path / "road.svg")
    assert (tmp_path / "road.svg").stat().st_size > 1000
    # The same again trains nothing: the folder is the command line's.
    again = train(own.name, roadmap("nano", WIDER), seeds=[1], data="digits", epochs=1,
                  folder=tmp_path, progress=False, **SMALL)  # fmt: skip
    assert again[own.name].value == own.value
    assert sorted(again[own.name].seeds) == [0, 1]
    with pytest.raises(UserError, match="did you mean expansion_6"):
        again["expansion"]
    with pytest.raises(UserError, match="has no study 'pairs'"):
        load_results(tmp_path, "pairs")
    with pytest.raises(UserError, match="not a figure file"):
        figure(again, tmp_path / "road.txt")


def test_what_is_returned_is_what_was_trained(tmp_path: Path, trains_here: None) -> None:
    def epochs(count: int, seeds: int) -> int | None:
        found = train(
            "gelu",
            seeds=seeds,
            data="synthetic:2,32,16",
            epochs=count,
            folder=tmp_path,
            progress=False,
            **SMALL,
        )
        return found["gelu"].epochs

    assert epochs(1, seeds=2) == 1
    assert epochs(2, seeds=1) == 2


@pytest.mark.parametrize(
    ("status", "error"), [("failed", RunFailed), ("stopped", KeyboardInterrupt)]
)
def test_what_does_not_end_well_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, error: type[BaseException]
) -> None:
    def ends(_: Local, jobs: Sequence[Job], *__: object) -> list[Outcome]:
        return [Outcome(job.run, status, "no memory") for job in jobs]

    monkeypatch.setattr(Local, "run", ends)
    with pytest.raises(error):
        train("gelu", data="digits", epochs=1, folder=tmp_path, **SMALL)


def test_a_script_needs_no_guard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes that train import the caller's script otherwise, and would train all of it."""
    seen: list[set[str]] = []

    def ends(*_: object) -> list[Outcome]:
        seen.append({name for name in get_preparation_data("x") if name.startswith("init_main")})
        return []

    monkeypatch.setattr(sys.modules["__main__"], "__file__", "train.py", raising=False)
    monkeypatch.setattr(Local, "run", ends)
    train("gelu", data="digits", folder=tmp_path, **SMALL)
    assert seen == [set()]


def test_one_seed_of_a_list_is_that_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[int] = []

    def ends(_: Local, jobs: Sequence[Job], *__: object) -> list[Outcome]:
        seen.extend(job.run.seed for job in jobs)
        return []

    monkeypatch.setattr(Local, "run", ends)
    for seeds in ([3], [0], 1):
        train("gelu", data="digits", folder=tmp_path, seeds=seeds, **SMALL)
    assert seen == [3, 0, 0]


def test_importing_it_is_light() -> None:
    code = (
        "import sys\nfrom convnext_study import roadmap, train, run_roadmap, load_results\n"
        "from convnext_study import compare, figure\nroadmap('t')['gelu'].cost()\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "timm", "numpy", "pandas", "matplotlib", "rich", "typer"}
    assert not heavy & {name.split(".")[0] for name in done.stdout.split()}
