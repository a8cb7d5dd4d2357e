"""Every path that CONTRIBUTING and the READMEs name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A path has a slash or a known ending; a command has spaces and is none.
PATH = re.compile(
    r"`([\w.-]+(?:/[\w.-]*)*/|[\w.-]+(?:/[\w.-]+)*\.(?:py|md|toml|j2|sh)"
    r"|[\w.-]+(?:/[\w.-]+)+\.json|\.ci/run)`"
)
MADE = {"runs/quickstart/", "site/"}  # by commands


def paths_in(page: Path) -> list[str]:
    return [path for path in PATH.findall(page.read_text()) if path not in MADE]


def everyday_changes() -> list[list[str]]:
    """The cells of the table's rows."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("## Everyday changes")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md", "launch/README.md"])
def test_every_path_exists(name: str) -> None:
    page = ROOT / name
    paths = paths_in(page)
    assert paths, "the pattern finds paths"
    missing = [
        path for path in paths if not any((at / path).exists() for at in (ROOT, page.parent))
    ]
    assert missing == []


def test_each_everyday_change_has_one_file_to_open() -> None:
    changes = everyday_changes()
    assert len(changes) >= 10
    for change, opened, _ in changes:
        assert PATH.search(opened), change
    files = [PATH.findall(opened)[0] for _, opened, _ in changes]
    assert len(set(files)) == len(files)


def test_paths_written_in_full_are_all_found() -> None:
    """The pattern overlooks none: every back-quoted text with the package's name is a path."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    quoted = re.findall(r"`((?:convnext_study|tests|docs|ablations|launch)/[^` ]*)`", text)
    assert set(quoted) <= set(paths_in(ROOT / "CONTRIBUTING.md"))
