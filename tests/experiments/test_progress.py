"""The table on the terminal, and what is shown while a study runs."""

import re
from pathlib import Path
from typing import Any

import pytest
from support.fakes import fake_epochs, fake_run, fake_runs, locked, write_run, write_study
from support.pages import on_screen

from convnext_study.experiments.progress import (
    Progress,
    live_table,
    progress,
    total_left,
)
from convnext_study.report.tables.formatting import signed
from convnext_study.report.tables.render import Screen
from convnext_study.report.tables.results import terminal_table
from convnext_study.results.summary import summarize
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import scan

NANO = get_roadmap("nano")


# The table


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_and_is_plain_without_a_terminal(tmp_path: Path, width: int) -> None:
    runs = fake_runs("t", seeds=(0, 1, 2))
    write_study(tmp_path, runs[:-1], macs=4_145_600_000, status={"gelu": "failed"})
    rows = summarize(scan(tmp_path), runs)
    text = on_screen(Screen(terminal_table(rows)), width=width)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    by_label = {line.lstrip(" 0123456789").split("  ")[0]: line for line in lines}
    gelu = by_label["ReLU → GELU"]
    assert "failed" in gelu and "80.62" in gelu
    row = next(row for row in rows if row.name == "kernel_7")
    assert f"{row.value:.2f} ± {row.std:.2f}" in by_label["kernel size → 7"]
    assert "4.15" in by_label["kernel size → 7"]
    assert "  └ kernel size → 5" in text
    assert re.search(r"MACs,.*\n.* G ", text) and "ImageNet-1K" in text
    assert "the paper's own top-1, not measured here" in " ".join(text.split())
    assert "2/3" in text


def test_the_table_tells_noise_from_gains_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    write_study(tmp_path, fake_runs(seeds=(0, 1, 2)), spread=0.1, top1={"gelu": 80.0})
    write_run(tmp_path, fake_run(NANO.variant("layer_norm"), epochs=2))
    rows = summarize(scan(tmp_path))
    text = on_screen(Screen(terminal_table(rows)), width=100)
    gains = {row.name: signed(row.gain) for row in rows}
    assert f" {gains['gelu']}*" in text
    assert f"{gains['fewer_norms']} " in text and f"{gains['fewer_norms']}*" not in text
    marks = {row.name: row.significant for row in rows if row.gain is not None}
    assert marks["gelu"] and marks["fewer_norms"] is False
    assert "excluded from the means: layer_norm-s0-" in text
    assert "(recipe epochs: 2, not 10)" in text


def test_labels_are_text_and_not_markup(tmp_path: Path) -> None:
    run = fake_run(NANO.variant("gelu"))
    run = run.model_copy(update={"metadata": {"label": "[red]<b>[/nope]"}})
    write_run(tmp_path, run)
    records = list(scan(tmp_path))
    table = terminal_table(summarize(records)).with_notes("[bold]note")
    for shown in (Screen(table), live_table(progress(records, [run]))):
        assert "[red]<b>[/nope]" in on_screen(shown, width=100)


# Progress


def test_progress_of_every_state(tmp_path: Path) -> None:
    runs = [fake_run(NANO.variant("gelu"), seed) for seed in range(6)]
    states = ["done", "running", "failed", "unfinished", "new"]
    for run, status in zip(runs, states, strict=False):
        write_run(tmp_path, run, status=status, epochs=4, top1=97)  # type: ignore[arg-type]
    with locked(tmp_path / "runs" / runs[1].id):
        found = progress(scan(tmp_path), runs)
    assert [one.state for one in found] == [
        *("done", "running", "failed", "waiting", "waiting", "waiting"),
    ]
    assert [(one.epoch, one.epochs) for one in found] == [
        *((10, 10), (4, 10), (4, 10), (4, 10), (0, 10), (0, 10)),
    ]
    curve = fake_epochs(runs[1], 97.0, 4)
    assert (found[1].loss, found[1].value) == (curve[-1].loss, curve[-1].value)
    assert found[1].seconds_left is not None
    assert 5 * 0.9 <= found[1].seconds_left <= 6 * 0.9  # the epoch under way may have begun
    assert [one.seconds_left for one in found[2:]] == [None, pytest.approx(5.4), None, None]


def test_time_left_of_a_study() -> None:
    def one(state: Any, epoch: int, left: float | None) -> Progress:
        return Progress("id", "gelu", 0, state, epoch, 10, seconds_left=left)

    runs = [one("done", 10, 0), one("running", 5, 50), one("waiting", 0, None)]
    assert total_left(runs, jobs=1) == pytest.approx(150)  # half a run, and one as long
    assert total_left(runs, jobs=2) == pytest.approx(100)  # the last one alone
    assert total_left(runs[:1], jobs=1) is None
    assert total_left([one("waiting", 0, None)], jobs=1) is None


def test_the_live_table_keeps_to_its_height_and_shows_the_busy(tmp_path: Path) -> None:
    runs = fake_runs(seeds=(0, 1, 2))
    write_study(tmp_path, runs[:30], status={"gelu": "failed"})
    shown = progress(scan(tmp_path), runs)
    text = on_screen(live_table(shown, jobs=2, height=12))
    assert len(text.splitlines()) == 12 + 2  # head and caption
    assert text.count("failed") == 2 + 1  # the caption too
    assert "28 of 51 done, 2 failed" in " ".join(text.split())
    assert "39 not listed" in text
    assert "waiting" in text and " done" in text
    assert max(map(len, text.splitlines())) <= 80
