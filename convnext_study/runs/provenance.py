"""What a run was made with: versions, commit, hardware."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONS_OF = ("convnext-study", "torch", "torchvision", "timm", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def commit() -> str | None:
    """The commit of the checkout this package runs from, with ``+`` where files differ from it."""
    here = Path(__file__).resolve().parent.parent  # the whole package
    try:
        found = [
            subprocess.run(
                ["git", "-C", str(here), *command],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", str(here)])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return found[0] + ("+" if found[1] else "")


def hardware(device: str = "cpu") -> dict[str, Any]:
    """What the run is measured on: processor kind and count, the GPU where it is on one. No host
    name, no path."""
    about: dict[str, Any] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }
    if device.startswith("cuda"):
        import torch

        about["gpu"] = torch.cuda.get_device_name(torch.device(device))
        about["cuda"] = torch.version.cuda
        about["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return about
