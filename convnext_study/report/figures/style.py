"""One style for all figures, and saving them reproducibly: equal figures give equal bytes."""

from __future__ import annotations

import functools
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.runs.files import safe_name, write_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The page's light colours, by the names of its CSS variables, which have dark twins as well.
_CSS = (
    resources.files("convnext_study")
    .joinpath("report/templates/report.css")
    .read_text(encoding="utf-8")
)
COLOURS = dict(re.findall(r"--(\w+): (#\w{6});", _CSS.partition("@media")[0]))
INK, FAINT, RULE = (COLOURS[name] for name in ("ink", "faint", "rule"))
# Bars that are not significant, or not adopted, are open: distinguishable without colours.
OPEN: dict[str, Any] = {"facecolor": COLOURS["paper"], "linestyle": (0, (3, 2)), "linewidth": 1.1}

# By default matplotlib writes the date into SVG and PDF files and its version into all.
KINDS: dict[str, Any] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_STYLE: Any = {
    **{"font.size": 9.5, "text.color": INK},
    "text.parse_math": False,  # labels may contain dollar signs
    **{"axes.axisbelow": True, "axes.labelcolor": FAINT, "grid.color": RULE},
    **{"axes.titlelocation": "left", "axes.titlesize": 9.5, "axes.titleweight": "bold"},
    **{"legend.frameon": False, "legend.fontsize": 9, "lines.solid_capstyle": "butt"},
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    **{f"{axis}tick.color": FAINT for axis in "xy"},
    **{f"{axis}tick.labelsize": 9 for axis in "xy"},
    **{f"{axis}tick.{size}.size": 0 for axis in "xy" for size in ("major", "minor")},
    **{"svg.hashsalt": "convnext-study", "svg.fonttype": "path"},
    "pdf.fonttype": 42,  # text stays text, as journals ask
}
CHART = (4.0, 2.7)  # inches, on the page
_PER_ROW = 3  # charts in one row of a figure
ROUND = [1, 2, 5, 10]  # ticks are multiples of these

# Chinese, Japanese and Korean, which matplotlib's DejaVu Sans lacks, in the fonts installed.
FALLBACKS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC"),
    *("Source Han Sans", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Yu Gothic"),
    *("Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("IPAexGothic", "NanumGothic", "Droid Sans Fallback", "Arial Unicode MS", "Unifont"),
)


@functools.cache
def fonts() -> list[str]:
    """The font families, in order of preference for each character."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]


@contextmanager
def style() -> Iterator[None]:
    """A context with matplotlib's defaults and ours, whatever the user's configuration."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "font.family": fonts()})
        yield


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of this size in inches, to be filled within `style`; without pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=COLOURS["paper"], **options)
    FigureCanvasAgg(figure)
    return figure


def add_panel(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes without ticks between these inches from the figure's lower left corner."""
    width, height = figure.get_size_inches()
    box = (left / width, bottom / height, (right - left) / width, (top - bottom) / height)
    return figure.add_axes(box, xticks=[], yticks=[], facecolor="none")


def draw_charts(
    titles: Sequence[str], size: tuple[float, float] = CHART, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Charts of ``size`` inches, three per row; ``options`` are those of ``subplots``."""
    from matplotlib.ticker import MaxNLocator

    columns = min(len(titles), _PER_ROW)
    rows = -(-len(titles) // columns)
    figure = new_figure(size[0] * columns, size[1] * rows, layout="constrained")
    charts = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for axes in charts[len(titles) :]:
        axes.remove()
    charts = charts[: len(titles)]
    for axes, title in zip(charts, titles, strict=True):
        axes.set(title=title, facecolor="none")
        axes.grid(visible=True, axis="y")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=ROUND))
    return figure, charts


def mark(artist: Artist, attributes: Mapping[str, Any] | None, class_: str = "") -> None:
    """Attach an element's attributes to an artist, for `inline`."""
    if attributes:
        artist.set_gid(json.dumps([attributes, class_]))


def clean(text: str) -> str:
    """The text without line breaks and unprintable characters, which XML forbids."""
    return "".join(char if char.isprintable() else " " for char in text)


def fit(figure: Figure, text: str, max_width: float, **font: Any) -> tuple[str, float]:
    """The text, truncated to ``max_width`` inches, and its width in inches."""
    from matplotlib.text import Text

    text = short = clean(text)
    while True:
        box = Text(0, 0, short, figure=figure, **font).get_window_extent()
        if box.width <= max_width * figure.dpi or not text:
            return short, box.width / figure.dpi
        text = text[: min(len(text) - 1, int(len(text) * max_width * figure.dpi / box.width) + 1)]
        short = text.rstrip() + "…"


@style()
def save(
    figure: Figure, folder: Path, name: str, kinds: Sequence[str] = tuple(KINDS)
) -> list[Path]:
    """Write ``name`` in several of `KINDS`, each file atomically; returns the paths."""
    for artist in figure.findobj():
        artist.set_gid(None)
    paths = []
    for kind in kinds:
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=200, metadata=KINDS[kind])
        paths.append(folder / f"{safe_name(name)}.{kind}")
        write_bytes(paths[-1], data.getvalue())
    return paths
