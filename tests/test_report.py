"""The report from fake records: what it says, what it keeps apart, what it writes. No browser."""

import csv
import json
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_run, fake_runs, locked, write_run, write_study
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.cli import report as command
from convnext_study.cli.reproduce import commands
from convnext_study.errors import BadRequest
from convnext_study.launching.context import Context
from convnext_study.launching.runs import parse_seeds, roadmap_runs
from convnext_study.records import Run, scan
from convnext_study.results.attribution import plan_exact, plan_near, plan_orders, sampled_orders
from convnext_study.results.report import Extras, write_report
from convnext_study.results.report.export import to_csv, to_latex, to_markdown
from convnext_study.results.report.gather import Folder, gather
from convnext_study.results.report.page import render
from convnext_study.results.report.tables import Column, Table, figure, words
from convnext_study.results.report.words import SCOPE_ONE_SEED, say
from convnext_study.results.report.worth import find_worth
from convnext_study.results.setups import group
from convnext_study.results.summary import summarize
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import PAPER

NANO = get_roadmap("nano")
EVIL = "</script><script>alert(1)</script>"


def page_of(folder: Path, **how: Any) -> str:
    return render(gather(folder), Extras(), **how).html


def data_in(html: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', html, re.S)
    assert found
    return list(json.loads(found[1]))


def text_in(html: str) -> str:
    """What a reader sees, roughly."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def set_commit(folder: Path, run: Run, commit: str | None) -> None:
    path = folder / "runs" / run.id / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "commit": commit}))


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The ResNet-50 road with three seeds, as long and as large as on ImageNet."""
    path = tmp_path_factory.mktemp("imagenet")
    top1 = {name: row.top1 for name, row in PAPER["t"].items()}
    runs = fake_runs("t", (0, 1, 2), data="folder:/home/me/imagenet")
    write_study(path, runs, top1=top1, spread=0.1, val_images=50_000)
    return gather(path)


# The page


def test_the_page_is_self_contained_and_small(imagenet: Folder) -> None:
    html = render(imagenet, Extras(show=lambda *_: "x" * 3000)).html
    assert len(html.encode()) < 2_000_000
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


def test_every_link_and_label_leads_somewhere(imagenet: Folder) -> None:
    html = render(imagenet, Extras()).html
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    led = re.findall(r'href="#([^"]+)"', html) + re.findall(r'aria-controls="([\w-]+)"', html)
    assert len(led) > 17 * 2
    assert set(led) <= set(ids)


def test_text_of_records_is_text(tmp_path: Path) -> None:
    run = fake_run(NANO.point("gelu"), data=EVIL)
    run = run.model_copy(update={"study": EVIL, "facts": {**run.facts, "label": EVIL}})
    write_run(tmp_path, run)
    failed = run.model_copy(update={"seed": 1, "recipe": {**run.recipe, "name": EVIL}})
    write_run(tmp_path, failed, status="failed")
    html = render(gather(tmp_path), Extras(show=lambda *_: EVIL)).html
    assert re.findall(r"<script[^>]*>", html) == [
        '<script type="application/json" id="numbers">',
        "<script>",
    ]
    assert html.count("</script>") == 2
    assert data_in(html)[0]["study"] == EVIL
    assert text_in(html).count("alert(1)") > 5


def test_numbers_of_the_page_are_the_rows(imagenet: Folder) -> None:
    rows = {row.name: row for row in summarize(scan(imagenet.path))}
    numbers = data_in(render(imagenet, Extras()).html)[0]["rows"]
    assert {one["name"]: one["top1"] for one in numbers} == {
        name: pytest.approx(row.top1) for name, row in rows.items()
    }


# What it says


def test_several_seeds_are_judged_by_both_tests(imagenet: Folder) -> None:
    study = imagenet.studies[0]
    assert set(study.tests.plain) == set(study.tests.pooled) == {r.name for r in study.rows[1:]}
    said = text_in(render(imagenet, Extras()).html)
    assert "paired t test on the differences of 3 seeds" in said
    assert "deviation between seeds pooled over 17 rows of this study" in said
    assert "Of 16 comparisons" in said and "Holm p" in said
    assert SCOPE_ONE_SEED not in said
    assert "Intervals and p are of each comparison alone" in said
    gelu = study.tests.plain["gelu"]
    assert f"{gelu.difference.points:+.2f} points" in said
    assert gelu.distinguishable == (gelu.p_corrected <= 0.05)
    assert "Agreement with the paper's Table 10" in said
    assert "another data set, size of network or recipe need not agree" in said


def test_one_seed_is_about_images_only(tmp_path: Path) -> None:
    write_study(tmp_path, fake_runs(), spread=0)
    study = gather(tmp_path).studies[0]
    assert SCOPE_ONE_SEED in say(study).summary
    assert study.tests.pooled == {} and study.tests.one_seed
    assert "none can be told from noise" in " ".join(say(study).summary)
    assert "~+0.17" in page_of(tmp_path)


def test_an_empty_study_has_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, fake_run(NANO.point("gelu")), status="new")
    assert "No run is done yet" in page_of(tmp_path)
    with pytest.raises(BadRequest, match="holds no run"):
        gather(tmp_path / "runs" / "..").path if (tmp_path / "x").mkdir() else gather(
            tmp_path / "x"
        )
    with pytest.raises(BadRequest, match="no such folder"):
        gather(tmp_path / "nowhere")


# What is kept apart


def test_runs_that_disagree_or_are_not_done_stand_apart(tmp_path: Path) -> None:
    write_study(tmp_path, fake_runs(seeds=(0, 1)), spread=0)
    point = NANO.point("gelu")
    write_run(tmp_path, fake_run(point, 2, epochs=3), top1=50)
    write_run(tmp_path, fake_run(point, 3, data="cifar10:here"), top1=50)
    write_run(tmp_path, fake_run(point, 4), top1=50)
    set_commit(tmp_path, fake_run(point, 4), "f" * 40)
    write_run(tmp_path, fake_run(point, 5), status="failed")
    write_run(tmp_path, fake_run(point, 6), status="unfinished", epochs=4)
    path = write_run(tmp_path, fake_run(point, 7), status="running")
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    with locked(path):
        folder = gather(tmp_path)
    study = folder.studies[0]
    row = next(row for row in study.rows if row.name == "gelu")
    assert set(row.seeds) == {0, 1} and row.top1 is not None and row.top1 > 90
    assert {one.seed: one.reason for one in study.apart} == {
        2: "recipe epochs: 3, not 10",
        3: "data: cifar10:here, not digits",
        4: "commit ffffffffff, not commit 0123456789",
        5: "failed after epoch 2 of 10: TrainingError: the loss is nan at step 41",
        6: "stopped, after epoch 4 of 10",
        7: "running, after epoch 2 of 10",
    }
    assert [one.run for one in folder.unreadable] == ["broken"]
    said = text_in(render(folder, Extras()).html)
    assert all(one.reason in said for one in study.apart) and "Unreadable runs" in said


def test_a_row_of_another_commit_is_not_compared(tmp_path: Path) -> None:
    runs = fake_runs(seeds=(0,))
    write_study(tmp_path, runs)
    gelu = next(run for run in runs if run.name == "gelu")
    set_commit(tmp_path, gelu, "abc")
    rows = {row.name: row for row in summarize(scan(tmp_path))}
    assert rows["gelu"].top1 is not None and rows["gelu"].gain is None
    assert rows["gelu"].remarks == ("not compared with kernel_7: commit 0123456789",)
    assert rows["fewer_activations"].gain is None and rows["layer_norm"].gain is not None
    mixed = gather(tmp_path, any_commit=True).studies[0]
    assert all(row.gain is not None for row in mixed.rows[1:])


def test_without_a_commit_the_version_tells(tmp_path: Path) -> None:
    for seed in range(3):
        run = fake_run(NANO.point("gelu"), seed)
        write_run(tmp_path, run)
        set_commit(tmp_path, run, None if seed else "abc")
    made = group(scan(tmp_path))[0]
    assert set(made.seeds) == {1, 2}
    assert made.code == "version not recorded"
    assert [one.reason for one in made.left_out] == ["commit abc, not version not recorded"]


# What steps are worth


def write_sets(folder: Path, subsets: Any, kind: str) -> None:
    """Fake runs of sets of steps, worth 0.4 points each, under the names that a study gives."""
    context = Context(road=NANO, seeds=(0, 1, 2))
    for run in {one.key: one for one in context.sets(subsets, kind)}.values():
        if (folder / "runs" / run.id).exists():
            continue
        steps = len(run.facts.get("steps") or NANO.adopted())
        top1 = 85 + 0.8 * steps + 0.2 * run.seed
        write_run(folder, run, top1=top1, result={"macs": 10_000_000 + 100_000 * steps})


def test_leave_one_out_is_tested_against_the_end(tmp_path: Path) -> None:
    steps = Context(road=NANO).steps
    write_sets(tmp_path, plan_near(steps, "end", 1).subsets, "leave_one_out")
    (worth,) = find_worth(gather(tmp_path).studies)
    # The end without its last step is a row of the road, and is found there.
    assert [one.label for one in worth.without] == [NANO.step(name).label for name in steps]
    assert worth.alone == [] and worth.shares is None
    kernel = next(one for one in worth.without if one.label == "kernel size → 7")
    assert kernel.comparison.difference.points == pytest.approx(0.8, abs=0.2)
    assert kernel.comparison.family == len(steps)
    assert kernel.macs == 100_000
    html = page_of(tmp_path)
    assert "Lost without the step" in html and "The same in MACs" in html


def test_shapley_values_of_sampled_orders_add_up(tmp_path: Path) -> None:
    steps = Context(road=NANO).steps
    write_sets(tmp_path, plan_orders(sampled_orders(steps, 2)).subsets, "attribution")
    (worth,) = find_worth(gather(tmp_path).studies)
    assert worth.shares and worth.macs
    assert worth.order == list(steps)
    assert sum(one.value for one in worth.shares.shares.values()) == pytest.approx(
        worth.shares.total
    )
    assert "4 sampled orders" in worth.shares.method
    assert "They add up to" in text_in(page_of(tmp_path))


def test_shapley_values_of_sections_are_exact(tmp_path: Path) -> None:
    sections: dict[str, list[str]] = {}
    for name in Context(road=NANO).steps:
        sections.setdefault(NANO.step(name).section, []).append(name)
    chosen = [
        [name for section in subset for name in sections[section]]
        for subset in plan_exact(list(sections)).subsets
    ]
    write_sets(tmp_path, chosen, "attribution")
    (worth,) = find_worth(gather(tmp_path).studies)
    assert worth.shares and worth.shares.method.startswith("exact, from all 32 sets")
    assert worth.labels["2.6"] == "Micro design"


def test_a_road_map_alone_is_no_attribution(imagenet: Folder) -> None:
    assert find_worth(imagenet.studies) == []


def test_facts_may_name_what_is_left_out_instead(tmp_path: Path) -> None:
    road = [fake_run(NANO.points()[-1])]
    for name in ("gelu", "kernel_7", "layer_norm"):
        run = fake_run(NANO.point("gelu"))
        facts = {"regime": "nano", "study_kind": "leave_one_out", "left_out": name}
        update = {"study": "mine", "name": f"no-{name}", "facts": facts}
        road.append(run.model_copy(update={**update, "seed": 0}))
    write_study(tmp_path, road, top1={"no-gelu": 90})
    (worth,) = find_worth(gather(tmp_path).studies)
    assert [one.label for one in worth.without] == ["kernel size → 7", "ReLU → GELU", "BN → LN"]


# Files


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_all_files_are_written(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    study = tmp_path / "study"
    write_study(study, [run for run in fake_runs(seeds=seeds) if run.facts["order"] < 4])
    paths = write_report(study, tmp_path / "out", Extras())
    names = {str(path.relative_to(tmp_path / "out")) for path in paths}
    figures = {
        f"figures/{n}.{k}" for n in ("roadmap", "cost", "curves") for k in ("svg", "pdf", "png")
    }
    tables = {f"tables/{n}.{k}" for n in ("results", "differences") for k in ("csv", "md", "tex")}
    assert names == {"report.html", *figures, *tables}
    heads = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    for name in figures:
        assert (tmp_path / "out" / name).read_bytes().startswith(heads[name[-3:]])
    with (tmp_path / "out/tables/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = summarize(scan(study))
    assert [float(row["top1"]) for row in rows] == pytest.approx([row.top1 for row in expected])
    assert [int(row["macs"]) for row in rows] == [row.macs for row in expected]


def test_tables_are_escaped_for_each_kind() -> None:
    name = "50 % of a_b | <b> & $x$ {→} −\n# end"
    columns = (Column("step", "step", numeric=False), Column("gain", "gain"))
    table = Table("t", "caption 100 %", columns, [[words(name), figure(-1.5, "−1.50")]])
    latex = to_latex(table)
    assert r"50 \% of a\_b \textbar{} \textless{}b\textgreater{} \& \$x\$" in latex
    assert r"\{$\rightarrow$\} $-$ \# end & $-$1.50 \\" in latex
    line = to_markdown(table).splitlines()[-1]
    assert line == r"| 50 % of a\_b \| \<b\> & $x$ {→} − \# end | −1.50 |"
    assert list(csv.reader(to_csv(table).splitlines(keepends=True)))[1][1] == "-1.5"


# Commands


def real_runs(folder: Path, seeds: str = "2", **changes: Any) -> list[Run]:
    """Runs as the command line makes them, with fake records."""
    points = [NANO.point(name) for name in ("resnet", "gelu")]
    runs = roadmap_runs(NANO, points, data="digits", seeds=parse_seeds(seeds), changes=changes)
    write_study(folder, runs)
    return runs


@pytest.mark.parametrize("seeds", ["1", "3", "0,4,7"])
def test_the_commands_ask_for_the_same_runs(tmp_path: Path, seeds: str) -> None:
    runs = real_runs(tmp_path, seeds, epochs=2, global_batch=128)
    lines = commands(group(scan(tmp_path)), "my study")
    assert lines[0] == "git checkout 0123456789abcdef"
    assert lines[1] == f"# asks for the {len(runs)} runs counted above, by their keys"
    words = shlex.split(lines[2])
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given == {
        **{"--regime": "nano", "--data": "digits", "--steps": "resnet,gelu", "--seeds": seeds},
        **{"--epochs": "2", "--batch": "128", "--out": "my study"},
    }
    assert lines[3] == "convnext-study report 'my study'"


def test_commands_say_when_they_ask_for_other_runs(tmp_path: Path) -> None:
    real_runs(tmp_path, "1", clip_grad=0.5)
    lines = commands(group(scan(tmp_path)), "s")
    assert lines[1].startswith("# 2 of the 2 runs differ from what this asks for: recipe clip_grad")


def test_deviations_from_the_published_recipe_are_listed(tmp_path: Path) -> None:
    real_runs(tmp_path)
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    with (tmp_path / "r/tables/recipe_1.csv").open() as file:
        found = {
            row["setting" if "setting" in row else "field"]: row for row in csv.DictReader(file)
        }
    assert (found["epochs"]["here"], found["epochs"]["published"]) == ("10", "300")
    assert (found["mixup"]["here"], found["mixup"]["published"]) == ("0", "0.8")
    assert "optimizer" not in found  # the same in both
    html = (tmp_path / "r/report.html").read_text()
    assert "- before: kernel_7" in html and "dwconv 7x7" in html  # the screen of `show`


# Watch


def test_watch_writes_the_page_again_while_a_study_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = fake_runs()[:2]
    write_run(tmp_path, runs[0])
    pages: list[str] = []
    page = tmp_path / "report" / "report.html"

    def sleep(_: float) -> None:
        pages.append(page.read_text())
        if len(pages) == 2:  # nothing has changed since: the page was not written again
            write_run(tmp_path, runs[1])
        if len(pages) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", sleep)
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--watch", "--every", "7"])
    assert result.exit_code == 0, result.output
    assert result.output.count("Ctrl-C ends the watch") == 2
    assert all('<meta http-equiv="refresh" content="7">' in one for one in pages)
    assert [len(data_in(one)[0]["rows"]) for one in pages] == [1, 1, 2]
    assert 'http-equiv="refresh"' not in page.read_text()
    assert (tmp_path / "report/figures/roadmap.pdf").exists()
