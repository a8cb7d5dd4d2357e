"""The studies that come with the package: found by name in a checkout and after a plain install."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from convnext_study.experiments.study_file import find_study, named_studies

ROOT = Path(__file__).parents[2]


def test_a_name_is_the_file_of_the_checkout() -> None:
    assert find_study("leave_one_out") == ROOT / "ablations" / "leave_one_out.py"
    assert set(named_studies()) == {path.stem for path in (ROOT / "ablations").glob("*.py")}


@pytest.mark.parametrize("path", ["ablations/pairs.py", "mine.py", "../a/b.py"])
def test_a_path_stays_as_it_was(path: str) -> None:
    assert find_study(path) == Path(path)


def test_an_installed_wheel_has_them(tmp_path: Path) -> None:
    """Unpacked elsewhere, as an installation does, and away from the checkout."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "import convnext_study\n"
        "from convnext_study.experiments.study_file import find_study, load_study\n"
        "print(convnext_study.__file__)\n"
        "print(load_study(find_study('leave_one_out')).path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    package = site / "convnext_study"
    assert done.stdout.split() == [
        str(package / "__init__.py"),
        str(package / "ablations" / "leave_one_out.py"),
    ]
    for path in (ROOT / "ablations").glob("*.py"):
        assert (package / "ablations" / path.name).read_bytes() == path.read_bytes()
