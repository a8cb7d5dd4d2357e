"""The result table of a study, for a terminal or as plain lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.results.noise import noise_points
from convnext_study.results.summary import Row

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_REASONS = 6  # lines about left-out runs; all of them stand in results.json
_NARROW = 92  # columns, below which the throughput is left out
PAPER_LABEL = "paper, ImageNet-1K"


def result_table(rows: Sequence[Row], note: str) -> ResultTable:
    """Rows in the order given, then what their differences are worth. For rich to print."""
    return ResultTable(tuple(rows), note)


@dataclass(frozen=True)
class ResultTable:
    """A table as wide as the console allows, and the notes that belong to it."""

    rows: tuple[Row, ...]
    note: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        columns = _columns(self.rows, narrow=options.max_width < _NARROW)
        for place, column in enumerate(columns):
            # Where room is short the first column gives it, shortened and not wrapped.
            grid.add_column(column.head, justify=column.justify, no_wrap=place > 0)
        for row in self.rows:
            style = "" if row.adopted else "italic"
            grid.add_row(
                *(
                    Text.assemble(cell(row), style=style, no_wrap=True, overflow="ellipsis")
                    for cell in (column.cell for column in columns)
                )
            )
        yield grid
        for line in [*_legend(self.rows), self.note, *_left_out(self.rows)]:
            yield Text(line)


@dataclass(frozen=True)
class _Column:
    head: str
    cell: Callable[[Row], Any]  # text, or text and style
    justify: Any = "right"


def _columns(rows: Sequence[Row], narrow: bool) -> list[_Column]:
    unit, name = macs_unit(rows)
    noise = noise_points(rows)
    columns = [
        _Column("step", _label, "left"),
        _Column("top-1 %", _top1),
        _Column("seeds", _seeds),
        _Column("gain", lambda row: _gain(row, noise)),
        _Column(f"MACs {name}", lambda row: _number(row.macs, 1 / unit, 2)),
        _Column("params M", lambda row: _number(row.params, 1e-6, 2 if unit == 1e9 else 3)),
    ]
    if not narrow:
        columns.append(_Column("images/s", lambda row: _number(row.images_per_s, 1, 0)))
    if any(row.paper_top1 is not None for row in rows):
        columns.append(
            _Column(PAPER_LABEL.replace(" ", "\n"), lambda row: _number(row.paper_top1, 1, 2))
        )
    return columns


def macs_unit(rows: Sequence[Row]) -> tuple[float, str]:
    """The unit in which a study's MACs are printed, one for all of its rows."""
    largest = max((row.macs or 0 for row in rows), default=0)
    return (1e9, "G") if largest >= 1e9 else (1e6, "M")


def _label(row: Row) -> str:
    return row.label if row.adopted else f"  └ {row.label}"


def _top1(row: Row) -> Any:
    if row.top1 is None:
        return (row.state, "dim")
    return f"{row.top1:.2f}" + (f" ± {row.sd:.2f}" if row.sd is not None else "")


def _seeds(row: Row) -> str:
    done = len(row.seeds)
    return str(done) if done == row.seeds_asked else f"{done}/{row.seeds_asked}"


def _gain(row: Row, noise: float | None) -> Any:
    if row.gain is None:
        return ""
    if noise is not None and abs(row.gain) < noise:
        return (f"~{row.gain:+.2f}", "dim")
    return (f"{row.gain:+.2f}", "bold")


def _number(value: float | None, factor: float, digits: int) -> str:
    return "" if value is None else f"{value * factor:,.{digits}f}"


def _legend(rows: Sequence[Row]) -> list[str]:
    lines = []
    gains = "gain: points over the step before; ~ where that is within noise."
    if any(row.gain is not None for row in rows):
        lines.append(gains)
    if not all(row.adopted for row in rows):
        lines.append("└: tried beside the road and not adopted.")
    if any(row.paper_top1 is not None for row in rows):
        lines.append(f"{PAPER_LABEL}: the paper's own top-1, not measured here.")
    return lines


def _left_out(rows: Sequence[Row]) -> list[str]:
    lines = [f"{row.label}: {remark}" for row in rows for remark in row.remarks]
    lines += [
        f"kept out of the means: {one.run} ({one.reason})" for r in rows for one in r.left_out
    ]
    more = len(lines) - _REASONS
    return lines[:_REASONS] + ([f"and {more} more, see results.json"] if more > 0 else [])
