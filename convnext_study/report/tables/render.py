"""A `Table` on a terminal, on the page, and as CSV, JSON, LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.report.tables.table import SavedTable, Table
from convnext_study.runs.files import safe_name, write_bytes

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from rich.console import Console, ConsoleOptions, RenderResult

AnyTable = Table[Any] | SavedTable
# Characters that LaTeX's default fonts lack or misread, besides those that tabulate escapes.
_LATEX = str.maketrans(
    {
        "→": r"$\rightarrow$",
        "−": r"$-$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "└": "--",
        "“": "``",
        "”": "''",
        "…": r"\ldots{}",
        "↓": r"$\downarrow$",
        "|": r"\textbar{}",
        "\u00a0": "~",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
    }
)
_LATIN = "\u0180"  # pdflatex supports characters below it, whatever the font's encoding
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (FINAL )?(\w+)$")
# Greek letters without a LaTeX command, since they look like these.
_LOOKS = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧο", "ABEZHIKMNOPTXo", strict=True))
_FORMULA = re.compile(r"[\s\"']*[=+\-@＝＋－＠]|[\t\r\n]")
# Characters that have a meaning in Markdown, or start a comment or an HTML tag.
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\|`*_[]<>#~"})


@dataclass(frozen=True)
class Screen:
    """A table for rich: as wide as the console allows, its notes below it.

    On a narrow console the first text column is truncated and other ones are wrapped.
    """

    table: AnyTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich import box
        from rich.table import Table as Grid
        from rich.text import Text

        headings, rows = self.table.on_screen(options.max_width)
        grid = Grid(
            title=Text(self.table.title, "italic") if self.table.title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            show_edge=False,
            pad_edge=False,
        )
        shrinkable = next((i for i, heading in enumerate(headings) if heading.left), 0)
        for heading in headings:
            grid.add_column(
                Text(heading.text.replace(", ", ",\n")),
                justify="left" if heading.left else "right",
                no_wrap=not heading.left,
            )
        styles = {"": "", "faint": "dim", "strong": "bold"}
        for row in rows:
            cells = [Text(cell.text, styles[cell.tone], overflow="fold") for cell in row]
            cells[shrinkable].no_wrap, cells[shrinkable].overflow = True, "ellipsis"
            grid.add_row(*cells)
        yield grid
        yield from map(Text, self.table.notes)


def to_html(table: AnyTable) -> Markup:
    """A ``figure`` with columns that sort on click; all text of rows is escaped."""
    from markupsafe import Markup

    headings, rows = table.on_screen()
    key = next((i for i, heading in enumerate(headings) if heading.left), 0)
    return Markup(  # noqa: S704  the template escapes
        templates()
        .get_template("table.html.j2")
        .render(title=table.title, headings=headings, rows=rows, notes=table.notes, key=key)
    )


@functools.cache
def templates() -> Environment:
    """The package's templates; they escape their values and fail on undefined names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("convnext_study", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def to_csv(table: AnyTable) -> str:
    """Values without units or signs, under the columns' keys."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_no_formula, table.csv_names))
    for record in table.records(csv=True):
        writer.writerow(map(_no_formula, record.values()))
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    """Text that a spreadsheet would evaluate as a formula, prefixed with an apostrophe."""
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def to_json(table: AnyTable) -> str:
    """Title, notes, and the rows as objects of plain values."""
    values = {"title": table.title, "notes": table.notes, "rows": table.records()}
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_latex(table: AnyTable) -> str:
    """A ``table`` environment; needs the package booktabs."""
    from tabulate import LATEX_ESCAPE_RULES

    def escape(text: str) -> str:
        return "".join(LATEX_ESCAPE_RULES.get(char, char) for char in text)

    # An empty line would end the paragraph, and with it the enclosing command.
    notes = "".join(f"\\par\\footnotesize {escape(_line(note))}\n" for note in table.notes)
    text = (
        f"\\begin{{table}}\n\\centering\n\\caption{{{escape(_line(table.title))}}}\n"
        f"{_tabulated(table, 'latex_booktabs')}\n{notes}\\end{{table}}\n"
    )
    return "".join(map(_latex_sign, text.translate(_LATEX)))


def _latex_sign(char: str) -> str:
    """A character as pdflatex accepts it: Greek as mathematics, others in their plain form, or by
    code point where they have none, as Chinese."""
    if char < _LATIN:
        return char
    parts = unicodedata.normalize("NFKD", char)
    plain = "".join(_LOOKS.get(part, part) for part in parts if not unicodedata.combining(part))
    if plain and max(plain) < _LATIN:
        return plain
    greek = _GREEK.match(unicodedata.name(plain, "")) if len(plain) == 1 else None
    if not greek:
        return f"[U+{ord(char):04X}]"
    name = greek[3].lower().replace("lamda", "lambda")
    if greek[1] == "CAPITAL":
        name = name.capitalize()
    return f"$\\{'var' if greek[2] else ''}{name}$"


def to_markdown(table: AnyTable) -> str:
    """A pipe table with its title above it and its notes below."""
    lines = [table.title, _tabulated(table, "pipe", _MARKDOWN), *table.notes]
    lines = [line if line is lines[1] else _line(line).translate(_MARKDOWN) for line in lines]
    return "\n\n".join(line for line in lines if line) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def _tabulated(table: AnyTable, kind: str, escapes: dict[int, str] | None = None) -> str:
    from tabulate import tabulate

    headings, rows = table.on_screen()
    lines = [[heading.text for heading in headings], *([cell.text for cell in row] for row in rows)]
    head, *body = [[_line(text).translate(escapes or {}) for text in line] for line in lines]
    text: str = tabulate(
        body,
        head,
        tablefmt=kind,
        colalign=["left" if heading.left else "right" for heading in headings] if rows else None,
        disable_numparse=True,
    )
    return text


_FILES = {"csv": to_csv, "json": to_json, "md": to_markdown, "tex": to_latex}


def write_tables(
    tables: Iterable[AnyTable], folder: Path, kinds: Iterable[str] = tuple(_FILES)
) -> list[Path]:
    """Write each table as ``NAME.KIND``, each file atomically; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in tables:
        for kind in kinds:
            paths.append(folder / f"{safe_name(table.name)}.{kind}")
            write_bytes(paths[-1], _FILES[kind](table).encode("utf-8", "replace"))
    return paths
