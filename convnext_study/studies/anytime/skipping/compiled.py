"""The compiled kernels: ``kernels.cpp``, built by this machine's C++ compiler on first use.

A shared library without torch's headers, called through ctypes: docs/anytime.md explains why it is
no torch extension. A JIT such as numba's would be a dependency for one file, and would leave
vectors and registers, which make these kernels as fast as oneDNN's, to its compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("c++", "g++", "clang++")
# By torch's CPU capability, not ``-march=native``: machines that share a cache may differ.
FLAGS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
}
# GNU's dialect has the vectors; unlike c++11 it lets all compilers fuse products and sums.
USUAL = ("-std=gnu++11", "-O3", "-shared", "-fPIC")
SECONDS = 120  # a compiler's time limit
TYPES = {torch.float32: "float32", torch.float64: "float64"}
LEAST_SHARED = 2**14  # numbers in an output from which threads share it; ours
LANES = 16  # outputs are padded to a multiple: the most numbers in a vector


class Shape(ctypes.Structure):
    """A kernel's parameters, as in the C++ file."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("rows_in", "cols_in", "c_in", "rows", "cols", "c_out", "c_packed"),
            *("kernel", "stride", "padding", "depthwise", "add", "relu"),
        )
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels; None where there is no compiler, or, with a warning, where it fails.

    Built once into ``$XDG_CACHE_HOME/convnext_study``, or ``~/.cache``; for this process only where
    others can write there.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    command = [compiler, *FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()), *USUAL]
    try:
        system = (platform.machine(), platform.system(), platform.libc_ver())
        inputs = repr((SOURCE.read_bytes(), command, _run([compiler, "--version"]), system))
        name = f"skipping-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.so"
        with contextlib.ExitStack() as stack:
            folder = _cache_folder()
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            path = folder / name
            if _is_private(path):
                with contextlib.suppress(OSError):  # another machine's, or damaged: rebuild it
                    return ctypes.CDLL(str(path))
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = Path(scratch) / name
                _run([*command, "-o", str(built), str(SOURCE)])
                built.chmod(0o700)
                built.replace(path)
            return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        output = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        why = (output.strip() or str(error)).splitlines()[-1]
        warnings.warn(
            f"{compiler}: skipping runs without compiled kernels, slower: {why}", stacklevel=2
        )
        return None


def build_name() -> str | None:
    """Identifies the kernels by source, compiler, version, flags and system; None without any."""
    kernels = library()
    return None if kernels is None else Path(kernels._name).stem


def _run(command: list[str]) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, errors="replace", timeout=SECONDS
    ).stdout


def _cache_folder() -> Path | None:
    with contextlib.suppress(OSError, RuntimeError):  # there may be no home
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(cache) / "convnext_study"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if _is_private(folder) else None
    return None


def _is_private(path: Path) -> bool:
    """Whether the path exists and only this user can have written it."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if sys.platform == "win32":  # files in a home belong to its user
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def usable(x: Tensor) -> bool:
    """Whether the kernels are available and accept this map."""
    return (
        x.device.type == "cpu" and type(x) is Tensor and x.dtype in TYPES and library() is not None
    )


def call(
    name: str, x: Tensor, weights: Sequence[Tensor], state: Tensor | None, out: Tensor, shape: Shape
) -> None:
    """Run a kernel on all rows of maps, on as many threads as torch uses.

    ``x`` and ``out`` (N, C, h, w) are in channels-last layout; ``weights`` are the kernel's weights
    and bias, ``state`` (N, h, w) uint8 is each output position's (`skipper.states`); None: all
    computed.
    """
    function = getattr(library(), f"{name}_{TYPES[out.dtype]}")
    rows = len(out) * shape.rows
    threads = torch.get_num_threads() if out.numel() >= LEAST_SHARED else 1
    tensors = (x, *weights, state, out)
    pointers = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]

    def run(thread: int) -> None:
        first, last = (ctypes.c_int64(rows * t // threads) for t in (thread, thread + 1))
        function(*pointers, ctypes.byref(shape), first, last)

    if threads == 1:
        run(0)
    else:
        list(_pool(threads).map(run, range(threads)))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "skipping")
