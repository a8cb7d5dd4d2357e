"""Locks that end with their holder, with the kernel's help and without it."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fakes import fake_runs, write_run
from support.runs import make_tiny_run

from convnext_study.runs import lease as leases
from convnext_study.runs import locks
from convnext_study.runs.folder import RunError, RunFolder
from convnext_study.runs.records import LOCK, is_locked, read
from convnext_study.training.loop import train


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get)
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as some Lustre and FUSE mounts are."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def write_lease(path: Path, *, age: float = 0.0, **about: object) -> Path:
    lease = path.with_name(path.name + leases.LEASE)
    lease.write_text(json.dumps({**leases._here(), "token": "x", **about}))
    os.utime(lease, (time.time() - age,) * 2)
    return lease


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.usefixtures("no_flock")
def test_a_run_is_trained_and_read_without_flock(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=1)
    with RunFolder(tmp_path, run):
        assert is_locked(tmp_path)
        assert read(tmp_path).status == "running"
        with pytest.raises(RunError, match=rf"process {os.getpid()} on .* is working on this run"):
            RunFolder(tmp_path, run).__enter__()
    assert not is_locked(tmp_path)
    train(run, tmp_path)
    assert read(tmp_path).status == "done"
    assert [path.name for path in tmp_path.iterdir() if leases.LEASE in path.name] == []


@pytest.mark.usefixtures("no_flock")
def test_one_of_many_gets_a_lease(tmp_path: Path) -> None:
    write_lease(tmp_path / LOCK, pid=dead_process())
    got: list[locks.Lock] = []
    refused: list[str] = []

    def take() -> None:
        try:
            got.append(locks.take(tmp_path / LOCK))
        except locks.Held as error:
            refused.append(error.holder)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    got[0].release()
    locks.take(tmp_path / LOCK).release()


@pytest.mark.usefixtures("no_flock")
def test_one_that_died_while_it_removed_a_lease_holds_nobody_up(tmp_path: Path) -> None:
    write_lease(tmp_path / LOCK, pid=dead_process())
    left = tmp_path / f".{LOCK}{leases.LEASE}.over"
    left.touch()
    os.utime(left, (time.time() - 60,) * 2)
    locks.take(tmp_path / LOCK).release()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.usefixtures("no_flock")
def test_a_dead_holders_lease_is_over_at_once(tmp_path: Path) -> None:
    lease = write_lease(tmp_path / LOCK, pid=dead_process())
    assert not is_locked(tmp_path)
    # Elsewhere, or in another container, nobody can see that it is dead.
    elsewhere: list[dict[str, Any]] = [{"host": "elsewhere"}, {"space": "pid:[1]"}]
    for where in elsewhere:
        write_lease(tmp_path / LOCK, pid=dead_process(), **where)
        assert locks.is_held(tmp_path / LOCK)
        write_lease(tmp_path / LOCK, pid=dead_process(), age=leases.STALE + 1, **where)
        assert not locks.is_held(tmp_path / LOCK)
    lock = locks.take(tmp_path / LOCK)
    assert json.loads(lease.read_text())["pid"] == os.getpid()
    lock.release()
    assert not lease.exists()


@pytest.mark.usefixtures("no_flock")
def test_a_holder_elsewhere_is_given_time_to_show_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    monkeypatch.setattr(leases, "STALE", 3.0)
    lease = write_lease(tmp_path / LOCK, host="elsewhere", pid=7)
    gone = threading.Event()

    def renew() -> None:
        while not gone.wait(0.3):
            os.utime(lease)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(locks.Held, match=r"^process 7 on elsewhere$"):
            locks.take(tmp_path / LOCK)
    finally:
        gone.set()
        renewing.join()
    renewed = lease.stat().st_mtime
    lock = locks.take(tmp_path / LOCK)  # no more signs of life
    assert time.time() - renewed > leases.STALE
    lock.release()


@pytest.mark.usefixtures("no_flock")
def test_a_lease_is_renewed_and_its_loss_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    run = make_tiny_run()
    lease = tmp_path / (LOCK + leases.LEASE)
    with RunFolder(tmp_path, run) as folder:
        assert folder._lock is not None
        os.utime(lease, (0, 0))
        wait_for(lambda: lease.stat().st_mtime > time.time() - 60)
        lease.unlink()  # by hand: the holder is still there
        wait_for(lease.exists)
        write_lease(tmp_path / LOCK, host="elsewhere", pid=7)
        wait_for(lambda: bool(folder._lock and folder._lock.is_lost))
        with pytest.raises(RunError, match="another process has taken this run over"):
            folder.event("stopped")
    assert json.loads(lease.read_text())["host"] == "elsewhere"  # not ours to remove


@pytest.mark.usefixtures("no_flock")
def test_a_folder_that_is_not_taken_is_let_go(tmp_path: Path) -> None:
    with RunFolder(tmp_path, make_tiny_run()):
        pass
    with (
        pytest.raises(RunError, match="holds another run"),
        RunFolder(tmp_path, make_tiny_run(epochs=9)),
    ):
        pass
    assert not is_locked(tmp_path)


def wait_for(seen: object) -> None:
    deadline = time.monotonic() + 10
    while not seen():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def _read_only(tmp_path: Path) -> Iterator[None]:
    yield
    tmp_path.chmod(0o755)


@pytest.mark.usefixtures("_read_only")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EBADF, errno.EROFS, errno.EIO])
def test_a_folder_that_can_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = write_run(tmp_path, fake_runs()[0], status="unfinished")
    (folder / LOCK).write_text(f"process 1 on {socket.gethostname()}")
    for path in (folder / LOCK, folder):
        path.chmod(0o555)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = sorted(path.name for path in folder.iterdir())
    assert read(folder).status == "unfinished"
    monkeypatch.setattr(fcntl, "flock", refuse)
    assert read(folder).status == "unfinished"
    assert sorted(path.name for path in folder.iterdir()) == before
    folder.chmod(0o755)


def test_other_errors_of_a_lock_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match=r"cannot be written \(Input/output error\)$"):
        RunFolder(tmp_path, make_tiny_run()).__enter__()
