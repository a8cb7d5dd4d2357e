"""One style for all figures, and figures as files: the same figure gives the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.records import write_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By the names of the page's CSS variables, which give each colour its dark twin. Blue and vermilion
# stay apart for every kind of colour blindness, and all of them in grey.
COLOURS = {
    "paper": "#ffffff",
    "ink": "#1b242d",
    "faint": "#5b6773",
    "rule": "#d9dfe5",
    "band": "#f1f4f7",
    "bar": "#8dbbdd",
    "deep": "#0b3c5d",
    "mark": "#c2500a",
    "grey": "#b4bdc6",
    "link": "#0b5c91",
    "digit": "#0b2c44",
    **{
        f"c{place}": colour
        for place, colour in enumerate(
            ["#b9c9d6", "#a0bbd0", "#84aac8", "#6698be", "#4884b2", "#2c6ea2", "#16568a", "#08305a"]
        )
    },
}
INK, FAINT = COLOURS["ink"], COLOURS["faint"]

# What is certain is filled, what is not is open: told apart without colours.
OPEN: dict[str, Any] = {"facecolor": COLOURS["paper"], "linestyle": (0, (3, 2)), "linewidth": 1.1}

# Left to itself matplotlib writes the date into an SVG or a PDF and its version into all.
KINDS: dict[str, Any] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a label with dollars in it is a label
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "grid.color": COLOURS["rule"],
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.solid_capstyle": "butt",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "svg.hashsalt": "convnext-study",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # text stays text, as journals ask
}
_DPI = 200
CHART = (4.0, 2.7)  # inches, on the page
ROUND = [1, 2, 5, 10]  # what ticks are multiples of


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's defaults and ours for a while, whatever the user's configuration says."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure of so many inches, to be filled within `style`; pyplot is not involved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=COLOURS["paper"], **options)
    FigureCanvasAgg(figure)
    return figure


def add_panel(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes between these inches from the figure's lower left corner."""
    width, height = figure.get_size_inches()
    box = (left / width, bottom / height, (right - left) / width, (top - bottom) / height)
    axes = figure.add_axes(box)
    axes.patch.set_visible(False)
    return axes


def draw_charts(
    titles: Sequence[str], size: tuple[float, float], *, left: float = 0.52, heading: str = ""
) -> tuple[Figure, list[Axes]]:
    """Charts of ``size`` inches beside each other, each with ``left`` inches for its labels."""
    from matplotlib.ticker import MaxNLocator

    width, height = size
    figure = new_figure(width * len(titles), height + (0.35 if heading else 0))
    if heading:
        place = (0.1 / (width * len(titles)), (height + 0.15) / (height + 0.35))
        figure.text(*place, clean(heading), fontsize=12, fontweight="bold", va="center")
    charts = []
    for start, title in zip((width * place for place in range(len(titles))), titles, strict=True):
        axes = add_panel(figure, start + left, 0.46, start + width - 0.14, height - 0.3)
        axes.set_title(title)
        axes.grid(visible=True, axis="y")
        axes.spines[:].set_visible(False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=ROUND))
        charts.append(axes)
    return figure, charts


def ramp(count: int) -> list[str]:
    """So many colours from dark to light, each lighter than the one before."""
    from matplotlib import colormaps, colors

    shades = colormaps["cividis"].resampled(max(count, 2))
    return [colors.to_hex(shades(place)) for place in range(count)]


def mark(artist: Artist, key: str, class_: str = "") -> None:
    """Name what an artist belongs to, so that `inline` can group it; no key leaves it unnamed."""
    if key:
        artist.set_gid(f"{key}/{class_}")


def clean(text: str) -> str:
    """Without line breaks and signs that no font and no XML can hold."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def fit(figure: Figure, text: str, room: float, **font: Any) -> tuple[str, float]:
    """The text, cut where it is wider than ``room``, and its width, both in inches."""
    from matplotlib.text import Text

    text = short = clean(text)
    while True:
        box = Text(0, 0, short, figure=figure, **font).get_window_extent()
        width = box.width / figure.dpi
        if width <= room or not text:
            return short, width
        text = text[: min(len(text) - 1, int(len(text) * room / width) + 1)].rstrip()
        short = text + "…"


@style()
def save(
    figure: Figure, folder: Path, name: str, kinds: Sequence[str] = tuple(KINDS)
) -> list[Path]:
    """Write ``name`` in several of `KINDS`, each whole or not at all; returns the paths."""
    paths = []
    for kind in kinds:
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=_DPI, metadata=KINDS[kind])
        paths.append(folder / f"{name}.{kind}")
        write_bytes(paths[-1], data.getvalue())
    return paths
