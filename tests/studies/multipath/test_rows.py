"""The study of the multi-path networks: its rows, what it says of records, and its counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from support.fakes import write_run

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import StudyFile, load_study, make_context
from convnext_study.models.builders import get_builder
from convnext_study.recipes import make_recipe
from convnext_study.report.figures.roadmap import draw
from convnext_study.report.findings import write_findings
from convnext_study.report.page import render
from convnext_study.report.tables import Table
from convnext_study.report.tables.render import Screen
from convnext_study.results.effects import Effects
from convnext_study.results.load import ReportOptions, load_results
from convnext_study.results.summary import summarize
from convnext_study.runs.records import Record, Run, scan
from convnext_study.studies.multipath.findings import CLAIMS, PAPER
from convnext_study.studies.multipath.growth import FACTORS, exponent, growth, parts, sentences
from convnext_study.studies.multipath.rows import FULL, REDUCED, ROWS, is_full, runs_of
from convnext_study.studies.multipath.spec import SMALL, MultipathSpec

FILE = Path(__file__).parents[3] / "ablations" / "multipath.py"
FLAT = {row.name: 90.0 for row in ROWS}


@pytest.fixture(scope="module")
def file() -> StudyFile:
    return load_study(FILE)


def context_of(file: StudyFile, **fields: Any) -> Context:
    return make_context(file, None, **fields)


def row_of(run: Run) -> str:
    return str(run.metadata["row"])


def finished(
    folder: Path, runs: Iterable[Run], top1: Mapping[str, float], spread: float = 0.4
) -> list[Record]:
    """Records of these runs; seeds lie ``spread`` apart, alike in all rows but for the last."""
    for run in runs:
        noise = spread * ((run.seed * 7 + len(row_of(run))) % 3 - 1)
        size = {"params": 1_325_002, "macs": 206_200_000}
        write_run(
            folder, run, top1=top1[row_of(run)] + noise, result={**size, "val_images": 10_000}
        )
    return list(scan(folder / "runs"))


def claims(file: StudyFile, records: list[Record], context: Context) -> Effects:
    (found,) = [one for one in file.report(records, context) if isinstance(one, Effects)]
    return found


def printed(file: StudyFile, records: list[Record], context: Context) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        for one in file.report(records, context):
            if not isinstance(one, Effects):
                console.print(Screen(one) if isinstance(one, Table) else one)
    return capture.get()


def test_the_road_at_both_sizes() -> None:
    full = {row_of(run): run for run in runs_of("cifar10:x", (0,), None, {})}
    assert list(full) == [row.name for row in ROWS]
    sizes = {}
    for name, run in full.items():
        with torch.device("meta"):
            net = get_builder(run.model.builder)(
                run.model.args, num_classes=10, drop_path=0.0, init="kaiming"
            )
        sizes[name] = sum(p.numel() for p in net.parameters())
    assert sizes["paths"] == sizes["depths"] == 1_325_002
    assert sizes["resnet18"] == 11_173_962
    assert sizes["se_resnet18"] == 11_263_042
    assert abs(sizes["channels"] / sizes["paths"] - 1) < 0.01, "widened to one size"
    assert abs(sizes["large"] / sizes["large_paths"] - 1) < 0.01
    small = {row_of(run): run for run in runs_of("digits", (0,), None, {})}
    assert list(small) == list(full)[:-2]
    for name, run in small.items():
        whole = MultipathSpec.from_dict(full[name].model.args)
        reduced = whole.replace(width=whole.width // 4)
        assert MultipathSpec.from_dict(run.model.args) == reduced
    assert small["depths"].key != full["depths"].key


def test_every_row_is_compared_with_one_of_the_same_request() -> None:
    for data in ("digits", "cifar10:x"):
        runs = runs_of(data, (0,), None, {})
        names = {run.name for run in runs}
        for run in runs:
            assert run.metadata["parent"] is None or run.metadata["parent"] in names
            assert "reconstruction" in run.metadata["section"] or "resnet18" in run.name


@pytest.mark.parametrize(
    ("data", "recipe", "full"),
    [
        ("digits", None, False),
        ("folder:x", None, False),
        ("cifar100:x", None, True),
        ("folder:x", "published", True),
        ("cifar10:x", "small", False),
        ("cifar10:x", "modern-small", True),
    ],
)
def test_the_size_follows_data_and_recipe(data: str, recipe: str | None, full: bool) -> None:
    assert is_full(data, recipe) is full
    run = runs_of(data, (0,), recipe, {"epochs": None})[0]
    made = make_recipe(run.recipe)
    if recipe != "modern-small":
        assert made.epochs == (FULL if full else REDUCED).epochs


def test_a_folders_images_are_brought_to_size_and_the_command_line_decides() -> None:
    # The command line gives None for what it was not told.
    unset = {"image_size": None, "epochs": None}
    assert runs_of("folder:x", (0,), None, unset)[0].recipe["image_size"] == 32
    assert runs_of("digits", (0,), None, unset)[0].recipe["image_size"] == 16
    assert runs_of("digits", (0,), None, {"image_size": 24})[0].recipe["image_size"] == 24
    assert runs_of("cifar10:x", (0,), None, unset)[0].recipe["image_size"] is None


@pytest.mark.parametrize(("gain", "significant"), [(3.0, True), (-3.0, True), (0.0, False)])
def test_a_claim_is_what_the_runs_say(
    tmp_path: Path, file: StudyFile, gain: float, significant: bool
) -> None:
    context = context_of(file, seeds=(0, 1, 2))
    records = finished(tmp_path, file.runs(context), {**FLAT, "depths": 90 + gain})
    found = claims(file, records, context)
    (line,) = [one for one in found.rows if one.name == "depths"]
    assert line.significant is significant
    assert line.diff == pytest.approx(gain, abs=0.9)
    assert line.interval is not None and line.interval.low < line.diff < line.interval.high
    words = next(note for note in found.notes if note.startswith("1:"))
    direction = {3.0: "upwards", -3.0: "downwards", 0.0: "not significant"}[gain]
    assert direction in words


def test_attention_that_needs_different_depths_is_seen(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file, seeds=(0, 1, 2))
    tops = {**FLAT, "depths_se": 94.0}
    found = claims(file, finished(tmp_path, file.runs(context), tops), context)
    significant = {line.name: line.significant for line in found.rows}
    assert significant["depths_se"] and significant["more_se"]
    assert not (significant["paths_se"] or significant["depths_path"] or significant["more_path"])


def test_one_seed_tests_images_and_no_interaction(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file, data="cifar10:x")
    records = finished(tmp_path, file.runs(context), FLAT, spread=0)
    found = claims(file, records, context)
    assert {line.name for line in found.rows} == {name for name, _, _ in CLAIMS}
    assert any("One seed" in note for note in found.notes)


def test_the_table_tells_the_papers_numbers_from_ours(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file)
    records = finished(tmp_path, file.runs(context), FLAT, spread=0)
    text = printed(file, records, context)
    assert "reconstruction" in text and "a quarter as wide" in text
    assert "not measured here" in text and "44.70" in text
    lines = [line.strip("└ ") for line in text.splitlines()]
    for name, paper in PAPER.items():
        label = next(row.label for row in ROWS if row.name == name)
        line = next(one for one in lines if one.startswith(f"{label}  "))
        assert f"{paper.mb:g}" in line
        assert ("not run" in line) is (name in ("resnet18", "se_resnet18"))
    assert "5.300" in text and "206.20" in text


def test_the_studys_own_figure_has_room_for_its_headings(tmp_path: Path, file: StudyFile) -> None:
    for data in ("digits", "cifar10:x"):
        asked = file.runs(context_of(file, data=data))
        rows = summarize(finished(tmp_path / data[:5], asked, FLAT), asked)
        assert draw(rows, tmp_path, kinds=("svg",))


def test_nothing_is_said_of_nothing(file: StudyFile) -> None:
    assert file.report([], context_of(file)) == []


def test_the_findings_stand_on_the_page_and_in_files(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file, seeds=(0, 1))
    records = finished(tmp_path, file.runs(context), {**FLAT, "depths": 94.0})
    written = write_findings("multipath", file.report(records, context), tmp_path)
    names = {path.name for path in written}
    assert names >= {"multipath.csv", "multipath_claims.json", "multipath_growth.png"}
    assert (tmp_path / "multipath_growth.svg").stat().st_size > 5_000
    html = render(load_results(tmp_path), ReportOptions()).html
    tested = claims(file, records, context)
    for text in ("Findings of the study multipath", tested.title, *tested.notes, *sentences()):
        assert text.strip() in unescape(html)
    for row in tested.rows:
        assert row.label in unescape(html)
    assert html.count("data:image/svg+xml;base64,") == 2  # the claims' bars, and the growth


def test_widening_is_counted() -> None:
    for way in ("paths", "channels"):
        assert growth(way, 1).total == parts(SMALL).total == 1_325_002
        for factor in FACTORS:
            one = growth(way, factor)
            wide = (
                SMALL.replace(depths=tuple(sorted(SMALL.depths * factor)))
                if way == "paths"
                else SMALL.replace(width=16 * factor)
            )
            assert one.total == parts(wide).total
    assert exponent("paths", "conv3") == 1.0
    assert exponent("channels", "conv3") == pytest.approx(2, abs=0.01)
    # What the paper's claim leaves out: 1x1 convolutions join all channels either way.
    assert exponent("paths", "conv1") == pytest.approx(2, abs=0.01)
    assert growth("paths", 8).conv1 == growth("channels", 8).conv1
    assert 1 < exponent("paths", "total") < exponent("channels", "total")


def test_the_3x3_convolutions_are_those_of_the_network() -> None:
    from support.multipath_nets import meta

    net = meta(SMALL)
    weights = sum(
        one.weight.numel()
        for name, one in net.named_modules()
        if name.startswith("stages") and getattr(one, "kernel_size", None) == (3, 3)
    )
    norms = sum(2 * width * sum(SMALL.depths) * SMALL.modules for width in SMALL.path_widths())
    assert growth("paths", 1).conv3 == weights + norms


def test_a_folder_of_images_trains_unchanged(tmp_path: Path, file: StudyFile) -> None:
    from convnext_study.training.runtime import Runtime
    from convnext_study.training.tasks.classification import Classification

    for split, name in ((s, n) for s in ("train", "val") for n in ("cat", "dog")):
        place = tmp_path / split / name
        place.mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (40, 36), (60 * index, 9, 9)).save(place / f"{index}.png")
    data = f"folder:{tmp_path}"
    runs = {row_of(one): one for one in file.runs(context_of(file, data=data))}
    task = Classification(runs["depths"], Runtime())
    assert task.image_shape == (3, 32, 32)
    net = task.build()
    batch = next(task.train_batches(0, 0))
    loss, images = task.loss(net, batch)
    loss.backward()
    assert images == 4 and torch.isfinite(loss)
