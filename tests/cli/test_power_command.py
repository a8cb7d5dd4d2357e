"""`convnext-study power`: from measured or published deviations to a number of seeds."""

import json
from pathlib import Path

import pytest
from support.fakes import fake_runs, write_study
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.errors import UserError
from convnext_study.results.paper import paper_std
from convnext_study.results.statistics.intervals import PooledStd
from convnext_study.results.statistics.power import seeds_needed


def ask(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["power", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_papers_deviation_is_the_default() -> None:
    needed = seeds_needed(0.3, paper_std())
    text = ask("--effect", "0.3")
    assert text.startswith(f"{needed.seeds} seeds per network")
    assert "Table 10" in text
    assert "80 % of studies" in text or f"{100 * needed.reached:.0f} % of studies" in text


def test_smaller_effects_and_more_steps_take_more_seeds() -> None:
    def seeds(*more: str) -> int:
        return int(json.loads(ask("--json", *more))["seeds"])

    few = seeds("--effect", "0.3")
    assert few < seeds("--effect", "0.1")
    assert few < seeds("--effect", "0.3", "--steps", "15")
    assert few < seeds("--effect", "0.3", "--power", "0.95")


def test_deviations_of_a_study_are_pooled_over_its_networks(tmp_path: Path) -> None:
    runs = [run for run in fake_runs(seeds=(0, 1, 2)) if run.metadata["order"] < 4]
    write_study(tmp_path, runs, spread=0.8)
    found = json.loads(ask("--effect", "1", "--study", str(tmp_path), "--json"))
    assert "4 networks" in found["source"]
    assert 0.3 < found["std"] < 1.6
    assert found["seeds"] > json.loads(ask("--effect", "1", "--json"))["seeds"]


def test_bad_requests(tmp_path: Path) -> None:
    write_study(tmp_path / "one", fake_runs()[:3])
    for arguments, says in (
        (["--effect", "0"], "an effect of 0 points"),
        (["--effect", "1e-6"], "more than 100000 seeds"),
        (["--effect", "1", "--study", str(tmp_path / "none")], "no such folder"),
        (["--effect", "1", "--study", str(tmp_path / "one")], "no network has two finished seeds"),
        (["--effect", "1", "--alpha", "2"], "alpha 2"),
        (["--effect", "1", "--power", "1"], "power 1 and"),
    ):
        with pytest.raises(UserError, match=says):
            ask(*arguments)
    with pytest.raises(UserError, match="standard deviation of 0: both must"):
        seeds_needed(0.3, PooledStd(0, 3, "a study"))
