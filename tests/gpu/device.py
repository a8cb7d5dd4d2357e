"""On what these tests run: a GPU, or what TEST_DEVICE names (``cpu`` to try them), or nothing."""

from __future__ import annotations

import os
import sys

import pytest

# Read when cuBLAS is first used, which may be before a test asks for the same bits.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

DEVICE = os.environ.get("TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "")
on_device = [
    pytest.mark.gpu,
    pytest.mark.skipif(not DEVICE, reason="no GPU is seen here; TEST_DEVICE=cpu tries it without"),
]


def device_of(arguments: list[str]) -> str:
    """A script's first argument, or as above; where there is none it says so and ends."""
    device = arguments[0] if arguments else DEVICE
    if not device:
        print("SKIPPED: no GPU is seen here; name cpu to try it without one")
        sys.exit(0)
    return device
