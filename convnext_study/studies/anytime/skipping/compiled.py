"""The compiled extra: ``kernels.cpp``, built by this machine's C++ compiler where it is first used.

A shared library without a header of torch's, called through ctypes: docs/anytime.md says why it
is no extension of torch's. A JIT such as numba's would be a dependency for one file, and leaves
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
# What the machine can do at least, as torch has it: others of its kind read the same folder.
FLAGS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
}
# The dialect is that of the vectors; unlike c++11 it lets all compilers fuse products and sums.
USUAL = ("-std=gnu++11", "-O3", "-shared", "-fPIC")
SECONDS = 120  # that a compiler may take
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
    """The kernels; None where there is no compiler, or, with a warning, where it fails.

    Built once into ``$XDG_CACHE_HOME/convnext_study``, or ``~/.cache``, and again where that is not
    the user's alone to write: for this process then.
    """
    compiler = next((found for one in COMPILERS if (found := shutil.which(one))), None)
    if compiler is None:
        return None
    command = [compiler, *FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()), *USUAL]
    try:
        system = (platform.machine(), platform.system(), platform.libc_ver())
        made_of = repr((SOURCE.read_bytes(), command, _run([compiler, "--version"]), system))
        name = f"skipping-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
        with contextlib.ExitStack() as kept:
            folder = _cache_folder()
            if folder is None:
                folder = Path(kept.enter_context(tempfile.TemporaryDirectory()))
            path = folder / name
            if _is_private(path):
                with contextlib.suppress(OSError):  # of another machine, or damaged: built again
                    return ctypes.CDLL(str(path))
            with tempfile.TemporaryDirectory(dir=folder) as beside:
                made = Path(beside) / name
                _run([*command, "-o", str(made), str(SOURCE)])
                made.chmod(0o700)
                made.replace(path)
            return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
        why = (said.strip() or str(error)).splitlines()[-1]
        warnings.warn(f"{compiler}: skipping goes without its kernels, slower: {why}", stacklevel=2)
        return None


def build_name() -> str | None:
    """Of the kernels: by source, compiler, its version and flags, and system; None without any."""
    built = library()
    return None if built is None else Path(built._name).stem


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
    """Whether it is there, and nobody but this user can have written it."""
    try:
        about = path.lstat()
    except OSError:
        return False
    if sys.platform == "win32":  # where a home's files are its user's
        return True
    return about.st_uid == os.getuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


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
