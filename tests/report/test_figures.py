"""Figures on the page: the page's colours, grouped parts, nothing that its policy would refuse."""

from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from support.fakes import fake_record, fake_run, write_run

from convnext_study.report.figures import style
from convnext_study.report.figures.charts import (
    Bar,
    Curve,
    Panel,
    Point,
    Quantity,
    bars,
    cost,
    curves,
    quantities,
)
from convnext_study.report.figures.inline import inline
from convnext_study.report.figures.roadmap import roadmap
from convnext_study.report.page import render
from convnext_study.results.load import load_results
from convnext_study.results.rows import study_title
from convnext_study.results.summary import summarize
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import Epoch

EVIL = '</text><script>alert("1")</script>\x00\x1b\ud800\n&'


def test_parts_are_grouped_and_text_is_text() -> None:
    points = [
        Point(1, 1.0, 80.0, 0.2, attrs={"class": "mark", "data-tip": EVIL, "href": "#here"}),
        Point(2, 2.0, 81.0, adopted=False),
    ]
    svg = str(
        inline(cost(points, ("top-1, %", style.clean(EVIL))), "k", class_="chart", aria_label=EVIL)
    )
    assert "<script" not in svg and svg.count("\x00") == 2  # in the attributes, as they came
    root = ET.fromstring(svg.translate({0: None, 0x1B: None, 0xD800: None}))  # noqa: S314
    (link,) = root.findall("a")
    assert link.attrib.keys() == {"class", "data-tip", "href"}
    assert [one.tag for one in link] == ["path", "use", "use", "use", "text"]
    assert "".join(link.itertext()) == "1"
    assert unescape(link.attrib["data-tip"]).startswith("</text><script>")
    assert {one.attrib["id"][:2] for one in root.iter() if "id" in one.attrib} == {"k", "k-"}


def test_a_hostile_label_is_drawn_everywhere(tmp_path: Path) -> None:
    run = fake_run(get_roadmap("nano").variant("gelu"))
    write_run(tmp_path, run.model_copy(update={"metadata": {**run.metadata, "label": EVIL[:-3]}}))
    html = render(load_results(tmp_path)).html
    assert html.count("</script>") == 2
    rows = summarize(load_results(tmp_path).studies[0].records("gelu"))
    assert style.save(roadmap(rows, study_title(rows)), tmp_path, "roadmap")


def epoch(number: int, loss: float, metrics: dict[str, float]) -> Epoch:
    primary = next(iter(metrics), "")
    rest: dict[str, Any] = {"lr": 0.1, "seconds": 1.0, "images_per_s": 1.0, "primary": primary}
    return Epoch(epoch=number, epochs=300, loss=loss, metrics=metrics, **rest)


def test_curves_stay_in_their_axes_and_leave_out_what_is_no_number() -> None:
    losses = [1e9, float("nan"), *(2.0 - place / 200 for place in range(2, 200))]
    lines = [epoch(place, loss, {"top1": 50.0}) for place, loss in enumerate(losses, 1)]
    shown = [
        Quantity("training loss", lambda line: line.loss, from_zero=True),
        Quantity("top-1, %", lambda line: line.value),
    ]
    figure = curves([Curve(lines, 0.5), Curve(lines[2:3], 1.0, finished=False)], shown)
    axes = figure.axes[0]
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert min(y) >= axes.get_ylim()[0] and max(y) <= axes.get_ylim()[1] < 3
        assert len(x) <= 100
    assert np.asarray(axes.lines[0].get_xdata())[-1] == 200
    assert len(np.asarray(axes.lines[1].get_xdata())) == 2
    assert [one.get_title(loc="left") for one in figure.axes] == ["training loss", "top-1, %"]


def test_curves_are_of_every_metric_and_leave_out_epochs_without_it() -> None:
    measured = [{"iou": 50.0 + n, "exit_1": 40.0 + n} if n % 3 == 0 else {} for n in range(301)]
    run = fake_run(get_roadmap("nano").variant("gelu"))
    epochs = [epoch(number, 1.0, metrics) for number, metrics in enumerate(measured) if number]
    record = fake_record(run, epochs=epochs)
    shown = quantities([record])
    assert [one.title for one in shown] == ["training loss", "iou", "exit 1"]
    axes = curves([Curve(record.epochs, 0.5)], shown).axes
    assert len(axes) == 3
    drawn = np.asarray(axes[1].lines[0].get_xdata())
    assert drawn[-1] == 300 and 40 < len(drawn) <= 100
    assert all(x % 3 == 0 for x in drawn)
    assert len(curves([Curve(record.epochs, 0.5)], shown * 3).axes) == 9


def test_bars_are_open_where_not_significant_and_have_their_intervals() -> None:
    made = [
        Bar("a", 1.5, "+1.50", (0.5, 2.5)),
        Bar("b", -0.5, "−0.50", (-2.0, 1.0), significant=False),
        Bar("c", 0.2, "+0.20", (-float("inf"), float("inf"))),
    ]
    figure = bars([[Panel("points", made), Panel("MACs", made[:1], "grey")]], "title", "note")
    axes = figure.axes[0]
    found = [one for one in axes.patches if isinstance(one, Rectangle)]
    assert [one.get_width() for one in found] == [1.5, -0.5, 0.2]
    faces = [one.get_facecolor() == to_rgba(style.COLOURS["paper"]) for one in found]
    assert faces == [False, True, False]
    deep = to_rgba(style.COLOURS["deep"])
    ends = [
        tuple(one.get_segments()[0][:, 0])
        for one in axes.collections
        if isinstance(one, LineCollection) and tuple(np.asarray(one.get_edgecolor())[0]) == deep
    ]
    assert ends == [(0.5, 2.5), (-2.0, 1.0)]
    low, high = axes.get_xlim()
    assert low <= -2 and high >= 2.5


def test_a_sign_that_the_first_font_lacks_is_drawn_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "FALLBACKS", ("No such font", "STIXSizeOneSym"))
    style.fonts.cache_clear()
    with style.style():
        figure = style.new_figure(1, 1)
        figure.text(0, 0, "αa⎰")
    (path,) = style.save(figure, tmp_path, "signs", ("svg",))
    style.fonts.cache_clear()
    assert "STIXSizeOneSym" in path.read_text() and "DejaVuSans" in path.read_text()
