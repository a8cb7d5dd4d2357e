"""Pruning methods, a file for each.

A structured method answers with the channels that stay (`groups.Kept`) or with widths, an
unstructured one with masks; `apply` and `masks` make networks of them.
"""
