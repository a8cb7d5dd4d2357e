"""Randomness as a pure function of (seed, what for, where): nothing to save, exact to resume."""

from __future__ import annotations

import hashlib

import torch


def fold_in(seed: int, *parts: object) -> int:
    """A 63-bit number that depends on every part. The same on every machine and version."""
    text = repr((seed, *parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(number: int) -> torch.Generator:
    """A generator of its own, for draws that must not depend on anyone else's."""
    return torch.Generator().manual_seed(number)
