"""A full disk and a read-only one: one line, and nothing is lost."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.runs import make_tiny_run
from support.training import assert_same, cut_off

from convnext_study.errors import RunFailed
from convnext_study.runs.files import CHECKPOINT
from convnext_study.runs.folder import RunError
from convnext_study.training.loop import train

pytestmark = pytest.mark.endurance


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system in memory, mounted with these options. Mounting takes root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(folder)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("disk", ["ro,size=1m"], indirect=True)
def test_a_read_only_disk(disk: Path) -> None:
    with pytest.raises(RunError, match="cannot be written") as caught:
        train(make_tiny_run(), disk / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("disk", ["size=8m"], indirect=True)
def test_a_full_disk(tmp_path: Path, disk: Path) -> None:
    run = make_tiny_run(epochs=3)
    train(run, tmp_path / "calm")
    folder = disk / "run"
    cut_off(run, folder, 5)
    free = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"\0" * max(free.f_bavail * free.f_frsize - 8192, 0))
    good = (folder / CHECKPOINT).read_bytes()
    with pytest.raises(RunFailed, match=r"cannot be written .*free some space") as caught:
        train(run, folder)
    assert "\n" not in str(caught.value)
    assert (folder / CHECKPOINT).read_bytes() == good
    filler.unlink()
    train(run, folder)
    assert_same(folder, tmp_path / "calm")
