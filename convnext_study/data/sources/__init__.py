"""Data sets by kind: one file opens each."""
