"""The report from fake records: what it says, what it keeps apart, what it writes. No browser."""

import re
from html import unescape
from pathlib import Path

import pytest
from support.fakes import fake_run, fake_runs, locked, write_run, write_study
from support.pages import data_in, page_of, set_commit, text_in

from convnext_study.errors import UserError
from convnext_study.report.figures import style
from convnext_study.report.page import render
from convnext_study.report.text import ONE_SEED
from convnext_study.results.grouping import group
from convnext_study.results.load import StudyFolder, load_results
from convnext_study.results.summary import summarize
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import PAPER
from convnext_study.runs.records import scan

NANO = get_roadmap("nano")
EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The ResNet-50 road with three seeds, as long and as large as on ImageNet."""
    path = tmp_path_factory.mktemp("imagenet")
    top1 = {name: row.top1 for name, row in PAPER["t"].items()}
    runs = fake_runs("t", (0, 1, 2), data="folder:/home/me/imagenet")
    write_study(path, runs, top1=top1, spread=0.1, val_images=50_000)
    return load_results(path)


@pytest.fixture(scope="module")
def html(imagenet: StudyFolder) -> str:
    return render(imagenet).html


# The page


def test_the_page_is_self_contained_and_small(html: str) -> None:
    assert len(html.encode()) < 500_000
    loading = re.findall(
        r'(?:src|srcset|action|data)="|@import|url\(|<(?:iframe|object|base|img)', html
    )
    assert loading == []
    links = set(re.findall(r'href="([^"]*)"', html))
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy and unescape(policy[1]).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1] and "http:" not in policy[1] and "https:" not in policy[1]
    assert "/home/me" not in html  # where the data lies is no one else's business
    assert 'http-equiv="refresh"' not in html


def test_every_link_and_label_leads_somewhere(html: str) -> None:
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    led = re.findall(r'href="#([^"]+)"', html)  # of links, and of curves that are drawn again
    led += re.findall(r'aria-controls="([\w-]+)"', html)
    assert len(led) > 17 * 2
    assert set(led) <= set(ids)
    assert len(data_in(html)[0]["rows"]) == 17


def test_figures_take_their_colours_from_the_page(html: str) -> None:
    """And have nothing that the page's policy would refuse."""
    found = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(found) == 2 + 3 + 17 * 3 + 1  # roads, curves, curves of steps, cost
    for svg in found:
        assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []
        assert not re.search(r"\sstyle=|clip-path|font-family|<style", svg)
    used = set(re.findall(r"var\(--(\w+)\)", " ".join(found)))
    assert used <= set(style.COLOURS) and {"bar", "deep", "mark", "c0", "c7"} <= used
    dark = style._CSS.split("prefers-color-scheme: dark")[1].split("}")[0]
    assert set(re.findall(r"--(\w+):", dark)) >= used


def test_text_of_records_is_text(tmp_path: Path) -> None:
    run = fake_run(NANO.variant("gelu"), data=EVIL)
    run = run.model_copy(update={"study": EVIL, "metadata": {**run.metadata, "label": EVIL}})
    write_run(tmp_path, run)
    failed = run.model_copy(update={"seed": 1, "recipe": {**run.recipe, "name": EVIL}})
    write_run(tmp_path, failed, status="failed")
    html = render(load_results(tmp_path)).html
    assert re.findall(r"<script[^>]*>", html) == [
        '<script type="application/json" id="numbers">',
        "<script>",
    ]
    assert html.count("</script>") == 2
    assert data_in(html)[0]["study"] == EVIL
    assert text_in(html).count("alert(1)") > 5


# What it says


def test_several_seeds_are_tested_by_welch_and_a_pooled_test_is_secondary(
    imagenet: StudyFolder, html: str
) -> None:
    study = imagenet.studies[0]
    assert set(study.tests.primary) == set(study.tests.pooled) == {r.name for r in study.rows[1:]}
    said = text_in(html)
    assert "Welch's t test on 3 and 3 seeds" in said
    assert "pooled over 17 rows of this study" in said and "decides nothing" in said
    assert "Of 16 comparisons" in said and "Holm p" in said
    assert ONE_SEED not in said
    gelu = study.tests.primary["gelu"]
    assert f"{gelu.difference.diff:+.2f} points" in said
    assert gelu.p_adjusted is not None
    assert gelu.significant == (gelu.p_adjusted <= 0.05) == (study.rows[12].significant)
    assert "Agreement with the paper's Table 10" in said
    assert "other data, network sizes or recipes need not agree" in said


@pytest.mark.usefixtures("plain_page")
def test_memory_and_what_runs_got_over_are_told(tmp_path: Path) -> None:
    two = write_study(tmp_path / "two", fake_runs()[:2], skipped_steps=2, peak_memory=3 * 2**30)
    page = page_of(two)
    assert "4 steps were skipped because of a non-finite loss" in page
    assert "cannot be read" not in page
    assert "peak memory" in page
    assert "3.22 GB" in page
    plain = page_of(write_study(tmp_path / "plain", fake_runs()[:2]))
    assert "peak memory" not in plain
    assert "skipped because" not in plain


@pytest.mark.usefixtures("plain_page")
def test_an_empty_study_has_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, fake_run(NANO.variant("gelu")), status="new")
    assert "No run is finished yet" in page_of(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="contains no runs"):
        load_results(tmp_path / "x")
    with pytest.raises(UserError, match="no such folder"):
        load_results(tmp_path / "nowhere")


# What is kept apart


@pytest.mark.usefixtures("plain_page")
def test_runs_that_disagree_or_are_not_done_stand_apart(tmp_path: Path) -> None:
    write_study(tmp_path, fake_runs(seeds=(0, 1)), spread=0)
    variant = NANO.variant("gelu")
    write_run(tmp_path, fake_run(variant, 2, epochs=3), top1=50)
    write_run(tmp_path, fake_run(variant, 3, data="cifar10:here"), top1=50)
    write_run(tmp_path, fake_run(variant, 4), top1=50)
    set_commit(tmp_path, [fake_run(variant, 4)], "f" * 40)
    write_run(tmp_path, fake_run(variant, 5), status="failed")
    write_run(tmp_path, fake_run(variant, 6), status="unfinished", epochs=4)
    path = write_run(tmp_path, fake_run(variant, 7), status="running")
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    with locked(path):
        folder = load_results(tmp_path)
    study = folder.studies[0]
    row = next(row for row in study.rows if row.name == "gelu")
    assert set(row.seeds) == {0, 1} and row.value is not None and row.value > 90
    assert {one.seed: one.reason for one in study.excluded} == {
        2: "recipe epochs: 3, not 10",
        3: "data: cifar10:here, not digits",
        4: "commit ffffffffff, not commit 0123456789",
        5: "failed after epoch 2 of 10: TrainingError: the loss is nan at step 41",
        6: "stopped, after epoch 4 of 10",
        7: "running, after epoch 2 of 10",
    }
    assert [one.run for one in folder.unreadable] == ["broken"]
    said = text_in(render(folder).html)
    assert all(one.reason in said for one in study.excluded) and "Unreadable runs" in said


def test_a_row_of_another_commit_is_not_compared(tmp_path: Path) -> None:
    runs = fake_runs(seeds=(0,))
    write_study(tmp_path, runs)
    gelu = next(run for run in runs if run.name == "gelu")
    set_commit(tmp_path, [gelu], "abc")
    rows = {row.name: row for row in summarize(scan(tmp_path))}
    assert rows["gelu"].value is not None and rows["gelu"].gain is None
    assert rows["gelu"].remarks == ("not compared with kernel_7: commit 0123456789",)
    assert rows["fewer_activations"].gain is None and rows["layer_norm"].gain is not None
    mixed = load_results(tmp_path, any_commit=True).studies[0]
    assert all(row.gain is not None for row in mixed.rows[1:])


def test_without_a_commit_the_version_tells(tmp_path: Path) -> None:
    for seed in range(3):
        run = fake_run(NANO.variant("gelu"), seed)
        write_run(tmp_path, run)
        set_commit(tmp_path, [run], None if seed else "abc")
    made = group(scan(tmp_path))[0]
    assert set(made.seeds) == {1, 2}
    assert made.code == "version not recorded"
    assert [one.reason for one in made.excluded] == ["commit abc, not version not recorded"]
