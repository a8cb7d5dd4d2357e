"""A table of copies to the device: what uint8 and pinned memory give a batch of 256 at 224x224.

PYTHONPATH=tests python -m gpu.copies [cuda]
"""

from __future__ import annotations

import sys
import time

import torch
from gpu.device import device_of

BATCH, TIMES = 256, 10


def main(arguments: list[str]) -> int:
    """0; on the CPU there is nothing to copy to."""
    device = device_of(arguments)
    if not device.startswith("cuda"):
        print("SKIPPED: copies are measured to a GPU")
        return 0
    floats = torch.rand(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    pixels = (floats * 255).byte()
    for name, batch in (
        ("float32 pageable", floats),
        ("float32 pinned", floats.pin_memory()),
        ("uint8 pageable", pixels),
        ("uint8 pinned", pixels.pin_memory()),
    ):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(TIMES):
            batch.to(device, non_blocking=True)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / TIMES
        print(f"{name:18s} {1e3 * seconds:7.2f} ms, at most {BATCH / seconds:9.0f} images/s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
