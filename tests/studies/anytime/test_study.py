"""The whole study, tiny: trained, reported, on the page, and used again by the commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.command import Command
from support.dense import make_pairs
from support.pages import on_screen

from convnext_study.evaluation.evaluate import evaluate_by_task
from convnext_study.evaluation.load_run import load_run
from convnext_study.experiments.context import Context
from convnext_study.experiments.data_identity import identify
from convnext_study.experiments.study_file import StudyFile, load_study, make_context
from convnext_study.export import formats
from convnext_study.report.findings import Finding, StudyFigure, write_findings
from convnext_study.report.page import render
from convnext_study.report.tables import Table
from convnext_study.report.tables.render import Screen
from convnext_study.results.load import load_results
from convnext_study.runs.records import Record, scan
from convnext_study.studies.anytime.arm_exits import CLAIMS
from convnext_study.studies.anytime.arms import arms_of
from convnext_study.studies.anytime.load_checkpointed import THRESHOLDS
from convnext_study.studies.anytime.skipping.compiled import build_name
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

FILE = Path(__file__).parents[3] / "ablations" / "anytime.py"
TINY, NARROW = "digit-canvas:32,16,6", "hrnet_digits_narrow"


@pytest.fixture(scope="module")
def file() -> StudyFile:
    return load_study(FILE)


def context_of(file: StudyFile, data: str, seeds: tuple[int, ...] = (0,)) -> Context:
    changes = {"epochs": 1, "global_batch_size": 8}
    return make_context(file, None, data=data, seeds=seeds, networks=(NARROW,), changes=changes)


@pytest.fixture(scope="module")
def study(file: StudyFile, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Context]:
    """Every arm, trained for two steps with two seeds."""
    folder, context = tmp_path_factory.mktemp("study"), context_of(file, TINY, (0, 1))
    for run in file.runs(context):
        train(run, folder / "runs" / run.id)
    return folder, context


@pytest.fixture(scope="module")
def reported(file: StudyFile, study: tuple[Path, Context]) -> list[Finding]:
    found = file.report(list(scan(study[0] / "runs")), study[1])
    assert isinstance(found, list)
    return found


def tables_of(reported: Sequence[object]) -> dict[str, Table[object]]:
    return {one.name: one for one in reported if isinstance(one, Table)}


def test_every_exit_of_every_arm_is_reported(file: StudyFile, reported: list[Finding]) -> None:
    assert file.data == "digit-signs"
    assert file.folder("digit-signs") == Path("runs/anytime-digit-signs")
    tables = tables_of(reported)
    rows = tables["anytime_exits"].records()
    exits = [(row["arm"], row["exit"]) for row in rows]
    several = {"ee", "rh", "ca", "random"}
    assert exits == [
        (arm.name, exit)
        for arm in arms_of(NARROW)
        for exit in range(1, 5 if arm.name in several else 2)
    ]
    for row in rows:
        assert row["milliseconds"] > 0
        assert (row["macs"] == row["dense"]) == (row["computed"] == 100)
        assert 0 <= row["ece"] <= 100
    claims = tables["anytime_claims"].records()
    assert len(claims) == sum(len(claim.exits) for claim in CLAIMS)
    assert all(row["ci_low"] <= row["diff"] <= row["ci_high"] for row in claims)
    swept = tables["anytime_thresholds"].records()
    assert [row["threshold"] for row in swept] == list(THRESHOLDS)
    dense = next(row["dense"] for row in rows if row["arm"] == "ca" and row["exit"] == 4)
    assert swept[0]["threshold"] == 1
    assert swept[0]["macs_exit4"] == dense
    assert swept[-1]["macs_exit4"] != dense


@pytest.mark.usefixtures("plain_page")
def test_the_page_shows_curve_and_panel(
    reported: list[Finding], study: tuple[Path, Context]
) -> None:
    folder = study[0]
    written = {path.name for path in write_findings("anytime", reported, folder)}
    assert written >= {"anytime_curve.png", "anytime_panel.svg", "anytime_exits.csv"}
    html = unescape(render(load_results(folder)).html)
    titles = [one.title for one in reported if isinstance(one, StudyFigure)]
    assert len(titles) == html.count("data:image/svg+xml;base64,") == 2
    for title in (*titles, *(table.title for table in tables_of(reported).values())):
        assert title in html
    panel = (folder / "anytime_panel.svg").read_text()
    assert "yellow: 1, dark: 0" in panel and "background" in panel
    assert "MIoU" not in html
    with Image.open(folder / "anytime_curve.png") as image:
        assert min(image.size) > 400


def test_one_seed_without_weights_is_reported(file: StudyFile, study: tuple[Path, Context]) -> None:
    records: list[Record] = []
    for record in scan(study[0] / "runs"):
        if record.run.seed == 0:
            moved = study[0] / "nowhere" / record.run.id
            records.append(record.model_copy(update={"folder": moved}))
    found = file.report(records, context_of(file, TINY))
    tables = tables_of(found)
    assert set(tables) == {"anytime_exits", "anytime_claims"}
    assert any("One seed" in note for note in tables["anytime_claims"].notes)
    assert {row["significant"] for row in tables["anytime_claims"].records()} == {None}
    away = [one for one in found if isinstance(one, str) and "weights are missing" in one]
    assert len(away) == len(arms_of(NARROW))


@pytest.mark.parametrize("arm", ["deep", "ca"])
def test_an_arm_alone_is_reported(file: StudyFile, study: tuple[Path, Context], arm: str) -> None:
    """As a study that was stopped leaves it."""
    records = [one for one in scan(study[0] / "runs") if one.run.metadata["row"] == arm]
    found = tables_of(file.report(records, study[1]))
    assert {row["arm"] for row in found["anytime_exits"].records()} == {arm}


def test_measured_once(
    file: StudyFile, reported: list[Finding], study: tuple[Path, Context]
) -> None:
    """What was measured of a network stands, until the weights or the kernels are others."""
    first = tables_of(reported)["anytime_exits"].records()
    kept = next((study[0] / "anytime-measured").glob("ca-*-milliseconds.json"))
    whole = kept.read_text()
    changed = json.loads(whole)
    assert changed["by"]["kernels"] == build_name()
    changed["by"]["kernels"] = "skipping-of-another-machine"
    kept.write_text(json.dumps(changed))
    next(kept.parent.glob("ca-*-thresholds.json")).write_text("{")
    again = tables_of(file.report(list(scan(study[0] / "runs")), study[1]))
    found = again["anytime_exits"].records()
    assert [row["miou"] for row in found] == [row["miou"] for row in first]
    others = [(one, other) for one, other in zip(found, first, strict=True) if one["arm"] != "ca"]
    assert all(one["milliseconds"] == other["milliseconds"] for one, other in others)
    assert kept.read_text() != whole


def test_eval_measures_a_run_again(study: tuple[Path, Context]) -> None:
    for record in scan(study[0] / "runs"):
        if record.run.seed == 0 and record.run.metadata["row"] in ("ca", "random", "deep"):
            again = evaluate_by_task(load_run(record.folder), TINY, Runtime())
            assert record.result is not None
            values = {name: one.value for name, one in record.result.metrics.items()}
            assert {name: one.value for name, one in again.metrics.items()} == pytest.approx(values)
            assert again.primary == record.result.primary


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eval"], "mIoU"),
        (["export"], "use --to onnx or pt2"),
        (["eval", "--crop-pct", "0.5"], "--crop-pct"),
    ],
)
def test_commands_take_its_runs_or_refuse_in_a_line(
    study: tuple[Path, Context], arguments: list[str], says: str, command: Command
) -> None:
    run = next((study[0] / "runs").glob("ca-s0-*"))
    code, out, errors = command(*arguments, str(run))
    assert says in out + errors
    assert "cannot be opened" not in out + errors
    if code:
        assert len((out + errors).splitlines()) == 1


@pytest.mark.parametrize(("arm", "exits"), [("ca", 4), ("deep", 1)])
def test_a_network_is_exported_with_the_exits_that_answer(
    study: tuple[Path, Context],
    arm: str,
    exits: int,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    given: list[tuple[torch.Size, int]] = []

    def writer(export: Any) -> Any:
        given.append((export.images.shape, len(export.net(export.images))))
        return export.net

    monkeypatch.setitem(formats.FORMATS, "pt2", writer)
    run = next((study[0] / "runs").glob(f"{arm}-s0-*"))
    ended = command("export", "--to", "pt2", str(run))
    assert (ended.code, given) == (0, [((3, 3, 32, 32), exits)])
    assert "largest difference 0," in ended.out


def test_a_folder_of_images_and_masks(file: StudyFile, tmp_path: Path) -> None:
    """JPEGs, not square: the same study."""
    data = make_pairs(tmp_path / "data", 8, size=(64, 96))
    context = context_of(file, f"pairs:{data}")
    for run in identify(file.runs(context)):
        if run.metadata["row"] in ("plain", "rh", "ca"):
            train(run, tmp_path / "runs" / run.id)
    reported = file.report(list(scan(tmp_path / "runs")), context)
    assert {"anytime_exits", "anytime_claims", "anytime_thresholds"} <= set(tables_of(reported))
    assert sum(isinstance(one, StudyFigure) for one in reported) == 2
    screen = on_screen(Screen(tables_of(reported)["anytime_exits"]), width=140)
    assert "RH, confidence adaptivity (CA)" in screen
