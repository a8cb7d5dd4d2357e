"""A benchmark's tables. Ratios above 1 mean that ours is faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import digits, number

_Row = dict[str, Any]


def tables(found: _Row) -> list[Table[_Row]]:
    """A table for each part that was measured."""
    makers: dict[str, Callable[[Any], Table[_Row]]] = {
        "networks": _networks,
        "engine_overhead": _engine_overhead,
        "pipeline": _pipeline,
    }
    return [make(found[part]) for part, make in makers.items() if part in found]


def show(spread: Mapping[str, float] | None) -> str:
    """``1.25 (1.20-1.31)``: the median and the extremes."""
    if spread is None:
        return ""
    return f"{number(spread['median'])} ({number(spread['low'])}-{number(spread['high'])})"


def _name(key: str, heading: str) -> Column[_Row]:
    return Column(key, heading, lambda row: row[key], "text")


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
    columns = [_name("step", "network"), *_speed("training", "train")]
    columns += [
        *_speed("inference", "infer"),
        Column("latency_ms", "1 image, ms", lambda row: row["latency_ms"]["ours"]),
    ]
    return Table("networks", title, columns, rows)


def _speed(part: str, name: str) -> list[Column[_Row]]:
    return [
        _rate(f"{name}, img/s", lambda row: row[part]["images_per_s"]["ours"]["median"]),
        _spread(f"{name}, over plain", lambda row: row[part]["ratio"]["plain"]),
        _spread(f"{name}, over timm", lambda row: row[part]["ratio"].get("timm")),
    ]


def _engine_overhead(found: _Row) -> Table[_Row]:
    rates = found["images_per_s"]
    rows = [
        {"name": "bare step", "rate": rates["bare"]["median"]},
        {"name": "training", "rate": rates["steps"]["median"], "ratio": found["efficiency"]},
        {"name": "with evaluation, saving", "ratio": found["efficiency_whole"]},
    ]
    columns = [
        _name("name", ""),
        _rate("images/s", lambda row: row.get("rate")),
        _spread("over the bare step", lambda row: row.get("ratio")),
    ]
    title = f"loop: {found['network']} on {found['data']}, batch {found['batch']}"
    return Table("engine_overhead", title, columns, rows)


def _pipeline(found: _Row) -> Table[_Row]:
    columns = [
        _name("name", "recipe"),
        _rate("ours, images/s", lambda row: row["images_per_s"]["ours"]["median"]),
        _rate("timm, images/s", lambda row: row["images_per_s"]["timm"]["median"]),
        _spread("ratio", lambda row: row["ratio"]),
    ]
    rows = [{"name": name.replace("_", " "), **found[name]} for name in ("crop_and_flip", "modern")]
    return Table("pipeline", "reading and augmenting, one core, 224x224", columns, rows)
