"""A full disk: one line, and nothing is lost."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.runs import make_tiny_run
from support.training import assert_same, cut_off

from convnext_study.errors import RunFailed
from convnext_study.runs.files import CHECKPOINT
from convnext_study.training.loop import train

pytestmark = pytest.mark.endurance


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes in memory. Mounting takes root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    run = make_tiny_run(epochs=3)
    train(run, tmp_path / "calm")
    folder = small_disk / "run"
    cut_off(run, folder, 5)
    free = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * max(free.f_bavail * free.f_frsize - 8192, 0))
    good = (folder / CHECKPOINT).read_bytes()
    with pytest.raises(RunFailed, match=r"cannot be written .*free some space") as caught:
        train(run, folder)
    assert "\n" not in str(caught.value)
    assert (folder / CHECKPOINT).read_bytes() == good
    filler.unlink()
    train(run, folder)
    assert_same(folder, tmp_path / "calm")
