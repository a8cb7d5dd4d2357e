"""Who may import whom. The law is written here once; a new module must be given its place."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import convnext_study

PACKAGE = Path(convnext_study.__file__).parent
HEAVY = {"fvcore", "matplotlib", "scipy", "sklearn", "timm", "torch", "torchvision", "wandb"}

DATA = {"errors", "locks", "spec", "roadmap", "plan", "records"}
NETWORK = {"layers", "matrices", "head", "recompute", "stage", "staged", "net"}
USES = {"build", "cost", "endpoints", "export", "layouts", "model_card", "zoo"}
CORE = {*DATA, *NETWORK, *USES, "training"}
# Each is a study on the same engine: it imports the core, and never another study.
STUDY_ROOMS = {"multipath", "pruning", "anytime"}
FRONT = {
    "show",
    "launching",
    "planning",
    "comparability",
    "evaluation",
    "deployment",
    "bench",
    "cli",
    "__main__",
    "__init__",
}

MAY_IMPORT = {
    "errors": set(),
    "spec": {"errors"},
    "roadmap": {"errors", "spec"},
    "plan": {"errors", "spec"},
    "locks": set(),
    "records": {"errors", "locks"},
    **{room: {"errors", "spec", "plan", *NETWORK} for room in NETWORK},
    **{room: {*DATA, *NETWORK, *USES} for room in USES},
    "training": {*DATA, *NETWORK, *USES},
    "results": {*DATA, "cost"},
    **{room: {*CORE, "results"} for room in STUDY_ROOMS},
    "show": {*CORE, "results"},
    "launching": {*CORE, *STUDY_ROOMS, "results", "show"},
    **{room: {*CORE, *STUDY_ROOMS, *FRONT, "results"} for room in FRONT - {"show", "launching"}},
}
# Nowhere in these files, not even inside a function.
NEVER_TORCH = {"errors", "locks", "spec", "roadmap", "plan", "records", "results"}
# Not while the module itself is imported, so that `--help` and `steps` answer at once.
NOT_AT_IMPORT = {
    **dict.fromkeys(DATA | FRONT | {"results", "cost", "build"}, HEAVY),
    **{room: HEAVY - {"torch"} for room in NETWORK | USES - {"cost", "build", "zoo"}},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def rooms() -> set[str]:
    return {room_of(path) for path in PACKAGE.rglob("*.py")}


def modules_in(path: Path, *, at_import: bool = False) -> Iterator[str]:
    """Full names of all that a file imports; with ``at_import``, only what importing it imports."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if at_import and (isinstance(node, ast.FunctionDef | ast.Lambda) or _for_types_only(node)):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imported_rooms(path: Path) -> set[str]:
    known = rooms()
    names = [name.split(".") for name in modules_in(path)]
    return {parts[1] for parts in names if parts[0] == "convnext_study" and parts[1] in known}


def test_every_module_has_its_place() -> None:
    assert rooms() - set(MAY_IMPORT) == set(), "say in MAY_IMPORT what the new module may import"


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for path in PACKAGE.rglob("*.py"):
        if room_of(path) == room:
            beyond = imported_rooms(path) - MAY_IMPORT[room] - {room}
            assert not beyond, f"{path.relative_to(PACKAGE)} must not import {sorted(beyond)}"


def test_nothing_in_the_package_imports_studies_or_site_files() -> None:
    for path in PACKAGE.rglob("*.py"):
        roots = {name.split(".")[0] for name in modules_in(path)}
        assert not roots & {"ablations", "launch"}, path


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for path in PACKAGE.rglob("*.py"):
        at_import = {name.split(".")[0] for name in modules_in(path, at_import=True)}
        early = at_import & NOT_AT_IMPORT.get(room_of(path), set())
        assert not early, f"{path.relative_to(PACKAGE)} imports {sorted(early)} at once"
        if room_of(path) in NEVER_TORCH:
            roots = {name.split(".")[0] for name in modules_in(path)}
            assert not roots & {"torch", "timm", "torchvision"}, path


def test_the_law_is_seen_to_be_broken(tmp_path: Path) -> None:
    # The reader of imports itself: what is inside a function counts, but not as an import's cost.
    source = tmp_path / "module.py"
    source.write_text(
        "from typing import TYPE_CHECKING\n"
        "import convnext_study.net\n"
        "if TYPE_CHECKING:\n    import timm\n"
        "def f():\n    from convnext_study import training\n    import torch\n"
    )
    assert imported_rooms(source) == {"net", "training"}
    assert "torch" in set(modules_in(source))
    assert set(modules_in(source, at_import=True)) == {
        "typing.TYPE_CHECKING",
        "convnext_study.net",
    }


def test_data_modules_import_without_torch() -> None:
    light = "spec, roadmap, plan, records, cost, show, cli"
    code = f"import sys\nfrom convnext_study import {light}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.split(".")[0] for name in done.stdout.split()}
