"""One self-contained HTML page of a folder of runs: it loads nothing and opens from a disk."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from convnext_study.report.attribution import attribution_view
from convnext_study.report.figures.inline import view_box
from convnext_study.report.figures.style import CHART
from convnext_study.report.findings import read_findings
from convnext_study.report.page_figures import all_curves, cost_charts, road_figures, step_curves
from convnext_study.report.provenance import provenance
from convnext_study.report.tables import Table, formatting
from convnext_study.report.tables.agreement import AgreementLine, agreement_table
from convnext_study.report.tables.comparison import differences_table, pooled_table
from convnext_study.report.tables.render import templates, to_html
from convnext_study.report.tables.results import (
    SIGNIFICANT,
    excluded_table,
    gain,
    mean_in_words,
    results_table,
)
from convnext_study.report.text import step_words, summarize_study
from convnext_study.results.load import ReportOptions, StudyFolder, StudyResults
from convnext_study.results.paper import agreement_of_rows
from convnext_study.results.rows import ResultRow, describe_runs


@dataclass(frozen=True)
class Report:
    """A page, and the tables that stand on it by study: of results, and of what the study found."""

    html: str
    tables: dict[str, list[Table[Any]]]
    findings: dict[str, list[Table[int]]]


def render(folder: StudyFolder, options: ReportOptions, *, refresh: int | None = None) -> Report:
    """The page of a folder. With ``refresh`` it reloads itself after that many seconds."""
    views = [_view(study, options, f"s{place}") for place, study in enumerate(folder.studies, 1)]
    attributions = [attribution_view(one) for one in folder.attributions]
    # What is made anew from the records is not taken from what was written earlier.
    anew = [table.name for one in attributions for table in one["tables"]]
    findings = read_findings(folder.path, anew)
    environment = templates()
    source = {name: _source(environment, name) for name in ("report.css", "report.js")}
    title = folder.studies[0].meta.title if len(folder.studies) == 1 else "Study report"
    html = environment.get_template("report.html.j2").render(
        title=title,
        folder=folder.path.resolve().name,
        views=views,
        attributions=attributions,
        findings=findings,
        unreadable=excluded_table(folder.unreadable),
        refresh=refresh,
        sortable=to_html,
        significant=SIGNIFICANT,
        style=Markup(source["report.css"]),  # noqa: S704  a file of this package
        script=Markup(source["report.js"]),  # noqa: S704
        policy=_policy(source["report.css"], source["report.js"]),
        numbers=[{"study": view["name"], "rows": view["numbers"]} for view in views],
    )
    tables = {view["name"]: view["tables"] for view in [*views, *attributions]}
    return Report(html, tables, {one.study: one.tables for one in findings})


def _source(environment: Environment, name: str) -> str:
    """A template's text as it is, since style and script take no values."""
    assert environment.loader  # noqa: S101  for the type checker
    return environment.loader.get_source(environment, name)[0].strip()


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: nothing from elsewhere, and only this very style and script."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; "
        f"style-src 'sha256-{digest(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _view(study: StudyResults, options: ReportOptions, key: str) -> dict[str, Any]:
    """All that the page shows of a study, ready to be written."""
    ids = {row.name: f"{key}-r{place}" for place, row in enumerate(study.rows, 1)}
    panels = ids if study.drawn else {}
    results = results_table(study.rows, panels)
    tests = differences_table(study.rows, study.tests, panels)
    pooled = pooled_table(study.rows, study.tests, panels)
    agrees = _agreement(study)
    apart = excluded_table(study.excluded)
    origin = provenance(study, options)
    steps = [_step(study, row, ids, options) for row in study.rows] if study.drawn else []
    shown = (results, tests, pooled, agrees, apart, *origin.recipes)
    kept = [table for table in shown if table]
    return {
        "key": key,
        "name": study.name,
        "metric": study.metric,
        "is_road": study.is_road,
        "about": describe_runs(study.rows, study.meta),
        "words": summarize_study(study),
        "done": bool(study.done),
        "roads": road_figures(study, ids, key) if study.drawn else [],
        "results": results,
        "tests": tests,
        "pooled": pooled,
        "agreement": agrees,
        "excluded": apart,
        "steps": steps,
        "curves": all_curves(study, ids, key) if study.drawn else [],
        "curve_box": view_box(*CHART),
        "picks": [(ids[row.name], row.label) for row in study.rows],
        "costs": cost_charts(study, panels, key),
        "provenance": origin,
        "tables": kept,
        "numbers": results.records(csv=True),
    }


def _agreement(study: StudyResults) -> Table[AgreementLine] | None:
    """How a whole road agrees with the paper; None of another study."""
    if not study.is_road or study.regime is None:
        return None
    found = agreement_of_rows(study.regime, study.done)
    return agreement_table([(study.meta.title, found)])


def _step(
    study: StudyResults, row: ResultRow, ids: dict[str, str], options: ReportOptions
) -> dict[str, Any]:
    screen = None
    if study.regime is not None and row.name == row.metadata.get("step"):
        screen = options.show(study.regime, row.name)
    return {
        "key": ids[row.name],
        "label": row.label,
        "tried": not row.adopted,
        "section": row.section,
        "value": mean_in_words(row),
        "gain": gain(row),
        "significant": row.significant,
        "words": step_words(study, row),
        "screen": screen,
        "curves": step_curves(study, row, ids),
        "seeds": ", ".join(
            f"{seed}: {formatting.with_unit(value, row.metric)}"
            for seed, value in row.seeds.items()
        ),
        "parent": next((one.label for one in study.rows if one.name == row.parent), None),
    }
