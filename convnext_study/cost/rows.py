"""The cost of every row of a road map, beside the paper's figures (no torch at import)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from convnext_study.cost.crosscheck import verify_spec
from convnext_study.cost.hooks import count_spec
from convnext_study.roadmap import Point, Roadmap, get_roadmap
from convnext_study.roadmap.paper import paper_row
from convnext_study.spec import NetSpec

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

PAPER_IMAGE_SIZE = 224


def table(
    regimes: Iterable[str], image_size: int | None = None, verify: bool = False
) -> list[dict[str, Any]]:
    """A row of plain values for every point of the road maps named.

    ``macs`` is in units of 1e9, ``activations`` in 1e6, ``params`` as counted, for one image with
    sides of ``image_size`` pixels (each road map's own by default). ``matches_paper`` says whether
    the MACs, to two decimals, are the paper's figure; it is None where there is nothing to
    compare: on the nano road, and at any size but the paper's 224.

    Raises:
        StepError: an unknown road map.
        ImageTooSmall: an image that a network would shrink to nothing.
        CountersDisagree: with ``verify``, a row on which they do.
    """
    rows: list[dict[str, Any]] = []
    for road in [get_roadmap(regime) for regime in regimes]:
        size = image_size or road.image_size
        if verify:
            _verify(road, size)
        rows += [_row(point, size, road.num_classes) for point in road.points()]
    return rows


def _verify(road: Roadmap, size: int) -> None:
    names: dict[NetSpec, str] = {}
    for point in road.points():
        names.setdefault(point.spec, point.name)  # the first two rows are one network
    for spec, name in names.items():
        verify_spec(f"{road.regime} {name}", spec, size, road.num_classes)


def _row(point: Point, size: int, num_classes: int) -> dict[str, Any]:
    cost = count_spec(point.spec, size, num_classes)
    paper = paper_row(point.regime, point.name)
    comparable = paper is not None and size == PAPER_IMAGE_SIZE
    return {
        "regime": point.regime,
        "step": point.name,
        "label": point.label,
        "macs": cost.macs / 1e9,
        "params": cost.params,
        "activations": cost.activations / 1e6,
        "paper_gflops": paper.gflops if paper else None,
        "paper_top1": paper.top1 if paper else None,
        "matches_paper": prints_as(cost.macs, paper.gflops) if paper and comparable else None,
        "erratum": paper.erratum if paper else None,
        "model": point.model,
    }


def prints_as(macs: int, gflops: float) -> bool:
    """Whether MACs, rounded half up to two decimals of 1e9, give the printed figure."""
    # In whole hundredths of 1e9: 2.675 as a float would be rounded down.
    return (macs + 5_000_000) // 10_000_000 == round(gflops * 100)


def macs_unit(road: Roadmap) -> tuple[float, str]:
    """The unit of a road map's MACs: our own networks are a thousandth of the paper's."""
    return (1e9, "1e9") if road.published else (1e6, "1e6")


def render(rows: Sequence[dict[str, Any]]) -> Group:
    """A table for each road map in ``rows``, errata marked and explained below it, for rich."""
    from rich.console import Group

    regimes = list(dict.fromkeys(row["regime"] for row in rows))
    parts: list[RenderableType] = []
    for regime in regimes:
        parts += _render_road([row for row in rows if row["regime"] == regime])
    return Group(*parts)


def _render_road(rows: list[dict[str, Any]]) -> list[RenderableType]:
    from rich.constrain import Constrain
    from rich.text import Text

    road = get_roadmap(rows[0]["regime"])
    published, (unit, shown) = road.published, macs_unit(road)
    grid = _empty_table(f"{road.regime}: {road.title}", shown, published)
    notes: list[RenderableType] = []
    for row in rows:
        cells = [row["step"], f"{row['macs'] * 1e9 / unit:.4f}"]
        if published:
            mark = ""
            if row["matches_paper"] is not None:
                mark = "=" if row["matches_paper"] else f"[{len(notes) + 1}]"
            cells += [f"{row['paper_gflops']:.2f}", mark, f"{row['paper_top1']:.2f}"]
            if row["matches_paper"] is False:
                why = row["erratum"] or "differs from the printed figure; no reason is known."
                note = Text(f"[{len(notes) + 1}] {row['step']}: {why}")
                notes.append(Constrain(note, 80))
        cells += [f"{row['params'] / 1e6:.3f}", f"{row['activations']:.3f}"]
        grid.add_row(*map(Text, cells))
    return [grid, *_legend(rows, published), *notes, Text("")]


def _empty_table(title: str, unit: str, published: bool) -> Table:
    from rich import box
    from rich.table import Table

    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False)
    grid.add_column("step", no_wrap=True)
    grid.add_column(f"MACs\n{unit}", justify="right", no_wrap=True)
    if published:
        grid.add_column("paper\nGFLOPs", justify="right", no_wrap=True)
        grid.add_column("", no_wrap=True)
        grid.add_column("paper\ntop-1 %", justify="right", no_wrap=True)
    grid.add_column("params\n1e6", justify="right", no_wrap=True)
    grid.add_column("activations\n1e6", justify="right", no_wrap=True)
    return grid


def _legend(rows: list[dict[str, Any]], published: bool) -> list[RenderableType]:
    from rich.constrain import Constrain
    from rich.text import Text

    if not published:
        return []
    compared = [row["matches_paper"] for row in rows if row["matches_paper"] is not None]
    if compared:
        said = (
            f"= the MACs, to two decimals, are the paper's figure: {sum(compared)} of "
            f"{len(compared)} rows. The paper writes GFLOPs for 1e9 MACs."
        )
    else:
        said = "The paper's figures hold at 224x224 and cannot be compared with these MACs."
    return [Constrain(Text(said), 80)]
