"""Two factors crossed, with several seeds in each cell: which of them matters, and do they add up.

A balanced two-way analysis of variance with interaction, both factors fixed (Fisher).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.errors import UserError

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]


@dataclass(frozen=True)
class Factor:
    """A source of variation: its share of all variation, its F statistic and p."""

    name: str
    share: float
    f: float
    p: float
    df: int


@dataclass(frozen=True)
class TwoWay:
    """Rows, columns and their interaction; ``std`` is the deviation within cells, with ``df``."""

    rows: Factor
    columns: Factor
    interaction: Factor
    std: float
    df: int


def two_way(
    cells: Sequence[Sequence[Sequence[float]]],
    names: tuple[str, str] = ("rows", "columns"),
    *,
    resolution: float = 0.0,
) -> TwoWay:
    """Analyse a table of values.

    Args:
        cells: (rows, columns, seeds).
        names: of the two factors.
        resolution: the least standard deviation within cells that is assumed, as elsewhere.

    Raises UserError for cells of unlike numbers of seeds, or with fewer than two.
    """
    import numpy as np
    from scipy.special import fdtrc

    sizes = {len(cell) for row in cells for cell in row}
    shapes = {len(row) for row in cells}
    if len(sizes) != 1 or len(shapes) != 1 or min(sizes) < 2 or min(len(cells), *shapes) < 2:
        raise UserError("a two-way table takes two or more rows, columns and seeds in every cell")
    table = np.asarray(cells, dtype=float)
    a, b, n = table.shape
    mean, means = table.mean(), table.mean(axis=2)
    of_rows, of_columns = means.mean(axis=1), means.mean(axis=0)
    squares = {
        names[0]: (float(b * n * ((of_rows - mean) ** 2).sum()), a - 1),
        names[1]: (float(a * n * ((of_columns - mean) ** 2).sum()), b - 1),
        "interaction": (
            float(n * ((means - of_rows[:, None] - of_columns + mean) ** 2).sum()),
            (a - 1) * (b - 1),
        ),
    }
    within = float(((table - means[..., None]) ** 2).sum())
    df = a * b * (n - 1)
    noise = max(within / df, resolution**2)
    total = within + sum(square for square, _ in squares.values())

    def factor(name: str) -> Factor:
        square, own = squares[name]
        f = square / own / noise if noise else 0.0
        p = float(fdtrc(own, df, f)) if noise else 1.0
        return Factor(name, square / total if total else 0.0, f, p, own)

    rows, columns = (factor(name) for name in names)
    return TwoWay(rows, columns, factor("interaction"), float(np.sqrt(noise)), df)
