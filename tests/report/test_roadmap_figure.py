"""The figure: what is drawn is what was measured, and nothing stands on anything else."""

import dataclasses
import functools
import itertools
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from support.fakes import fake_runs, write_study

from convnext_study.report.figures.roadmap import draw, roadmap
from convnext_study.report.figures.rows import FILE, NARROW, WIDE, Layout, value_axis
from convnext_study.report.figures.style import COLOURS
from convnext_study.results.paper import PAPER_METRIC
from convnext_study.results.rows import ResultRow, study_title
from convnext_study.results.summary import summarize
from convnext_study.roadmap.paper import PAPER
from convnext_study.runs.records import ModelRef, Run, scan

LONG = "a long label of a step that somebody wrote without a thought of the figure's width"
Rows = Callable[[], list[ResultRow]]


def made(runs: Sequence[Run], written: Sequence[Run] | None = None, **how: Any) -> list[ResultRow]:
    """Rows of fake records of these runs, or of those that are ``written``."""
    with TemporaryDirectory() as folder:
        write_study(Path(folder), runs if written is None else written, **how)
        return summarize(scan(Path(folder)), runs)


@functools.cache
def one_seed() -> list[ResultRow]:
    return made(fake_runs())


@functools.cache
def with_gaps() -> list[ResultRow]:
    status: Any = {"gelu": "failed", "layer_norm": "unfinished", "kernel_9": "new"}
    return made(fake_runs(seeds=(0, 1, 2)), status=status)


@functools.cache
def like_the_paper() -> list[ResultRow]:
    runs = fake_runs("t", seeds=(0, 1, 2), data="folder:/mnt/somewhere/imagenet")
    top1 = {name: row.top1 - 0.2 for name, row in PAPER["t"].items()}
    return made(runs, top1=top1, spread=0.08, val_images=50_000, macs=4_145_600_000)


def one_row() -> list[ResultRow]:
    return made(fake_runs()[:1])


@functools.cache
def extremes() -> list[ResultRow]:
    return made(fake_runs(), top1={"resnet-90ep": 10.0, "separate_downsampling": 100.0})


def all_right() -> list[ResultRow]:
    runs = fake_runs(seeds=(0, 1))
    return made(runs, top1=dict.fromkeys((run.name for run in runs), 100.0), spread=0)


@functools.cache
def no_sections() -> list[ResultRow]:
    labels = [LONG, "M" * 90, "$x_2$ costs $5", "short"]
    runs = [
        Run(
            study="pairs",
            name=f"row{place}",
            model=ModelRef(builder="package:build", args={"place": place}),
            recipe={"name": "modern-small", "epochs": 10},
            data="digits",
            seed=0,
            metadata={"label": label, "order": place, "adopted": place != 1},
        )
        for place, label in enumerate(labels)
    ]
    return made(runs, runs[:3], macs=123_456_789_000)


def nothing_done() -> list[ResultRow]:
    return summarize([], fake_runs())


CASES = [
    *(with_gaps, like_the_paper, no_sections),
    *(
        pytest.param(one, marks=pytest.mark.exhaustive)
        for one in (one_seed, one_row, extremes, all_right, nothing_done)
    ),
]


def figure_of(rows: Sequence[ResultRow], layout: Layout = FILE) -> Figure:
    return roadmap(rows, study_title(rows), layout)


def texts(figure: Figure) -> list[Text]:
    """Every text that is drawn."""
    found = figure.findobj(Text)
    return [one for one in found if one.get_visible() and one.get_text().strip()]


@pytest.mark.parametrize("layout", [FILE, WIDE, NARROW], ids=["file", "wide", "narrow"])
@pytest.mark.parametrize("case", CASES)
def test_no_text_stands_on_another_or_on_a_bar_or_leaves_the_figure(
    case: Rows, layout: Layout
) -> None:
    figure = figure_of(case(), layout)
    figure.canvas.draw()
    boxes = [(one.get_text(), one.get_window_extent()) for one in texts(figure)]
    assert len(boxes) > 5
    for (first, one), (second, other) in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), f"{first!r} and {second!r}"
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for patch in [*figure.axes[1].patches, *figure.axes[2].patches]:
        for text, box in boxes:
            assert not box.overlaps(patch.get_window_extent()), text


def bars_of(figure: Figure) -> dict[float, Rectangle]:
    """The accuracy bars by their place; noise bands are thinner."""
    bars = [one for one in figure.axes[1].patches if isinstance(one, Rectangle)]
    thick = max((bar.get_height() for bar in bars), default=0)
    return {bar.get_y() + thick / 2: bar for bar in bars if bar.get_height() > 0.9 * thick}


def test_bars_end_at_the_accuracies_and_branches_are_open() -> None:
    rows = one_seed()
    bars = list(bars_of(figure_of(rows)).values())
    assert len(bars) == len(rows) == 17
    for row, bar in zip(rows, bars, strict=True):
        assert bar.get_x() + bar.get_width() == pytest.approx(row.value)
        assert (bar.get_facecolor() == to_rgba(COLOURS["paper"])) is not row.adopted
        assert (bar.get_linestyle() == "solid") is row.adopted
    places = [bar.get_y() for bar in bars]
    assert places == sorted(places)


def test_noise_band_with_one_seed_and_error_bars_with_several() -> None:
    rows = one_seed()
    panel = figure_of(rows).axes[1]
    bands = [one for one in panel.patches if one.get_alpha()]
    ends = [(one.get_x(), one.get_x() + one.get_width()) for one in bands]  # type: ignore[attr-defined]
    assert np.allclose(ends, [row.interval or (0.0, 0.0) for row in rows])
    assert not panel.containers or all(not hasattr(one, "has_xerr") for one in panel.containers)

    rows = with_gaps()
    figure = figure_of(rows)
    panel = figure.axes[1]
    assert not [one for one in panel.patches if one.get_alpha()]
    errors = [one for one in panel.containers if getattr(one, "has_xerr", False)]
    assert len(errors) == sum(row.std is not None for row in rows) == 14
    assert len(bars_of(figure)) == 14
    said = [one.get_text() for one in texts(figure)]
    assert [said.count(word) for word in ("failed", "unfinished", "not run")] == [1, 1, 1]


def paper_marks(figure: Figure) -> list[float]:
    return [
        float(np.asarray(line.get_xdata())[0])
        for line in figure.axes[1].lines
        if to_rgba(line.get_color()) == to_rgba(COLOURS["mark"])
    ]


def test_the_papers_numbers_stand_only_beside_imagenets() -> None:
    figure = figure_of(like_the_paper())
    assert paper_marks(figure) == [row.top1 for row in PAPER["t"].values()]
    assert "paper, ImageNet-1K" in [one.get_text() for one in texts(figure)]

    for rows in (one_seed(), made(fake_runs("t"))):
        figure = figure_of(rows)
        assert paper_marks(figure) == []
        assert "ImageNet" not in " ".join(one.get_text() for one in texts(figure))


def test_the_caption_says_what_the_numbers_are() -> None:
    figure = figure_of(like_the_paper())
    said = " ".join(one.get_text() for one in texts(figure))
    assert "regime t · data folder:imagenet · 50,000 test images · 3 seeds" in said
    assert "somewhere" not in said
    assert "they are not the paper's" in said
    assert "Welch's t test with Holm's correction over 16 steps" in said
    begins = figure.axes[1].get_xlim()[0]
    assert begins > 70
    assert f"The axis is cut: it starts at {begins:g} %, not at 0." in said
    said = " ".join(one.get_text() for one in texts(figure_of(extremes())))
    assert "is cut" not in said


def test_the_road_stops_where_rows_are_missing_or_not_each_others_parent() -> None:
    rows = [row for row in with_gaps() if row.adopted]
    road = road_of(figure_of(rows))
    assert [bool(np.isnan(x)) for x in road] == [row.value is None for row in rows]
    # Rows of another study have no parent among them: dots, and no line.
    road = road_of(figure_of(no_sections()))
    pairs = itertools.pairwise(road)
    assert all(np.isnan(one) or np.isnan(other) for one, other in pairs)


def road_of(figure: Figure) -> Any:
    lines = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert len(lines) == 1
    return lines[0].get_xdata()


def test_files_are_the_same_every_time_whatever_the_user_has_configured(tmp_path: Path) -> None:
    rows = with_gaps()
    first = [path.read_bytes() for path in draw(rows, tmp_path)]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        paths = draw(rows, tmp_path)
        assert matplotlib.rcParams["font.size"] == 30
    assert [path.name for path in paths] == ["roadmap.svg", "roadmap.png"]
    assert [path.read_bytes() for path in paths] == first
    svg, png = first
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314  our own file
    assert b"<dc:date>" not in svg
    assert str(tmp_path).encode() not in svg + png
    assert png.startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"roadmap.png", "roadmap.svg"}


@pytest.mark.parametrize("least", [0.0, 0.3, 9.7, 33.3, 71.2, 96.4, 99.99, 100.0])
@pytest.mark.parametrize("span", [0.0, 0.04, 0.7, 3.1, 12.0, 60.0])
def test_every_axis_holds_its_values_and_gives_the_least_a_bar(least: float, span: float) -> None:
    most = min(least + span, 100.0)
    axis = value_axis([least, most], PAPER_METRIC)
    assert 0 <= axis.low <= least and most < axis.high <= 104
    assert axis.ticks[0] == axis.low and axis.ticks[-1] <= min(axis.high, 100)
    assert 3 <= len(axis.ticks) <= 9
    if axis.cut:
        assert (least - axis.low) / (axis.high - axis.low) > 0.1


def test_a_long_heading_leaves_room_for_the_bars() -> None:
    rows = [dataclasses.replace(row, section=3 * LONG) for row in one_seed()]
    figure = figure_of(rows)
    assert all(axes.get_position().width > 0 for axes in figure.axes)
