"""The compiled extra: ``kernels.cpp``, built by this machine's C++ compiler where it is first used.

A shared library without a header of torch's, called through ctypes. `torch.utils.cpp_extension`
would build the same file in a minute instead of two seconds, needs ninja and torch's headers, and
its product holds for one version of torch; what it adds, tensors as arguments and threads, is 20
lines here. A JIT such as numba's would be a dependency for one file, and leaves the choice of
vectors and registers, which makes these kernels as fast as oneDNN's, to its compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("c++", "g++", "clang++")
# What the machine can do at least, as torch has it: others of its kind read the same folder.
FLAGS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
}
TYPES = {torch.float32: "float32", torch.float64: "float64"}
LEAST_SHARED = 2**14  # numbers in an output that threads share; ours
LANES = 16  # outputs are padded to so many: the most numbers in a vector


class Shape(ctypes.Structure):
    """What a kernel has to know of its maps; as in the C++ file."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("rows_in", "cols_in", "c_in", "rows", "cols", "c_out", "c_packed"),
            *("kernel", "stride", "padding", "depthwise", "add", "relu"),
        )
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels; None where there is no compiler, or what it builds cannot be loaded.

    Built once into ``$XDG_CACHE_HOME/convnext_study``, or ``~/.cache``.
    """
    compiler = next((found for one in COMPILERS if (found := shutil.which(one))), None)
    if compiler is None:
        return None
    flags = ("-O3", "-shared", "-fPIC", *FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()))
    made_of = repr((SOURCE.read_bytes(), compiler, flags, platform.machine(), platform.system()))
    name = f"skipping-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    with contextlib.suppress(OSError, RuntimeError, subprocess.SubprocessError):
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        path = Path(cache) / "convnext_study" / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder) / name
                command = [compiler, *flags, "-o", str(made), str(SOURCE)]
                subprocess.run(command, check=True, capture_output=True)
                made.replace(path)
        return ctypes.CDLL(str(path))
    return None


def usable(x: Tensor) -> bool:
    """Whether the kernels are there and take this map."""
    return (
        x.device.type == "cpu" and type(x) is Tensor and x.dtype in TYPES and library() is not None
    )


def call(
    name: str, x: Tensor, weights: Sequence[Tensor], state: Tensor | None, out: Tensor, shape: Shape
) -> None:
    """Run a kernel on all rows of maps, on as many threads as torch uses.

    ``x`` and ``out`` (N, C, h, w) are in channels-last layout; ``weights`` are the kernel's own and
    what it adds, ``state`` (N, h, w) uint8 what each position of ``out`` is; None: all computed.
    """
    function = getattr(library(), f"{name}_{TYPES[out.dtype]}")
    rows = len(out) * shape.rows
    threads = torch.get_num_threads() if out.numel() >= LEAST_SHARED else 1
    tensors = (x, *weights, state, out)
    places = [ctypes.c_void_p(None if one is None else one.data_ptr()) for one in tensors]

    def run(part: int) -> None:
        first, last = (ctypes.c_int64(rows * one // threads) for one in (part, part + 1))
        function(*places, ctypes.byref(shape), first, last)

    if threads == 1:
        run(0)
    else:
        list(_pool(threads).map(run, range(threads)))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "skipping")
