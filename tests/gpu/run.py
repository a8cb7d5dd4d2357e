"""``make test-gpu``: the tests, then the tables. Each part takes less than ten minutes on a GPU.

    PYTHONPATH=tests python -m gpu.run [cuda|cpu]

Without a GPU and without an argument it says SKIPPED and ends well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu.device import device_of

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NETWORKS = "hrnet_digits,hrnet_w18_small_v2,hrnet_w48"


def main(arguments: list[str]) -> int:
    """0 where all tests passed and all tables were printed."""
    device = device_of(arguments)
    environment = {**os.environ, "TEST_DEVICE": device}
    less = ["--quick"] if device == "cpu" else ["--networks", NETWORKS]
    bench = ["convnext_study", "bench", "--parts", "anytime", "--device", device, *less]
    parts = {
        "tests": ["pytest", "-m", "gpu", "-rs", "-v", str(HERE)],
        "steps": ["gpu.steps", device],
        "feed": ["gpu.feed", device],
    }
    worst = 0
    with tempfile.TemporaryDirectory() as out:
        for batch in ("1", "8"):
            parts[f"skipping, batch {batch}"] = [*bench, "--batch-size", batch, "--out", out]
        for name, part in parts.items():
            print(f"--- {name}", flush=True)
            command = [sys.executable, "-m", *part]
            done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
            worst = max(worst, abs(done.returncode))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
