"""Pruning methods: the channels that stay of structured ones, or widths; masks of others."""
