"""What CI promises: nothing is skipped there for want of a browser or of an extra."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run_ci(tmp_path: Path, *, user: int = 1000, browser: str = "") -> tuple[int, str, list[str]]:
    """``.ci/run`` where `make`, `id` and the browser are stand-ins: exit code, errors, targets."""
    bin_folder, made = tmp_path / "bin", tmp_path / "made"
    bin_folder.mkdir()
    for name in ("bash", "env", "dirname"):
        (bin_folder / name).symlink_to(str(shutil.which(name)))
    scripts = {"make": f'echo "$@" >> {made}', "id": f"echo {user}", "apt-get": "exit 100"}
    if browser:
        scripts[browser] = "exit 0"
    for name, text in scripts.items():
        (bin_folder / name).write_text(f"#!{bin_folder / 'bash'}\n{text}\n")
        (bin_folder / name).chmod(0o755)
    shutil.copytree(ROOT / ".ci", tmp_path / "checkout" / ".ci")
    done = subprocess.run(
        [str(tmp_path / "checkout" / ".ci" / "run")],
        env={"PATH": str(bin_folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr, made.read_text().split("\n") if made.exists() else []


@pytest.mark.parametrize("user", [0, 1000])
def test_without_a_browser_it_ends_in_one_line(tmp_path: Path, user: int) -> None:
    """Whether nobody may install one, or it cannot be installed."""
    code, errors, made = run_ci(tmp_path, user=user)
    assert code == 1
    assert "chromium" in errors
    assert errors.count("\n") == 1
    assert made == []


def test_with_a_browser_everything_is_made(tmp_path: Path) -> None:
    code, errors, made = run_ci(tmp_path, browser="chromium")
    assert (code, errors) == (0, "")
    assert made[:-1] == ["test", "exhaustive", "docs", "test-slurm", "endurance", "test-gpu"]


def test_every_extra_that_tests_use_is_in_the_test_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    listed = " ".join(extras["test"])
    assert "convnext-study[onnx]" in listed
    assert "submitit" in listed
    called = re.compile(r"importor" + "skip")
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert [path.name for path in tests if called.search(path.read_text())] == []
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_without_a_gpu_its_tests_say_skipped() -> None:
    line = next(one for one in (ROOT / "Makefile").read_text().splitlines() if "gpu.run" in one)
    assert line.split() == ["PYTHONPATH=tests", "$(BIN)/python", "-m", "gpu.run", "$(DEVICE)"]
    code = (
        "from gpu import feed, run, steps\n"
        "for part in (run, steps, feed):\n"
        "    try: part.main([])\n"
        "    except SystemExit as left: assert not left.code"
    )
    here = {"PYTHONPATH": os.pathsep.join(["tests", *sys.path]), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **here}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SKIPPED: no GPU is seen here") == 3
