"""A benchmark's tables and its figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.report.figures.style import COLOURS
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import digits, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Row = dict[str, Any]


def tables(found: dict[str, Any]) -> list[Table[_Row]]:
    """A table for each part that was measured. Ratios above 1 mean that ours is faster."""
    makers: dict[str, Callable[[Any], Table[_Row]]] = {
        "networks": _networks,
        "engine_overhead": _loop,
        "pipeline": _pipeline,
        "composition": _composition,
        "scaling": _growth,
        "peer": _peer,
    }
    return [make(found[part]) for part, make in makers.items() if part in found]


def show(spread: _Row | None) -> str:
    """``1.25 (1.20-1.31)``: the median and the extremes."""
    if spread is None:
        return ""
    return f"{number(spread['median'])} ({number(spread['low'])}-{number(spread['high'])})"


def _rate(heading: str, value: Callable[[_Row], float | None]) -> Column[_Row]:
    return Column(heading, heading, value, format=digits(0))


def _spread(heading: str, value: Callable[[_Row], _Row | None]) -> Column[_Row]:
    return Column(heading, heading, value, format=show)


def _networks(rows: list[_Row]) -> Table[_Row]:
    side = rows[0]["image_size"]
    title = (
        f"networks, batch {rows[0]['batch']} of {side}x{side}: "
        "images/s, and ours over the plainest form and over timm's"
    )
    columns: list[Column[_Row]] = [Column("step", "network", lambda row: row["step"], "text")]
    columns += [*_speed("training", "train"), *_speed("inference", "infer")]
    columns += [
        Column("latency_ms", "1 image, ms", lambda row: row["latency_ms"]["ours"]),
        _rate("step, MB", lambda row: row["memory_mb"]["ours"]),
        _rate("timm, MB", lambda row: row["memory_mb"].get("timm")),
    ]
    return Table("networks", title, columns, rows)


def _speed(part: str, name: str) -> list[Column[_Row]]:
    return [
        _rate(f"{name}, img/s", lambda row: row[part]["images_per_s"]["ours"]["median"]),
        _spread(f"{name}, over plain", lambda row: row[part]["ratio"]["plain"]),
        _spread(f"{name}, over timm", lambda row: row[part]["ratio"].get("timm")),
    ]


def _loop(found: _Row) -> Table[_Row]:
    rates = found["images_per_s"]
    rows = [
        {"name": "bare step", "rate": rates["bare"]["median"]},
        {"name": "training", "rate": rates["steps"]["median"], "ratio": found["efficiency"]},
        {"name": "with evaluation, saving", "ratio": found["efficiency_whole"]},
    ]
    columns = [
        Column[_Row]("name", "", lambda row: row["name"], "text"),
        _rate("images/s", lambda row: row.get("rate")),
        _spread("over the bare step", lambda row: row.get("ratio")),
    ]
    title = f"loop: {found['network']} on {found['data']}, batch {found['batch']}"
    return Table("engine_overhead", title, columns, rows)


def _pipeline(found: _Row) -> Table[_Row]:
    columns = [
        Column[_Row]("recipe", "recipe", lambda row: row["name"], "text"),
        _rate("ours, images/s", lambda row: row["images_per_s"]["ours"]["median"]),
        _rate("timm, images/s", lambda row: row["images_per_s"]["timm"]["median"]),
        _spread("ratio", lambda row: row["ratio"]),
    ]
    rows = [{"name": name.replace("_", " "), **found[name]} for name in ("crop_and_flip", "modern")]
    return Table("pipeline", "reading and augmenting, one core, 224x224", columns, rows)


def _composition(rows: list[_Row]) -> Table[_Row]:
    columns = [
        Column[_Row]("step", "network", lambda row: row["step"], "text"),
        _rate("composed, images/s", lambda row: row["images_per_s"]["composed"]["median"]),
        _rate("trained, images/s", lambda row: row["images_per_s"]["trained"]["median"]),
        _spread("ratio", lambda row: row["ratio"]),
    ]
    return Table("composition", "composing images of clutter beside training", columns, rows)


def _growth(found: _Row) -> Table[_Row]:
    columns = [
        Column[_Row]("name", "", lambda row: row["name"], "text"),
        Column[_Row]("value", "value", lambda row: row["value"], format=str),
        _rate("images/s", lambda row: row["images_per_s"]["median"]),
        _spread("time", lambda row: row["seconds_an_image"]),
        Column[_Row]("macs", "MACs", lambda row: row["macs"]),
    ]
    rows = [{"name": name.replace("_", " "), **row} for name, part in found.items() for row in part]
    title = "growth of a training step, an image's share, over the first value of each"
    return Table("scaling", title, columns, rows)


def _peer(found: _Row) -> Table[_Row]:
    rows = [{"name": "seconds", **found["seconds"], "ratio": found["time_ratio"]}]
    if found["rate_ratio"]:
        rows += [{"name": "images/s", **found["images_per_s"], "ratio": found["rate_ratio"]}]
    columns = [
        Column[_Row]("name", "", lambda row: row["name"], "text"),
        _spread("ours", lambda row: row["ours"]),
        _spread("peer", lambda row: row["peer"]),
        _spread("ours, times as fast", lambda row: row["ratio"]),
    ]
    return Table("peer", "interleaved commands", columns, rows)


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Ratios of the networks and growth, as ``bench.svg`` and ``bench.png``."""
    from convnext_study.report.figures import style

    panels: dict[str, tuple[str, Callable[[Axes, Any], None]]] = {
        "networks": ("images/s of ours over the other's", _draw_networks),
        "scaling": ("time an image takes, multiple of the first", _draw_growth),
    }
    shown = [name for name in panels if name in found]
    if not shown:
        return []
    with style.style():
        figure, charts = style.draw_charts([panels[name][0] for name in shown], (5.5, 5))
        for name, axes in zip(shown, charts, strict=True):
            panels[name][1](axes, found[name])
        return style.save(figure, folder, "bench", ("svg", "png"))


def _errors(spreads: Sequence[dict[str, Any]]) -> tuple[list[float], tuple[list[float], ...]]:
    """Medians, and how far the extremes lie below and above them."""
    below = [spread["median"] - spread["low"] for spread in spreads]
    above = [spread["high"] - spread["median"] for spread in spreads]
    return [spread["median"] for spread in spreads], (below, above)


def _draw_networks(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for shift, part, colour in ((-0.12, "training", "link"), (0.12, "inference", "mark")):
        for other, marker in (("plain", "o"), ("timm", "D")):
            known = [
                (place + shift, row[part]["ratio"][other])
                for place, row in enumerate(rows)
                if other in row[part]["ratio"]
            ]
            if known:
                middle, errors = _errors([spread for _, spread in known])
                label = f"{part}, over {'the plain form' if other == 'plain' else 'timm'}"
                look: dict[str, Any] = {"color": COLOURS[colour], "markersize": 4, "fmt": marker}
                axes.errorbar(middle, [y for y, _ in known], xerr=errors, label=label, **look)
    axes.axvline(1, color=COLOURS["grey"], linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [row["step"] for row in rows])
    axes.invert_yaxis()
    axes.legend()


def _draw_growth(axes: Axes, found: dict[str, Any]) -> None:
    for series, (name, rows) in enumerate(found.items()):
        factor = [row["value"] / rows[0]["value"] for row in rows]
        middle, errors = _errors([row["seconds_an_image"] for row in rows])
        label = f"{name.replace('_', ' ')} ({rows[0]['value']} to {rows[-1]['value']})"
        look: dict[str, Any] = {"color": f"C{series}", "markersize": 4, "fmt": "o-"}
        axes.errorbar(factor, middle, yerr=errors, label=label, **look)
        axes.plot(factor, [row["macs"] for row in rows], ":", color=f"C{series}")
    axes.set_xlabel("multiple of the first value (dotted: its MACs)")
    axes.legend()
