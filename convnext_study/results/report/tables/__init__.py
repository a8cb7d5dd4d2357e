"""Tables, once: `table` says what one is, `render` shows it, `formatting` writes its numbers."""

from convnext_study.results.report.tables.table import Column, Table

__all__ = ["Column", "Table"]
