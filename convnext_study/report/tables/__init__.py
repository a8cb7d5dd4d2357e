"""Tables: `table` defines them, `render` shows them, `formatting` writes their numbers."""

from convnext_study.report.tables.table import Column, Table

__all__ = ["Column", "Table"]
