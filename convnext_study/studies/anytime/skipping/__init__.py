"""Skipping that saves time: gather, compute, scatter, with the numbers of the masked dense form."""
