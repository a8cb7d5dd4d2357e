"""The study of the multi-path networks: its rows, and what it says of records."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fakes import write_run
from support.images import make_folder

from convnext_study.errors import UserError
from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import StudyFile, load_study, make_context
from convnext_study.models.builders import get_builder
from convnext_study.recipes import make_recipe
from convnext_study.report.findings import write_findings
from convnext_study.report.page import render
from convnext_study.report.tables import Table
from convnext_study.results.load import load_results
from convnext_study.runs.records import Record, Run, scan
from convnext_study.studies.multipath.findings import CLAIMS, PAPER
from convnext_study.studies.multipath.growth import sentences
from convnext_study.studies.multipath.rows import FULL, REDUCED, ROWS, is_full, runs_of
from convnext_study.studies.multipath.spec import MultipathSpec
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.classification import Classification

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
    """Records of these runs, each up to ``spread`` away from its row's accuracy."""
    for run in runs:
        noise = spread * random.Random(f"{row_of(run)} {run.seed}").uniform(-1, 1)
        size = {"params": 1_325_002, "macs": 206_200_000}
        write_run(
            folder, run, top1=top1[row_of(run)] + noise, result={**size, "val_images": 10_000}
        )
    return list(scan(folder / "runs"))


def tables(file: StudyFile, records: list[Record], context: Context) -> dict[str, Table[Any]]:
    return {one.name: one for one in file.report(records, context) if isinstance(one, Table)}


def claims(file: StudyFile, records: list[Record], context: Context) -> dict[str, dict[str, Any]]:
    """Rows of the table by their names."""
    table = tables(file, records, context)["multipath_claims"]
    return {str(row["name"]): row for row in table.records()}


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
    assert abs(sizes["channels"] / sizes["paths"] - 1) < 0.01, "widened to one size"
    assert abs(sizes["large"] / sizes["large_paths"] - 1) < 0.01
    small = {row_of(run): run for run in runs_of("digits", (0,), None, {})}
    assert list(small) == list(full)[:-2]
    for name, run in small.items():
        whole = MultipathSpec.from_dict(full[name].model.args)
        reduced = whole.replace(width=whole.width // 4)
        assert MultipathSpec.from_dict(run.model.args) == reduced
    for runs in (full, small):
        names = {run.name for run in runs.values()}
        for run in runs.values():
            assert run.metadata["parent"] in {None, *names}
            assert "reconstruction" in run.metadata["section"] or "resnet18" in run.name


def test_some_rows_are_the_runs_that_all_have_of_them() -> None:
    whole = {row_of(run): run for run in runs_of("digits", (0,), None, {})}
    some = runs_of("digits", (0,), None, {}, ("depths", "paths"))
    assert some == [whole["paths"], whole["depths"]]
    with pytest.raises(UserError, match=r"^network 'path'; did you mean paths\?$"):
        runs_of("digits", (0,), None, {}, ("path",))
    with pytest.raises(UserError, match="use one of plain, channels"):
        runs_of("digits", (0,), None, {}, ("resnet18",))


@pytest.mark.parametrize(
    ("data", "recipe", "given", "full", "size"),
    [
        ("digits", None, None, False, 16),
        ("digits", None, 24, False, 24),
        ("folder:x", None, None, False, 32),
        ("folder:x", "published", None, True, 32),
        ("cifar100:x", None, None, True, None),
        ("cifar10:x", "small", None, False, None),
        ("cifar10:x", "modern-small", None, True, None),
    ],
)
def test_sizes_follow_data_and_recipe(
    data: str, recipe: str | None, given: int | None, full: bool, size: int | None
) -> None:
    """Of the network, and of its images."""
    assert is_full(data, recipe) is full
    changes = {"image_size": given, "epochs": None}  # the command line's: None where unset
    made = make_recipe(runs_of(data, (0,), recipe, changes)[0].recipe)
    assert made.image_size == size
    if recipe != "modern-small":
        assert made.epochs == (FULL if full else REDUCED).epochs


def test_claims_are_of_the_runs_that_rows_average(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file, seeds=(0, 1, 2))
    records = [
        record.model_copy(
            update={"manifest": record.manifest | {"commit": "ab"[record.run.seed == 2] * 40}}
        )
        for record in finished(tmp_path, file.runs(context), {**FLAT, "depths": 92.0})
    ]
    of_one_commit = [record for record in records if record.run.seed < 2]
    assert claims(file, records, context) == claims(file, of_one_commit, context)


def test_attention_that_needs_different_depths_is_seen(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file, seeds=(0, 1, 2, 3, 4))
    tops = {**FLAT, "depths_se": 94.0}
    found = claims(file, finished(tmp_path, file.runs(context), tops), context)
    significant = {name for name, claim in found.items() if claim["significant"]}
    assert significant == {"depths_se-depths", "depths_se-depths-paths_se-paths"}
    assert found["depths_se-depths-paths_se-paths"]["diff"] == pytest.approx(4, abs=0.9)


def test_one_seed_tests_images_and_no_interaction(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file, data="cifar10:x")
    records = finished(tmp_path, file.runs(context), FLAT, spread=0)
    assert len(claims(file, records, context)) == sum(len(first) == 1 for _, first, _ in CLAIMS)
    notes = tables(file, records, context)["multipath_claims"].notes
    assert any("One seed" in note for note in notes)


def test_the_table_has_the_papers_numbers_beside_ours(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file)
    records = finished(tmp_path, file.runs(context), FLAT, spread=0)
    table = tables(file, records, context)["multipath"]
    assert "reconstruction" in table.title and "a quarter as wide" in table.title
    assert any("not measured here" in note for note in table.notes)
    labels = {row.label: row.name for row in ROWS}
    for row in table.records():
        name = labels[str(row["label"]).strip("└ ")]
        paper = PAPER.get(name)
        assert row["paper_mb"] == (paper and paper.mb)
        assert row["mean"] == (None if "resnet18" in name else 90.0)
        assert row["mb"] == (None if "resnet18" in name else pytest.approx(5.3, abs=1e-3))


def test_the_findings_stand_on_the_page_and_in_files(tmp_path: Path, file: StudyFile) -> None:
    context = context_of(file, seeds=(0, 1))
    assert file.report([], context) == []
    records = finished(tmp_path, file.runs(context), {**FLAT, "depths": 94.0})
    reported = file.report(records, context)
    names = {path.name for path in write_findings("multipath", reported, tmp_path)}
    assert names >= {"multipath.csv", "multipath_claims.json", "multipath_growth.png"}
    assert (tmp_path / "multipath_growth.svg").stat().st_size > 5_000
    html = unescape(render(load_results(tmp_path)).html)
    for table in tables(file, records, context).values():
        for text in (table.title, *table.notes):
            assert text.strip() in html
    for text in (*sentences(), *(words for words, *_ in CLAIMS if "ResNet" not in words)):
        assert text.strip() in html
    assert html.count("data:image/svg+xml;base64,") == 1


def test_a_folder_of_images_trains_unchanged(tmp_path: Path, file: StudyFile) -> None:
    asked = context_of(file, data=f"folder:{make_folder(tmp_path, count=2)}")
    runs = {row_of(one): one for one in file.runs(asked)}
    task = Classification(runs["depths"], Runtime())
    assert task.image_shape == (3, 32, 32)
    batch = next(task.train_batches(0, 0))
    loss, images = task.loss(task.build(), batch)
    loss.backward()
    assert images == 4 and torch.isfinite(loss)
