"""The files of a report: ``report.html``, ``figures``, ``tables``."""

from __future__ import annotations

from pathlib import Path

from convnext_study.errors import UserError
from convnext_study.report.attribution import panels
from convnext_study.report.figures.charts import bars
from convnext_study.report.figures.style import save
from convnext_study.report.findings import FINDINGS
from convnext_study.report.page import Commands, Report, render
from convnext_study.report.page_figures import write_figures
from convnext_study.report.tables.render import write_tables
from convnext_study.results.load import StudyFolder, load_results
from convnext_study.runs.files import make_within, write_bytes

PAGE = "report.html"


def write_report(
    folder: Path,
    out: Path,
    commands: Commands = lambda groups: [],
    *,
    any_commit: bool = False,
) -> tuple[list[Path], StudyFolder]:
    """Write page (see `page.render`), figures and tables of all runs under a folder; returns their
    paths and the folder's contents.

    Raises UserError where there is no run, or ``out`` cannot be written.
    """
    contents = load_results(folder, any_commit=any_commit)
    report = render(contents, commands)
    paths = [_write_page(out, report)]
    for study in contents.studies:
        subfolder = () if len(contents.studies) == 1 else (study.name,)
        paths += write_tables(report.tables[study.name], make_within(out, *subfolder, "tables"))
        paths += write_figures(study, make_within(out, *subfolder, "figures"))
    for attribution in contents.attributions:
        tables_folder = make_within(out, attribution.name, "tables")
        paths += write_tables(report.tables[attribution.name], tables_folder)
        figure = bars([panels(table) for table in attribution.tables])
        paths += save(figure, tables_folder.parent, "attribution")
    for name, tables in report.findings.items():
        paths += write_tables(tables, make_within(out, FINDINGS, name))
    return paths, contents


def write_page(
    folder: Path, out: Path, commands: Commands, *, refresh: int, any_commit: bool = False
) -> tuple[Path, StudyFolder]:
    """Write only the page, one that reloads itself; returns its path and the folder's contents."""
    contents = load_results(folder, any_commit=any_commit)
    return _write_page(out, render(contents, commands, refresh=refresh)), contents


def _write_page(out: Path, report: Report) -> Path:
    path = out / PAGE
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(path, report.html.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another --out"
        ) from None
    return path
