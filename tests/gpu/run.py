"""``make test-gpu``: the tests, then the tables. Each part takes less than ten minutes on a GPU.

    PYTHONPATH=tests python -m gpu.run [cuda|cpu]

Without a GPU and without an argument it says SKIPPED and ends well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpu.device import device_of

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def main(arguments: list[str]) -> int:
    """0 where all tests passed and all tables were printed."""
    device = device_of(arguments)
    environment = {**os.environ, "TEST_DEVICE": device}
    tests = ["-m", "pytest", "-m", "gpu", "-rs", "-v", str(HERE)]
    parts = [
        tests,
        *(["-m", f"gpu.{name}", device] for name in ("steps", "feed", "copies", "skipping")),
    ]
    worst = 0
    for part in parts:
        print(f"--- {part[1] if part is not tests else 'tests'}", flush=True)
        code = subprocess.run([sys.executable, *part], cwd=ROOT, env=environment, check=False)
        worst = max(worst, abs(code.returncode))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
