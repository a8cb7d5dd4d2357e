"""A benchmark's tables, for rich, and its figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.results.report.figures.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType
    from rich.table import Table


def tables(found: dict[str, Any]) -> list[RenderableType]:
    """A table for each part that was measured. Ratios above 1 mean that ours is faster."""
    parts: list[RenderableType] = []
    if "networks" in found:
        parts.append(_networks(found["networks"]))
    if "loop" in found:
        parts.append(_loop(found["loop"]))
    if "pipeline" in found:
        parts.append(_pipeline(found["pipeline"]))
    if "growth" in found:
        parts.append(_growth(found["growth"]))
    if "peer" in found:
        parts.append(_peer(found["peer"]))
    return parts


def show(spread: dict[str, Any] | None) -> str:
    """``1.25 (1.20-1.31)``: the median and the extremes."""
    if spread is None:
        return ""
    return f"{spread['median']:.2f} ({spread['low']:.2f}-{spread['high']:.2f})"


def _empty(title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    grid = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    grid.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        grid.add_column(column, justify="right")
    return grid


def _networks(rows: list[dict[str, Any]]) -> Table:
    first = rows[0]
    grid = _empty(
        f"networks, batch {first['batch']} of {first['image_size']}x{first['image_size']}: "
        "images/s, and ours over the plainest form and over timm's",
        (
            "network",
            "train\nimg/s",
            "train\nover plain",
            "train\nover timm",
            "infer\nimg/s",
            "infer\nover plain",
            "infer\nover timm",
            "1 image\nms",
            "step\nMB",
            "timm\nMB",
        ),
    )
    for row in rows:
        train, infer, memory = row["training"], row["inference"], row["memory_mb"]
        grid.add_row(
            row["step"],
            f"{train['images_per_s']['ours']['median']:.0f}",
            show(train["ratio"]["plain"]),
            show(train["ratio"].get("timm")),
            f"{infer['images_per_s']['ours']['median']:.0f}",
            show(infer["ratio"]["plain"]),
            show(infer["ratio"].get("timm")),
            f"{row['latency_ms']['ours']:.2f}",
            _number(memory["ours"]),
            _number(memory.get("timm")),
        )
    return grid


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _loop(found: dict[str, Any]) -> Table:
    grid = _empty(
        f"loop: {found['network']} on {found['data']}, batch {found['batch']}",
        ("", "images/s", "over the bare step"),
    )
    rates = found["images_per_s"]
    grid.add_row("bare step", f"{rates['bare']['median']:.0f}", "1")
    grid.add_row("training", f"{rates['steps']['median']:.0f}", show(found["efficiency"]))
    grid.add_row("with evaluation, saving", "", show(found["efficiency_whole"]))
    return grid


def _pipeline(found: dict[str, Any]) -> Table:
    grid = _empty(
        "reading and augmenting, one core, 224x224",
        ("recipe", "ours\nimages/s", "timm\nimages/s", "ratio"),
    )
    for name in ("crop_and_flip", "modern"):
        rates = found[name]["images_per_s"]
        grid.add_row(
            name.replace("_", " "),
            f"{rates['ours']['median']:.0f}",
            f"{rates['timm']['median']:.0f}",
            show(found[name]["ratio"]),
        )
    return grid


def _growth(found: dict[str, Any]) -> Table:
    grid = _empty(
        "growth of a training step, an image's share, over the first value of each",
        ("", "value", "images/s", "time", "MACs"),
    )
    for name, rows in found.items():
        for row in rows:
            grid.add_row(
                name.replace("_", " "),
                str(row["value"]),
                f"{row['images_per_s']['median']:.0f}",
                show(row["seconds_an_image"]),
                f"{row['macs']:.2f}",
            )
    return grid


def _peer(found: dict[str, Any]) -> Table:
    grid = _empty("commands in turns", ("", "ours", "peer", "ours, times as fast"))
    seconds = found["seconds"]
    grid.add_row("seconds", show(seconds["ours"]), show(seconds["peer"]), show(found["time_ratio"]))
    if found["rate_ratio"]:
        rates = found["images_per_s"]
        grid.add_row(
            "images/s", show(rates["ours"]), show(rates["peer"]), show(found["rate_ratio"])
        )
    return grid


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Ratios of the networks and growth, as ``bench.svg`` and ``bench.png``."""
    from convnext_study.results.report.figures import style

    panels: dict[str, tuple[str, Callable[[Axes, Any], None]]] = {
        "networks": ("images/s of ours over the other's", _draw_networks),
        "growth": ("time an image takes, multiple of the first", _draw_growth),
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
    for number, (name, rows) in enumerate(found.items()):
        factor = [row["value"] / rows[0]["value"] for row in rows]
        middle, errors = _errors([row["seconds_an_image"] for row in rows])
        label = f"{name.replace('_', ' ')} ({rows[0]['value']} to {rows[-1]['value']})"
        look: dict[str, Any] = {"color": f"C{number}", "markersize": 4, "fmt": "o-"}
        axes.errorbar(factor, middle, yerr=errors, label=label, **look)
        axes.plot(factor, [row["macs"] for row in rows], ":", color=f"C{number}")
    axes.set_xlabel("multiple of the first value (dotted: its MACs)")
    axes.legend()
