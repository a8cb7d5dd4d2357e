"""Skipping that saves time: gather, compute, scatter, equal to the masked dense form."""
