"""One process a run: with the kernel's lock and without it, asleep, dead, or robbed of it."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.fakes import fake_runs, write_run
from support.runs import make_tiny_run
from support.training import cut_off, stop_after

from convnext_study.errors import Busy
from convnext_study.launchers.graph import Job
from convnext_study.launchers.worker import train_job
from convnext_study.runs import folder as folders
from convnext_study.runs import locks
from convnext_study.runs.files import CHECKPOINT, LOCK, LOG, RESULT, RUN
from convnext_study.runs.folder import LockLost, RunError, RunFolder
from convnext_study.runs.locks import marker_of
from convnext_study.runs.records import is_locked, read
from convnext_study.training import checkpoint_file
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

HERE = socket.gethostname()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "PATIENCE", 0.2)


def refuse_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture(params=[errno.ENOSYS, errno.EINVAL], ids=errno.errorcode.get)
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as some Lustre and FUSE mounts are."""
    refuse_flock(monkeypatch, request.param)


@pytest.fixture(params=["flock", "marker"])
def lock_file(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What stands for the lock of a run in this folder, with the kernel's help and without."""
    if request.param == "flock":
        return tmp_path / LOCK
    refuse_flock(monkeypatch, errno.ENOSYS)
    return marker_of(tmp_path / LOCK)


HOLDER = """
import errno, fcntl, sys, time
from pathlib import Path
from convnext_study.runs import locks
def refuse(*_):
    raise OSError(errno.ENOSYS, "none")
if sys.argv[1].endswith(locks.MARKER):
    fcntl.flock = refuse
lock = locks.take(Path(sys.argv[1].removesuffix(locks.MARKER)))
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(lock_file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(lock_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("no_flock")
def test_a_run_is_trained_and_read_without_flock(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    with RunFolder(tmp_path, run):
        assert is_locked(tmp_path)
        assert read(tmp_path).status == "running"
        said = rf"process {os.getpid()} on {HERE} is working .* remove {marker_of(tmp_path / LOCK)}"
        with pytest.raises(Busy, match=said):
            RunFolder(tmp_path, run).__enter__()
    assert not is_locked(tmp_path)
    assert not marker_of(tmp_path / LOCK).exists()


def test_asleep_a_holder_keeps_it_and_dead_it_does_not(lock_file: Path) -> None:
    path = lock_file.with_name(LOCK)
    with holder(lock_file) as process:
        process.send_signal(signal.SIGSTOP)
        os.utime(lock_file, (0, 0))  # for as long as it likes
        assert locks.is_held(path)
        with pytest.raises(locks.Held, match=rf"^process {process.pid} on {HERE}$"):
            locks.take(path, 0.1)
        process.kill()
        process.wait()
        assert not locks.is_held(path)
        taken = locks.take(path)
        taken.release()
        taken.release()


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize("text", ["7\nelsewhere\n", "4000000\nelsewhere\n5\n", "", "?"])
def test_a_marker_of_nobody_knows_whom_never_expires(tmp_path: Path, text: str) -> None:
    marker = marker_of(tmp_path / LOCK)
    marker.write_text(text)
    os.utime(marker, (0, 0))
    assert locks.is_held(tmp_path / LOCK)
    pid, host = text.split("\n")[:2] if "elsewhere" in text else ("", "")
    name = f"process {pid} on {host}" if pid else "another process"
    with pytest.raises(Busy, match=rf": {name} is working on this run; .*remove {marker} if"):
        RunFolder(tmp_path, make_tiny_run()).__enter__()
    marker.unlink()
    locks.take(tmp_path / LOCK).release()


def contents(folder: Path) -> dict[str, bytes]:
    """What is written of a run."""
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.name != LOCK}


def test_a_holder_that_wakes_after_its_successor_overwrites_nothing(lock_file: Path) -> None:
    run, path = make_tiny_run(epochs=1), lock_file.parent
    with RunFolder(path, run) as folder:
        reader = RunFolder(path, run, writes=False)  # another process of the same training
        reader.watch_lock()
        folder.event("started")
        lock_file.unlink()
        train(run, path)
        before = contents(path)
        assert set(before) >= {RUN, LOG, RESULT, CHECKPOINT}
        for write in (
            lambda: folder.event("stopped"),
            lambda: folder.write(RESULT, {"by": "the old one"}),
            lambda: folder.rewind([]),
            lambda: checkpoint_file.save(path, {"weights": 0}, folder.check_lock),
        ):
            with pytest.raises(LockLost, match="its lock was removed or taken over"):
                write()
        for one in (folder, reader):
            one.failed(RuntimeError("a partner is gone"), rank=int(one is reader))
    assert contents(path) == before
    assert read(path).status == "done"


def test_a_holder_whose_successor_is_at_work_leaves_its_lock_alone(lock_file: Path) -> None:
    run, path = make_tiny_run(), lock_file.parent
    with RunFolder(path, run) as folder:
        lock_file.unlink()
        with pytest.raises(LockLost):  # also before there is a successor
            folder.event("stopped")
        successor = RunFolder(path, run)
        successor.__enter__()
    assert is_locked(path)
    successor.event("stopped")
    successor.__exit__(None, None, None)
    assert not is_locked(path)


def test_asleep_between_writing_and_renaming_it_overwrites_nothing(lock_file: Path) -> None:
    run, path = make_tiny_run(epochs=1), lock_file.parent
    with RunFolder(path, run) as folder:
        folder.event("started")
        honest = folder.check_lock

        def sleep() -> None:
            honest()
            lock_file.unlink()
            train(run, path)

        folder.check_lock = sleep  # type: ignore[method-assign]
        with pytest.raises(LockLost):
            folder.write(RESULT, {"by": "the old one"})
    assert read(path).status == "done"


def test_a_training_whose_folder_is_removed_says_so(lock_file: Path) -> None:
    path = lock_file.parent / "run"
    asked = iter(range(100))

    def stop() -> bool:
        if next(asked) == 3:
            path.rename(path.with_name("away"))
        return False

    status, reason, _ = train_job(Job(make_tiny_run(), path, Runtime()), stop)
    assert status == "busy"
    assert "its lock was removed" in reason
    assert not path.exists()


@pytest.mark.parametrize("kind", ["link", "further name", "pipe"])
def test_a_lock_of_another_kind_truncates_nothing_and_holds_nobody_up(
    lock_file: Path, kind: str
) -> None:
    precious = lock_file.with_name("precious")
    precious.write_text("all of it")
    if kind == "link":
        lock_file.symlink_to(precious)
    elif kind == "further name":
        lock_file.hardlink_to(precious)
    else:
        os.mkfifo(lock_file)
    folder = RunFolder(lock_file.parent, make_tiny_run())
    if kind == "further name" and lock_file.name == LOCK:
        with folder:
            assert is_locked(lock_file.parent)
    else:
        assert is_locked(lock_file.parent) == (lock_file.name != LOCK)
        with pytest.raises((RunError, Busy)), folder:
            pass
    assert precious.read_text() == "all of it"


def test_a_folder_that_is_not_taken_is_let_go(lock_file: Path) -> None:
    with RunFolder(lock_file.parent, make_tiny_run()):
        pass
    with (
        pytest.raises(RunError, match="contains another run"),
        RunFolder(lock_file.parent, make_tiny_run(epochs=9)),
    ):
        pass
    assert not is_locked(lock_file.parent)


def test_who_waits_for_a_run_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "PATIENCE", 1e6)
    run = make_tiny_run()
    with RunFolder(tmp_path, run), pytest.raises(Busy, match=r"process \d+ on .* is working on"):
        train(run, tmp_path, stop=stop_after(3))


def test_a_run_that_is_let_go_meanwhile_is_trained(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, make_tiny_run())
    folder.__enter__()
    leave = threading.Timer(0.05, lambda: folder.__exit__(None, None, None))
    leave.start()
    cut_off(make_tiny_run(), tmp_path, 5)
    leave.join()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EBADF, errno.EROFS, errno.EIO])
def test_a_folder_that_can_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = write_run(tmp_path, fake_runs()[0], status="unfinished")
    (folder / LOCK).write_text(f"1\n{HERE}\n")
    for path in (folder / LOCK, folder):
        path.chmod(0o555)
    before = sorted(path.name for path in folder.iterdir())
    assert read(folder).status == "unfinished"
    refuse_flock(monkeypatch, number)
    assert read(folder).status == "unfinished"
    assert sorted(path.name for path in folder.iterdir()) == before


def test_other_errors_of_a_lock_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_flock(monkeypatch, errno.EIO)
    with pytest.raises(RunError, match=r"cannot be written \(Input/output error\)$"):
        RunFolder(tmp_path, make_tiny_run()).__enter__()
