"""Tables: one definition, the same numbers wherever it is shown."""

import csv
import io
import json
import math
import re
from html import unescape
from pathlib import Path
from typing import NamedTuple

import pytest
from support.fakes import fake_runs, write_study
from support.pages import on_screen

from convnext_study.report.figures.roadmap import roadmap
from convnext_study.report.page import render
from convnext_study.report.tables import Column, Table, formatting
from convnext_study.report.tables import results as results_module
from convnext_study.report.tables.comparison import differences_table
from convnext_study.report.tables.render import (
    Screen,
    to_csv,
    to_html,
    to_json,
    to_latex,
    to_markdown,
    write_tables,
)
from convnext_study.report.tables.results import results_table, terminal_table, write_results
from convnext_study.report.text import summary
from convnext_study.report.write import write_report
from convnext_study.results.load import load_results
from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.rows import ResultRow
from convnext_study.results.summary import summarize
from convnext_study.runs.records import scan

ROOT = Path(__file__).parents[2]


class Line(NamedTuple):
    name: str
    gain: float | None = None
    ends: tuple[float, float] | None = None
    macs: int = 0


COLUMNS: list[Column[Line]] = [
    Column("name", "step", lambda line: line.name, "text"),
    Column("gain", "gain", lambda line: line.gain, format=formatting.signed),
    Column("ci", "95 % interval", lambda line: line.ends, "interval"),
    Column("macs", "MACs", lambda line: line.macs, prefixed=True),
]
LINES = [Line("a", -1.5, (-2.0, -1.0), 2_500_000), Line("b", None, (-math.inf, math.inf), 250_000)]
TABLE = Table("t", "What is tried", COLUMNS, LINES)


@pytest.mark.usefixtures("no_figures")
def test_a_new_column_of_results_is_one_line_for_all_who_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study"
    write_study(study, fake_runs(seeds=(0, 1, 2)))
    column: Column[ResultRow] = Column(
        "macs_per_param", "MACs a parameter", lambda row: (row.macs or 0) / (row.params or 1)
    )
    monkeypatch.setattr(results_module, "COLUMNS", [*results_module.COLUMNS, column])
    rows = summarize(scan(study))
    value = (rows[0].macs or 0) / (rows[0].params or 1)
    text = formatting.number(value)
    files = write_results(study, rows, "a study")
    files += write_report(study, tmp_path / "report")[0]
    written = {
        path.relative_to(tmp_path).as_posix(): path.read_text()
        for path in files
        if path.suffix not in (".png", ".pdf")
    }
    assert written["study/results.csv"] == written["report/tables/results.csv"]
    first = next(csv.DictReader(io.StringIO(written["study/results.csv"])))
    assert float(first["macs_per_param"]) == pytest.approx(value)
    assert {"value", "std", "n", "ci_low", "ci_high", "macs", "params", "significant"} <= set(first)
    for name in ("study/results.json", "report/tables/results.json"):
        assert json.loads(written[name])["rows"][0]["macs_per_param"] == pytest.approx(value)
    on_screens = [
        on_screen(Screen(terminal_table(rows)), width=140),
        written["report/report.html"],
        written["report/tables/results.tex"],
        written["report/tables/results.md"],
    ]
    for screen in on_screens:
        assert "MACs a parameter" in screen and text in screen


@pytest.mark.usefixtures("no_figures")
def test_screen_page_csv_latex_figure_and_words_give_one_answer(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_study(study, fake_runs(seeds=(0, 1, 2)), spread=0.1, top1={"gelu": 80.0})
    rows = summarize(scan(study))
    page = unescape(render(load_results(study)).html)
    screen = on_screen(Screen(terminal_table(rows)), width=140)
    latex = to_latex(results_table(rows))
    numbers = list(csv.DictReader(io.StringIO(to_csv(results_table(rows)))))
    marks: dict[str, str] = {}
    for line in numbers:
        accuracy = f"{float(line['value']):.2f} ± {float(line['std']):.2f}"
        assert accuracy in screen and accuracy in page
        assert accuracy.replace("±", r"$\pm$") in latex
        if line["gain"]:
            significant = line["significant"] == "True"
            gain = formatting.signed(float(line["gain"])) + "*" * significant
            marks[line["label"]] = gain
            assert gain in screen and gain in page
            assert gain.replace("−", "$-$") in latex
    assert {mark[-1] == "*" for mark in marks.values()} == {True, False}
    # The figure, the sentences and the table of tests give the same answer.
    found = load_results(study).studies[0]
    texts = [one.get_text() for one in roadmap(rows, found.meta).axes[0].texts]
    for label, gain in marks.items():
        assert gain in texts[texts.index(label) + 1 : texts.index(label) + 4]
    count = sum(mark.endswith("*") for mark in marks.values())
    said = " ".join(summary(found))
    assert f"Of 16 comparisons, {count} {'is' if count == 1 else 'are'} significant" in said
    tested = differences_table(found.rows, found.tests, {})
    assert tested is not None
    assert sum(one["significant"] for one in tested.records()) == count


def test_the_readme_says_what_the_example_holds() -> None:
    example = ROOT / "docs" / "example"
    with (example / "results.csv").open() as file:
        marks = [line["significant"] for line in csv.DictReader(file) if line["gain"]]
    found, tested = marks.count("True"), len(marks)
    for page in ("README.md", "docs/clutter.md", "docs/example/README.md"):
        said = " ".join((ROOT / page).read_text().split())
        numbers = re.search(r"(\d+) of (?:the )?(\d+) steps are significant", said)
        assert numbers is not None, page
        assert [int(number) for number in numbers.groups()] == [found, tested]
    page = unescape((example / "report.html").read_text())
    assert f"Of {tested} comparisons, {found} are significant" in page


def test_files_hold_numbers_and_screens_text() -> None:
    assert list(csv.DictReader(io.StringIO(to_csv(TABLE)))) == [
        {"name": "a", "gain": "-1.5", "ci_low": "-2.0", "ci_high": "-1.0", "macs": "2500000"},
        {"name": "b", "gain": "", "ci_low": "", "ci_high": "", "macs": "250000"},
    ]
    assert json.loads(to_json(TABLE))["rows"][0] == {
        **{"name": "a", "gain": -1.5, "ci_low": -2.0, "ci_high": -1.0, "macs": 2_500_000}
    }
    lines = to_markdown(TABLE).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells[0] == ["step", "gain", "95 % interval", "MACs, M"]
    assert cells[2:] == [["a", "−1.50", "−2.00 to −1.00", "2.50"], ["b", "", "unbounded", "0.25"]]
    shown = on_screen(Screen(TABLE))
    assert "−2.00 to −1.00" in shown and "unbounded" in shown
    sorted_by = re.findall(r'data-value="([^"]*)"', to_html(TABLE))
    assert sorted_by == ["a", "-1.5", "-2.0", "2500000", "b", "250000"]


def test_columns_without_a_cell_are_on_no_screen_and_in_every_file() -> None:
    table = Table("t", "", COLUMNS, [Line("a")])
    assert [heading.text for heading in table.on_screen()[0]] == ["step", "MACs, M"]
    assert to_csv(table).splitlines()[0] == "name,gain,ci_low,ci_high,macs"


def test_text_is_escaped_for_each_kind() -> None:
    name = "50 % of a_b | <b> & $x$ {→} −\n# [bold] end"
    table = Table("t", "caption 100 % <i>", COLUMNS, [Line(name, -1.5)], ("note & <i>",))
    latex = to_latex(table)
    assert r"50 \% of a\_b \textbar{} \ensuremath{<}b\ensuremath{>} \& \$x\$" in latex
    assert r"\{$\rightarrow$\} $-$ \# [bold] end" in latex and "$-$1.50" in latex
    assert r"\caption{caption 100 \% \ensuremath{<}i\ensuremath{>}}" in latex
    assert r"note \& \ensuremath{<}i" in latex
    assert r"| 50 % of a\_b \| \<b\> & $x$ {→} − \# \[bold\] end |" in to_markdown(table)
    assert next(csv.DictReader(io.StringIO(to_csv(table))))["name"] == name
    html = to_html(table)
    assert "<b>" not in html and "<i>" not in html and name in unescape(html)
    assert "[bold]" in on_screen(Screen(table))


def test_a_table_without_rows_is_its_title(tmp_path: Path) -> None:
    table = Table("t", "Nothing yet", COLUMNS, [])
    assert "Nothing yet" in on_screen(Screen(table))
    for path in write_tables([table], tmp_path):
        expected = {".csv": "name,gain", ".json": '"rows": []'}.get(path.suffix, "step")
        assert expected in path.read_text()
    assert "Nothing yet" in to_html(table)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (formatting.p_value(0.0002), "< 0.001"),
        (formatting.p_value(0.03), "0.030"),
        (formatting.p_equals(0.0002), "p < 0.001"),
        (formatting.p_equals(0.03), "p = 0.030"),
        (formatting.with_prefix(4_089_284_608), "4.09 G"),
        (formatting.with_prefix(1_830_000), "1.83 M"),
        (formatting.with_prefix(18_000_000, formatting.GIGA), "0.02 G"),
        (formatting.signed(-1.16), "−1.16"),
        (formatting.signed(-0.001), "+0.00"),
        (formatting.number(-0.001), "0.00"),
        (formatting.number(1234.5, 1), "1,234.5"),
        (formatting.number(math.inf), ""),
        (formatting.mean_std(97.1, 0.2), "97.10 ± 0.20"),
        (formatting.mean_std(97.1, None), "97.10"),
        (formatting.interval((-1.5, 2.0)), "−1.50 to +2.00"),
        (formatting.level_interval((62.94, 67.2)), "62.94 to 67.20"),
        (MetricSpec(label="mIoU, mean of exits").title, "mIoU, mean of exits"),
        (MetricSpec(label="top-1").title, "Top-1"),
        (formatting.percent(0.8), "80 %"),
        (formatting.size(1_830_000), "1.83 MB"),
        (formatting.duration(2e5), "2.3 d"),
        (formatting.hours(2e5), "55.6 h"),
        (formatting.listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_as_text(written: str, text: str) -> None:
    assert written == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Λ α ς Α ο", r"$\Lambda$ $\alpha$ $\varsigma$ A o"),
        ("λ: ί", r"$\lambda$: $\iota$"),
        ("日本", "[U+65E5][U+672C]"),
        ("한", "[U+D55C]"),
        ("é ﬁ Ａ ≤", r"é fi A $\leq$"),
    ],
)
def test_pdflatex_has_every_sign(text: str, says: str) -> None:
    table = Table("t", text, [Column("a", text, str, "text")], [text], (text,))
    made = to_latex(table)
    assert made.count(says) == 4
    assert max(made) < "\u0180"
