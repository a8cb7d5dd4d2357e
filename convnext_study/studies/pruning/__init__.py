"""Pruning against training from scratch (Liu et al., ICLR 2019): networks and methods."""
