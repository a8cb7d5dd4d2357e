"""What README and the pages print is run: Python as it stands, commands at small sizes."""

import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support.command import Command
from typer.testing import CliRunner

from convnext_study.cli import app

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a page in that language."""
    found = BLOCK.findall((ROOT / page).read_text())
    return [text for language, text in found if language == kind]


LONG = [
    pytest.param(page, marks=pytest.mark.exhaustive) for page in ("docs/python.md", "docs/timm.md")
]


@pytest.mark.parametrize("page", ["README.md", *LONG])
def test_python_runs_as_printed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains_here: None
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    given = blocks(page, "python")
    assert given
    for text in given:
        exec(compile(text, page, "exec"), names)  # noqa: S102


@pytest.mark.exhaustive
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    shown = [bool(cell.get("outputs")) for cell in notebook.cells]
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    assert [bool(cell.get("outputs")) for cell in notebook.cells] == shown
    assert (tmp_path / "runs" / "notebook" / "road.png").exists()


def commands(page: str) -> list[list[str]]:
    """The words of each `convnext-study` command that a page prints in a block of its own."""
    lines = "".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    return [
        shlex.split(line, comments=True)[1:] for line in lines if line.startswith("convnext-study ")
    ]


PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_is_one_that_the_program_takes(page: str) -> None:
    for words in commands(page):
        done = CliRunner().invoke(app, [*words, "--help"])
        assert done.exit_code == 0, (words, done.output)


SMALL = ["--data", "digits", "--epochs", "1", "--batch-size", "128", "--image-size", "32"]
SMALL += ["--seeds", "1", "--device", "cpu"]


@pytest.mark.exhaustive
def test_readmes_commands_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, trains_here: None
) -> None:
    """Those for a laptop are run, at small sizes; those that need a cluster, dry."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    ran = set()
    for words in commands("README.md"):
        name = words[0]
        large = {"--regime", "--download", "--verify", "--pretrained"} & set(words)
        if name in ("train", "roadmap"):
            few = ["--steps", "resnet,kernel_5"] if name == "roadmap" else []
            words += ["--dry-run"] if large else SMALL + few
        elif (name == "study" and words[1:]) or large - {"--regime"}:
            continue
        if name == "report":  # of the data's own name, were these not small
            words = ["report", "runs/nano-digits"]
        code, _, errors = command(*words)
        assert code == 0, (words, errors)
        ran.add(name)
    assert ran == {"steps", "show", "train", "roadmap", "cost", "report", "power", "study"}
    assert (tmp_path / "runs" / "nano-digits" / "report" / "report.html").exists()


def test_the_container_is_made_by_readmes_steps() -> None:
    install = [line for text in blocks("README.md", "") for line in text.splitlines()]
    steps = [line.partition("#")[0].strip() for line in install if line.startswith("pip install")]
    assert steps == ["pip install torch torchvision", "pip install ."]
    recipe = (ROOT / "Dockerfile").read_text().replace(" --no-cache-dir", "")
    places = [recipe.index(step.rstrip(".")) for step in steps]
    assert places == sorted(places)


def test_the_makes_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"^make ([\w-]+)", "".join(blocks("README.md", "")), re.MULTILINE)
    assert named and set(named) <= targets
