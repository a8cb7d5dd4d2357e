"""Milliseconds of every exit, dense, masked and skipped, and from which share skipping pays.

    PYTHONPATH=tests python -m gpu.skipping [cuda|cpu]

On a CPU the embedded network alone, to try it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from gpu.device import device_of

NETWORKS = "hrnet_digits,hrnet_w18_small_v2,hrnet_w48"
BATCHES = (1, 8)


def main(arguments: list[str]) -> int:
    """0 where all was measured."""
    device = device_of(arguments)
    less = ("--quick",) if device == "cpu" else ("--networks", NETWORKS)
    worst = 0
    for batch in BATCHES:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *(sys.executable, "-m", "convnext_study", "bench", "--parts", "anytime", *less),
                *("--batch-size", str(batch), "--device", device, "--out", folder),
            ]
            worst = max(worst, abs(subprocess.run(command, check=False).returncode))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
