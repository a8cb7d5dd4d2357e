"""The road-map figure: bars of accuracy along the road, MACs beside them (as the paper's Fig. 2).

It serves any study of bars: rows without sections stand in one group.
"""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.records import write_bytes
from convnext_study.results import panels
from convnext_study.results.axis import Axis, accuracy_axis
from convnext_study.results.meta import Meta, describe
from convnext_study.results.noise import noise_note
from convnext_study.results.report.tables.formatting import short_data
from convnext_study.results.summary import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECTIONS = {
    "2.1": "Training techniques",
    "2.2": "Macro design",
    "2.3": "ResNeXt-ify",
    "2.4": "Inverted bottleneck",
    "2.5": "Large kernel sizes",
    "2.6": "Micro design",
}

# Left to itself matplotlib writes the date into an SVG or a PDF and its version into all.
KINDS: dict[str, Any] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": panels.INK,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # a label with dollars in it is a label
    "svg.hashsalt": "convnext-study",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # text stays text, as journals ask
}
# Inches.
_WIDTH, _TOP, _FOOT, _LINE, _MARGIN = 10.0, 1.02, 1.12, 0.19, 0.3
_TOP1, _SPREAD, _GAIN, _MACS, _MACS_TEXT = 0.75, 0.5, 0.68, 0.95, 0.66
_CAPTION = 138  # characters in a line
_DPI = 200


def draw(
    rows: Sequence[Row],
    folder: Path,
    meta: Meta | None = None,
    kinds: Sequence[str] = ("svg", "png"),
    name: str = "roadmap",
) -> list[Path]:
    """Write ``roadmap.svg`` and ``roadmap.png`` (or ``kinds``, of `KINDS`) and return their paths.

    Rows stand in the order given, one without a result as "not run". The same rows give the same
    files, byte for byte.
    """
    with style():
        return save(make_figure(rows, meta or describe(rows)), folder, name, kinds)


def save(figure: Figure, folder: Path, name: str, kinds: Sequence[str]) -> list[Path]:
    """Write a figure in several kinds, whole or not at all; called within `style`."""
    paths = []
    for kind in kinds:
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=_DPI, metadata=KINDS[kind])
        paths.append(folder / f"{name}.{kind}")
        write_bytes(paths[-1], data.getvalue())
    return paths


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's defaults and ours for a while, whatever the user's configuration says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def make_figure(rows: Sequence[Row], meta: Meta) -> Figure:
    """The figure itself, to be saved under the caller's style."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = _places(rows)
    axis = accuracy_axis(_values(rows, meta))
    caption = _caption(rows, meta, axis)
    bottom = _FOOT + _LINE * len(caption)
    height = _TOP + places.height + bottom
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    names, label_width = panels.labels(figure, rows, places)
    text_end = _WIDTH - _MARGIN
    macs_end = text_end - _MACS_TEXT
    gain_end = macs_end - _MACS - 0.25
    columns = panels.Columns(
        label=_MARGIN,
        bars=_MARGIN + label_width,
        top1_end=gain_end - _GAIN,
        gain_end=gain_end,
        macs=macs_end - _MACS,
        macs_end=macs_end,
        macs_text_end=text_end,
    )

    def panel(at: float, end: float) -> Axes:
        box = (at / _WIDTH, bottom / height, (end - at) / _WIDTH, places.height / height)
        made = figure.add_axes(box)
        made.set(ylim=(places.height, 0), yticks=[], facecolor="none")
        made.spines[:].set_visible(False)
        return made

    back = panel(0, _WIDTH)
    back.set(xlim=(0, _WIDTH), xticks=[])
    panels.draw_sections(back, places, columns)
    panels.draw_text(back, rows, names, places, columns)
    spread = _SPREAD if any(row.sd is not None for row in rows) else 0.0
    bars = panel(columns.bars, columns.top1_end - _TOP1 - spread)
    panels.draw_bars(bars, rows, places, axis, meta.compare_paper)
    panels.draw_macs(panel(columns.macs, columns.macs_end), rows, places)
    _draw_frame(figure, rows, meta, caption)
    _draw_legend(figure, rows, meta, (bottom - 0.76) / height)
    return figure


def _places(rows: Sequence[Row]) -> panels.Places:
    """Rows under each other, with a heading where a section of the paper begins."""
    y, at, headings, bands = 0.0, [], [], []
    for section, members in itertools.groupby(rows, key=lambda row: row.section):
        top = y
        if section:
            headings.append((y + panels.HEADING / 2, SECTIONS.get(section, section)))
            y += panels.HEADING
        for _ in members:
            at.append(y + panels.ROW / 2)
            y += panels.ROW
        bands.append((top, y))
    return panels.Places(at, headings, bands, y)


def _values(rows: Sequence[Row], meta: Meta) -> list[float]:
    """All that must find room on the accuracy axis."""
    values: list[float] = []
    for row in rows:
        if row.top1 is not None:
            values += [row.top1, *panels.reach(row)]
        if meta.compare_paper and row.paper_top1 is not None:
            values.append(row.paper_top1)
    return values


def _draw_frame(figure: Figure, rows: Sequence[Row], meta: Meta, caption: Sequence[str]) -> None:
    """Title above, caption below."""
    height = figure.get_figheight()
    x = _MARGIN / _WIDTH
    figure.text(x, 1 - 0.3 / height, meta.title, fontsize=15, fontweight="bold", va="center")
    under = _subtitle(rows, meta)
    figure.text(x, 1 - 0.58 / height, under, fontsize=10.5, color=panels.FAINT, va="center")
    for place, line in enumerate(reversed(caption)):
        y = (0.2 + _LINE * place) / height
        figure.text(x, y, line, fontsize=9, color=panels.FAINT, va="center")


def _subtitle(rows: Sequence[Row], meta: Meta) -> str:
    """Regime, data and seeds in one line."""
    done = [row for row in rows if row.top1 is not None]
    parts = [f"regime {meta.regime}"] if meta.regime else []
    parts.append(f"data {short_data(meta.data)}")
    if done:
        images = sorted({row.val_images or 0 for row in done})
        counts = sorted({len(row.seeds) for row in done})
        parts.append(f"{_range(images)} test images")
        parts.append(f"{_range(counts)} seed{'' if counts == [1] else 's'}")
    return textwrap.shorten(" · ".join(parts), _CAPTION, placeholder=" …")


def _range(numbers: Sequence[int]) -> str:
    """``3``, or ``1 to 3``, of sorted numbers."""
    return " to ".join(f"{number:,}" for number in dict.fromkeys((numbers[0], numbers[-1])))


def _caption(rows: Sequence[Row], meta: Meta, axis: Axis) -> list[str]:
    """Whose numbers these are, and what they are worth."""
    recipes = ", ".join(dict.fromkeys(row.recipe for row in rows if row.recipe))
    whose = f"Accuracies were measured in this study's runs ({recipes}); they are not the paper's."
    if meta.compare_paper:
        whose += " Diamonds are, on ImageNet-1K."
    sentences = [whose, noise_note(rows)]
    if axis.cut:
        sentences.append(f"The accuracy axis is cut: it begins at {axis.low:g} %, not at 0.")
    return [line for text in sentences for line in textwrap.wrap(text, _CAPTION)]


def _draw_legend(figure: Figure, rows: Sequence[Row], meta: Meta, y: float) -> None:
    handles = panels.legend_handles(rows, meta.compare_paper)
    if handles:
        figure.legend(
            handles=handles,
            loc="center left",
            bbox_to_anchor=(_MARGIN / _WIDTH, y),
            ncols=len(handles),
            frameon=False,
            fontsize=9,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.8,
            columnspacing=1.6,
        )
