"""One self-contained HTML page of a folder of runs: it loads nothing and opens from disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from convnext_study.report import text
from convnext_study.report.attribution import attribution_view
from convnext_study.report.figures.inline import view_box
from convnext_study.report.figures.style import CHART
from convnext_study.report.findings import read_findings
from convnext_study.report.page_figures import all_curves, cost_charts, road_figures, step_curves
from convnext_study.report.provenance import provenance, recipe_tables
from convnext_study.report.show import screen
from convnext_study.report.tables import Table, formatting
from convnext_study.report.tables.agreement import agreement_table
from convnext_study.report.tables.comparison import differences_table
from convnext_study.report.tables.render import templates, to_html
from convnext_study.report.tables.results import (
    SIGNIFICANT,
    excluded_table,
    gain,
    mean_in_words,
    results_table,
)
from convnext_study.report.tables.table import SavedTable
from convnext_study.results.grouping import RunGroup
from convnext_study.results.load import StudyFolder, StudyResults
from convnext_study.results.paper import agreement_of_rows
from convnext_study.results.rows import ResultRow, describe_runs

Commands = Callable[[list[RunGroup]], list[str]]  # that reproduce a study, from its groups


@dataclass(frozen=True)
class Report:
    """A page, and its tables by study: of results, and of the study's own findings."""

    html: str
    tables: dict[str, list[Table[Any]]]
    findings: dict[str, list[SavedTable]]


def render(
    folder: StudyFolder, commands: Commands = lambda groups: [], *, refresh: int | None = None
) -> Report:
    """The page of a folder, with the ``commands`` that reproduce its studies. With ``refresh`` it
    reloads itself after that many seconds."""
    views = [_view(study, commands, f"s{i}") for i, study in enumerate(folder.studies, 1)]
    attributions = [attribution_view(item) for item in folder.attributions]
    # Tables recomputed from the records replace those written earlier.
    current = [table.name for item in attributions for table in item["tables"]]
    findings = read_findings(folder.path, current)
    environment = templates()
    assert environment.loader  # noqa: S101  for the type checker
    style, script = (  # unrendered, since they contain no variables
        environment.loader.get_source(environment, name)[0].strip()
        for name in ("report.css", "report.js")
    )
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
        style=Markup(style),  # noqa: S704  a file of this package
        script=Markup(script),  # noqa: S704
        policy=_policy(style, script),
        numbers=[{"study": view["name"], "rows": view["numbers"]} for view in views],
    )
    tables = {view["name"]: view["tables"] for view in [*views, *attributions]}
    return Report(html, tables, {item.study: item.tables for item in findings})


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: nothing from elsewhere, and only this very style and script."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; "
        f"style-src 'sha256-{digest(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _view(study: StudyResults, commands: Commands, key: str) -> dict[str, Any]:
    """What the page shows of a study, for its template."""
    ids = {row.name: f"{key}-r{i}" for i, row in enumerate(study.rows, 1)}
    drawn = study.drawn
    panels = ids if drawn else {}
    results = results_table(study.rows, panels)
    tests = differences_table(study.rows, study.tests, panels)
    pooled = differences_table(study.rows, study.tests, panels, pooled=True)
    agreement = None
    if study.is_road and study.regime:
        agreed = agreement_of_rows(study.regime, study.done)
        agreement = agreement_table([(study.meta.title, agreed)])
    excluded, recipes = excluded_table(study.excluded), recipe_tables(study)
    return {
        "key": key,
        "name": study.name,
        "metric": study.metric,
        "is_road": study.is_road,
        "about": describe_runs(study.rows, study.meta),
        "summary": text.summary(study),
        "methods": text.methods(study),
        "about_pooled": text.pooled(study),
        "roads": road_figures(study, ids, key) if drawn else [],
        "results": results,
        "tests": tests,
        "pooled": pooled,
        "agreement": agreement,
        "excluded": excluded,
        "steps": [_step(study, row, ids) for row in study.rows] if drawn else [],
        "curves": all_curves(study, ids, key) if drawn else [],
        "curve_box": view_box(*CHART),
        "picks": [(ids[row.name], row.label) for row in study.rows],
        "costs": cost_charts(study, panels, key),
        "provenance": provenance(study),
        "recipes": recipes,
        "commands": commands(list(study.groups.values())),
        "tables": list(filter(None, (results, tests, pooled, agreement, excluded, *recipes))),
        "numbers": results.records(csv=True),
    }


def _step(study: StudyResults, row: ResultRow, ids: dict[str, str]) -> dict[str, Any]:
    on_road = row.name == row.metadata.get("step")
    return {
        "key": ids[row.name],
        "label": row.label,
        "tried": not row.adopted,
        "section": row.section,
        "value": mean_in_words(row),
        "gain": gain(row),
        "significant": row.significant,
        "words": text.step_words(study, row),
        "screen": screen(study.regime, row.name) if study.regime and on_road else None,
        "curves": step_curves(study, row, ids),
        "seeds": ", ".join(
            f"{seed}: {formatting.with_unit(value, row.metric)}"
            for seed, value in row.seeds.items()
        ),
        "parent": next((other.label for other in study.rows if other.name == row.parent), None),
    }
