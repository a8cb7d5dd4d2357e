"""Randomness as a pure function of (seed, purpose, position): nothing to save, exact to resume."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def fold_in(seed: int, *parts: object) -> int:
    """A 63-bit number that depends on every part. The same on every machine and version."""
    text = repr((seed, *parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(number: int) -> torch.Generator:
    """A separate generator, for draws that must not depend on others."""
    return torch.Generator().manual_seed(number)


def seed_everything(number: int, device: str = "cpu") -> None:
    """Seed the global generators of torch, numpy and Python, and the device's."""
    # Not torch.manual_seed(), which records a traceback per call for devices that are missing.
    torch.default_generator.manual_seed(number)
    target = torch.device(device)
    if target.type == "cuda":  # only the one in use: each costs a call to its driver
        index = torch.cuda.current_device() if target.index is None else target.index
        torch.cuda.default_generators[index].manual_seed(number)
    elif target.type == "mps":
        torch.mps.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Restore the global generators of torch's CPU, numpy and Python after the block."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
