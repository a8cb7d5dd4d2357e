"""What a step does to MACs, parameters and, in the paper, to accuracy."""

from __future__ import annotations

from rich.constrain import Constrain
from rich.text import Text

from convnext_study.cost import count_spec, macs_unit
from convnext_study.roadmap import Point, Roadmap
from convnext_study.roadmap.paper import PaperRow, paper_row
from convnext_study.show.columns import WIDTH


def compare_costs(road: Roadmap, before: Point | None, point: Point, size: int) -> Constrain:
    """Before, after, difference and percent; the paper's accuracy where the road is the paper's."""
    new = count_spec(point.spec, size, road.num_classes)
    old = count_spec(before.spec, size, road.num_classes) if before else None
    unit, shown = macs_unit(road)
    text = Text()
    columns = f"{'before':>9} {'after':>9} {'change':>9}" if before else ""
    text.append(f"{f'Cost at {size}x{size}':<19}{columns}\n", "bold")
    text.append(_cost(f"MACs, {shown}", old.macs if old else None, new.macs, unit, 4))
    text.append(_cost("parameters, 1e6", old.params if old else None, new.params, 1e6, 3))
    paper = paper_row(point.regime, point.name)
    if paper:
        text.append(_accuracy(paper_row(before.regime, before.name) if before else None, paper))
        if paper.erratum:
            text.append(f"\nErratum. {paper.erratum}\n")
    return Constrain(text, WIDTH)


def _cost(what: str, old: int | None, new: int, unit: float, digits: int) -> str:
    if old is None:
        return f"{what:<19}{new / unit:>9.{digits}f}\n"
    line = f"{what:<19}{old / unit:>9.{digits}f} {new / unit:>9.{digits}f}"
    if old == new:
        return f"{line} {'none':>9}\n"
    change = (new - old) / unit
    return f"{line} {change:>+9.{digits}f}  {100 * (new - old) / old:+.1f} %\n"


def _accuracy(old: PaperRow | None, new: PaperRow) -> str:
    what, source = "top-1, %", "  paper, ImageNet-1K"
    if old is None:
        return f"{what:<19}{new.top1:>9.2f}{source}\n"
    lines = f"{what:<19}{old.top1:>9.2f} {new.top1:>9.2f} {new.top1 - old.top1:>+9.2f}{source}\n"
    if new.std is not None:
        deviations = [f"±{row.std:.2f}" if row.std is not None else "" for row in (old, new)]
        lines += f"{'':<19}{deviations[0]:>9} {deviations[1]:>9} {'':>9}  deviation of 3 seeds\n"
    return lines


def tried_beside(road: Roadmap, point: Point, size: int) -> list[Text]:
    """The rows that set the same fields from the same place on the road, where there are more."""
    rows = [row for row in road.points() if _alike(row, point)]
    if len(rows) < 2:
        return []
    unit, shown = macs_unit(road)
    text = Text()
    text.append(f"{'Tried beside it':<19}{f'MACs, {shown}':>9} {'params, 1e6':>12}", "bold")
    text.append(f"{'top-1 % (paper)':>17}\n" if road.published else "\n", "bold")
    for row in rows:
        cost = count_spec(row.spec, size, road.num_classes)
        paper = paper_row(row.regime, row.name)
        line = f"{row.name:<19}{cost.macs / unit:>9.4f} {cost.params / 1e6:>12.3f}"
        line += f"{paper.top1:>17.2f}" if paper else ""
        text.append(line + ("  adopted\n" if row.adopted else "\n"))
    return [text]


def _alike(row: Point, point: Point) -> bool:
    if row.step is None or point.step is None or not point.step.sets:
        return False
    return row.parent == point.parent and row.step.sets.keys() == point.step.sets.keys()
