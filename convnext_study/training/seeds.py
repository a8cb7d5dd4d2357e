"""Randomness as a pure function of (seed, what for, where): nothing to save, exact to resume."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from functools import cache

import numpy as np
import torch


def derive(seed: int, *parts: object) -> int:
    """A 63-bit number that depends on every part. The same on every machine and version."""
    text = repr((seed, *parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_everything(number: int, shared: int | None = None) -> None:
    """Set torch's, numpy's and Python's global generators.

    ``shared`` is for numpy's, from which timm's Mixup draws: the same for all parts of a batch,
    so that one mix serves the whole of it however it is split.
    """
    # torch.manual_seed() notes, at each call, where devices were seeded that are not there.
    torch.default_generator.manual_seed(number)
    for seed_device in _devices():
        seed_device(number)
    np.random.seed((number if shared is None else shared) % 2**32)
    random.seed(number)


@cache
def _devices() -> tuple[Callable[[int], None], ...]:
    """What seeds the accelerators that this machine has."""
    there = (
        (torch.cuda.is_available(), torch.cuda.manual_seed_all),
        (torch.backends.mps.is_available(), torch.mps.manual_seed),
    )
    return tuple(seed for found, seed in there if found)


def generator(number: int) -> torch.Generator:
    """A generator of its own, for draws that must not depend on anyone else's."""
    return torch.Generator().manual_seed(number)
