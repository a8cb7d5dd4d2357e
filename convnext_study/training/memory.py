"""How much memory a run took at its peak, where the system tells."""

from __future__ import annotations

import re
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


def forget_peak(device: str) -> None:
    """Let ``peak_memory`` count from here on: a process trains one run after another."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(torch.device(device))
        return
    try:
        (PROCESS / "clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def peak_memory(device: str) -> int | None:
    """Bytes at the peak: allocated by torch on a GPU; on the CPU the process, libraries included.

    That of this process alone. None where nobody counts: on other devices, and where the system
    is not Linux.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.max_memory_allocated(torch.device(device))
    if kind != "cpu":
        return None
    try:
        status = (PROCESS / "status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
