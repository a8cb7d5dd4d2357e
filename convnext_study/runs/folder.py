"""A run's folder as the engine uses it: locked, with its manifest and its log."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from convnext_study.errors import Busy, RunFailed, UserError
from convnext_study.runs import locks
from convnext_study.runs.files import (
    CHECKPOINT,
    LOCK,
    LOG,
    RESULT,
    RUN,
    open_to_append,
    write_bytes,
    write_json,
)
from convnext_study.runs.log import read_lines
from convnext_study.runs.records import (
    FORMAT,
    Run,
    read_run_file,
    remove_temporaries,
)

# Seconds to wait for a run that another process works on: that one may be about to end.
PATIENCE = 15.0


class RunError(UserError):
    """A run cannot be worked on; the message names its folder and says what to do."""


class LockLost(Busy):
    """Another process may have taken the run over, so this one must no longer write to it."""


class RunFolder:
    """A run's folder, locked during the ``with`` block.

    Of several processes that share a run only the first one ``writes``; the others read.

    Raises Busy if another process has it locked for some seconds, or until ``stop`` returns True,
    and RunError if it contains another run.
    """

    def __init__(
        self,
        path: Path,
        run: Run,
        *,
        writes: bool = True,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.path = path
        self.run = run
        self.writes = writes
        self._stop = stop
        self._lock: locks.Lock | None = None
        self._log: IO[str] | None = None

    def __enter__(self) -> RunFolder:
        if not self.writes:
            return self
        self._refuse_links()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = locks.take(self.path / LOCK, PATIENCE, self._stop)
        except locks.Held as error:
            todo = f"wait for it or stop it{error.cure}"
            raise Busy(f"{self.path}: {error.holder} is working on this run; {todo}") from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror})") from error
        try:
            remove_temporaries(self.path)
            self._write_manifest()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):  # of a full disk, which was reported already
                self._log.close()
        if self._lock is not None:
            self._lock.release()
        self._log = self._lock = None

    def watch_lock(self) -> None:
        """After the first process has locked the folder: watch its lock in the others, too."""
        if not self.writes:
            with contextlib.suppress(OSError):  # a file on a network may not be visible here yet
                self._lock = locks.watch(self.path / LOCK)

    def log(self, line: dict[str, Any]) -> None:
        """Append one line and flush it, so that ``tail -f`` follows the run."""
        if not self.writes:
            return
        with self.writing():
            if self._log is None:
                self._log = open_to_append(self.path / LOG)
            self.check_lock()
            self._log.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._log.flush()

    def check_lock(self) -> None:
        """Raises LockLost if the lock file was removed or is another process's, and OSError.

        A successor replaces the log and removes temporary files before it begins, so that a file
        which was opened before this check and is written after it is none of the successor's.
        """
        if self._lock is not None and not self._lock.is_unchanged:
            raise LockLost(
                f"{self.path}: its lock was removed or taken over by another process, so this one "
                "stops without writing; rerun the same command to resume"
            )

    def write(self, name: str, value: Any) -> None:
        """Write a file of the record as JSON. Raises RunFailed, one line."""
        with self.writing():
            write_json(self.path / name, value, self.check_lock)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Raises RunFailed, one line, if the record cannot be written, as on a full disk."""
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                self.check_lock()  # the folder itself may be gone
            raise RunFailed(
                f"{self.path}: cannot be written ({error.strerror}); free some space, then rerun "
                "the same command to resume"
            ) from error

    def event(self, name: str, **fields: Any) -> None:
        """Log an event with the time."""
        self.log({"event": name, "time": round(time.time(), 3), **fields})

    def failed(self, error: Exception, rank: int) -> None:
        """Log why a start failed. Any process may do so, since the first one may not know."""
        reason = f"{type(error).__name__}: {error}"
        line = {"event": "failed", "time": round(time.time(), 3), "rank": rank, "reason": reason}
        with contextlib.suppress(OSError, RunFailed):  # the reason may be that writing fails
            if self.writes:
                self.log(line)
                return
            with open_to_append(self.path / LOG) as log:
                self.check_lock()
                log.write(json.dumps(line, ensure_ascii=False) + "\n")

    def rewind(self, epochs: list[dict[str, Any]]) -> None:
        """Make the log agree with a checkpoint: its epochs, and no later ones.

        A process can be killed between writing the log and the checkpoint, in either order.
        """
        if not self.writes:
            return
        if self._log is not None:  # its file is about to be replaced
            self._log.close()
            self._log = None
        lines = [line for line in read_lines(self.path / LOG) if line.get("event") != "epoch"]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [*lines, *epochs])
        with self.writing():
            write_bytes(self.path / LOG, text.encode("utf-8", "replace"), self.check_lock)

    def record_fingerprint(
        self, fingerprint: dict[str, Any], check: Callable[[dict[str, Any], str], None]
    ) -> None:
        """Record the fingerprint of the run's data, or ``check`` it against the recorded one.

        Raises what ``check(recorded, where)`` raises.
        """
        if not self.writes:
            return
        manifest = read_run_file(self.path)
        if (recorded := manifest.get("data")) is not None:
            check(recorded, str(self.path))
        else:
            self.write(RUN, {**manifest, "data": fingerprint})

    def _refuse_links(self) -> None:
        """Links in a folder from elsewhere must not make this process write or wait elsewhere."""
        for folder in (self.path, self.path / "tensorboard", self.path / "wandb"):
            if folder.is_symlink():
                raise RunError(
                    f"{folder}: is a link; name the folder itself, or choose another --out"
                )
        for name in (RUN, LOG, CHECKPOINT, RESULT):
            path = self.path / name
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise RunError(f"{path}: a link or a special file, not a regular file; remove it")

    def _write_manifest(self) -> None:
        if (self.path / RUN).exists():
            manifest = read_run_file(self.path)
            if manifest.get("key") != self.run.key:
                raise RunError(
                    f"{self.path}: contains another run (other network, recipe, data or seed); "
                    "choose another --out"
                )
            if manifest["run"]["data"] != self.run.data:  # the same data in another place
                self.write(RUN, {**manifest, "run": {**manifest["run"], "data": self.run.data}})
            return
        manifest = {"format": FORMAT, "key": self.run.key, "run": self.run.model_dump(mode="json")}
        origin = {"versions": versions(), "commit": commit(), "hardware": hardware()}
        self.write(RUN, {**manifest, **origin})


VERSIONS_OF = ("convnext-study", "torch", "torchvision", "timm", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of packages that can change a result."""
    by_package = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            by_package[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return by_package


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``+`` if files differ."""
    package = Path(__file__).resolve().parent.parent  # the whole package
    try:
        outputs = [
            subprocess.run(
                ["git", "-C", str(package), *command],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", str(package)])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return outputs[0] + ("+" if outputs[1] else "")


def hardware(device: str = "cpu") -> dict[str, Any]:
    """The machine: processor type and core count, and the GPU if the run uses one. No host name,
    no path."""
    info: dict[str, Any] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }
    if device.startswith("cuda"):
        import torch

        info["gpu"] = torch.cuda.get_device_name(torch.device(device))
        info["cuda"] = torch.version.cuda
        info["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return info
