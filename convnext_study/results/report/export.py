"""Tables as CSV for machines, and as Markdown and LaTeX (booktabs) for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from convnext_study.records import write_bytes
from convnext_study.results.report.tables import Cell, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "→": r"$\rightarrow$",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "\u00a0": "~",
}
# Lines and what would begin a comment or a tag of HTML in Markdown.
_MARKDOWN = {sign: f"\\{sign}" for sign in "\\|`*_[]<>#"} | {"\n": " ", "\r": " "}


def write_tables(tables: Iterable[Table], folder: Path) -> list[Path]:
    """Write each table as ``NAME.csv``, ``.md`` and ``.tex``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in tables:
        for kind, text in (
            ("csv", to_csv(table)),
            ("md", to_markdown(table)),
            ("tex", to_latex(table)),
        ):
            paths.append(folder / f"{table.name}.{kind}")
            write_bytes(paths[-1], text.encode("utf-8", "replace"))
    return paths


def to_csv(table: Table) -> str:
    """Values without units or signs, under the columns' machine names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    for row in table.rows:
        writer.writerow([_value(cell) for cell in row])
    return text.getvalue()


def _value(cell: Cell) -> float | str:
    """The number itself; an interval, which sorts by its low end, as its words."""
    if isinstance(cell.value, float) and " to " not in cell.text:
        return round(cell.value, 6)
    if isinstance(cell.value, int):
        return cell.value
    return cell.text.replace("−", "-")


def to_markdown(table: Table) -> str:
    """A pipe table with its caption above it."""
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [[_escape(column.head, _MARKDOWN) for column in table.columns], rule]
    lines += [[_escape(cell.text, _MARKDOWN) for cell in row] for row in table.rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{_escape(table.caption, _MARKDOWN)}\n\n{text}\n"


def to_latex(table: Table) -> str:
    """A ``table`` environment; needs the package booktabs."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    head = " & ".join(_escape(column.head, _LATEX) for column in table.columns)
    body = [
        "  " + " & ".join(_escape(cell.text, _LATEX) for cell in row) + r" \\" for row in table.rows
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{_escape(table.caption, _LATEX)}}}",
            f"  \\begin{{tabular}}{{{align}}}",
            r"  \toprule",
            f"  {head} \\\\",
            r"  \midrule",
            *body,
            r"  \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escape(text: str, signs: dict[str, str]) -> str:
    return "".join(signs.get(sign, sign) for sign in " ".join(text.split("\n")))
