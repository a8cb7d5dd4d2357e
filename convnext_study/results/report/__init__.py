"""The report of a folder of runs: a page, figures and tables, from the records alone."""

from convnext_study.results.report.gather import Extras
from convnext_study.results.report.write import write_page, write_report

__all__ = ["Extras", "write_page", "write_report"]
