"""Figures, drawn once with matplotlib: as files for a paper and, inlined, on the page."""
