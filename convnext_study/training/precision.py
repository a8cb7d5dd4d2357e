"""Low precision: what autocast uses, in training and in evaluation."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_of(precision: str, device: str) -> AbstractContextManager[Any]:
    """Autocast for ``float32`` (none), ``bf16`` or ``fp16`` on a device."""
    dtype = DTYPES.get(precision)
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype)
