"""What imports cost, and how the package's root looks. Who may import whom is import-linter's."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import convnext_study
from convnext_study.imports import studies

PACKAGE = Path(convnext_study.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
ABLATIONS = [ast.parse(path.read_text()) for path in (PACKAGE.parent / "ablations").glob("*.py")]
HEAVY = {"fvcore", "matplotlib", "scipy", "sklearn", "timm", "torch", "torchvision", "wandb"}

# Not while the module itself is imported, so that `--help` and `steps` answer at once.
NOT_AT_IMPORT = {
    **dict.fromkeys(
        (
            *("__init__", "__main__", "errors", "imports", "recipes", "roadmap", "runs", "cost"),
            *("results", "report", "launchers", "experiments", "evaluation", "benchmarks", "cli"),
            *("models/__init__", "models/builders", "models/layer_specs", "models/timm_hook"),
            *("export/__init__", "export/formats", "studies/__init__", "api"),
        ),
        HEAVY,
    ),
    "models": HEAVY - {"torch"},
    "models/lean_timm": HEAVY - {"torch", "timm"},  # which is imported where timm is used
    "export": HEAVY - {"torch"},
    "evaluation/evaluate": HEAVY - {"torch"},
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def not_at_import(path: Path) -> set[str]:
    name = name_of(path)
    return NOT_AT_IMPORT.get(name, NOT_AT_IMPORT.get(name.split("/")[0], set()))


def modules_in(path: Path, *, at_import: bool = False) -> Iterator[str]:
    """Full names of all that a file imports; with ``at_import``, only what importing it imports."""
    waiting: list[ast.AST] = [TREES[path]]
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


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for path in TREES:
        at_import = {name.split(".")[0] for name in modules_in(path, at_import=True)}
        early = at_import & not_at_import(path)
        assert not early, f"{name_of(path)} imports {sorted(early)} at once"


def test_data_modules_import_without_torch() -> None:
    light = (
        "from convnext_study import cli, cost, data, recipes, roadmap\n"
        "from convnext_study.models import layer_specs\n"
        "from convnext_study.report import show\n"
        "from convnext_study.runs import records\n"
        "from convnext_study.studies.multipath import growth, registry, spec\n"
    )
    code = f"import sys\n{light}print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.split(".")[0] for name in done.stdout.split()}


def test_every_address_of_a_study_leads_somewhere() -> None:
    assert set(studies()) == {"multipath", "anytime", "pruning"}
    for name, study in studies().items():
        own = [*study.builders, *study.tasks]
        assert all(one.partition("-")[0] == name for one in own)
        given = (*study.builders.values(), *study.tasks.values(), study.costs, *(study.bench or ()))
        assert all(callable(study.load(address)) for address in given if address)
        assert study.models is None or study.load(study.models)


# What others call by these names: timm, torch, and pydantic.
INTERFACES = {
    *("group_matcher", "forward_intermediates", "prune_intermediate_layers", "extra_repr"),
    *("model_config", "to_pandas"),  # the last is for users
}


def definitions(body: list[ast.stmt]) -> Iterator[str]:
    """Public functions, classes, methods and constants."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
            yield from definitions(node.body) if isinstance(node, ast.ClassDef) else ()
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_the_product_uses_every_public_name() -> None:
    """What only tests use goes. Names in texts count where they are addresses, such as a task's."""
    trees = [*TREES.values(), *ABLATIONS]
    used = set(INTERFACES)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.update(re.findall(r"[:\"]?(\w+)$", node.value) if len(node.value) < 80 else ())
    public = {name for tree in trees for name in definitions(tree.body) if name[0] != "_"}
    assert (
        public - used - {"runs", "report", "FOLDER", "DATA", "NETWORKS", "TARGETS", "REGIME"}
        == set()
    )


# Words that say less than the field's: a user reads what differs, not what is told.
PRIVATE = re.compile(r"\b(told|asked|said|judged|strangers?)\b")


def test_the_fields_words_are_used() -> None:
    root = PACKAGE.parent
    paths = [*TREES, *root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("ablations/*.py")]
    lines = [(path.name, line) for path in paths for line in path.read_text().splitlines()]
    assert [where for where in lines if PRIVATE.search(where[1])] == []
    names = {
        (path.name, node.lineno)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in ("found", "one")
    }
    assert names == set()  # a name says what the value is


def test_the_root_can_be_read_at_a_glance() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")]
    assert len(entries) <= 22, sorted(path.name for path in entries)


TEXT_FILES = {"open", "fdopen", "read_text", "write_text", "TemporaryFile", "NamedTemporaryFile"}
OTHER_OPENS = {("open", of) for of in ("os", "Image", "tarfile", "source")}


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """The locale's is another one on another machine. Ruff's PLW1514 sees half of the calls."""
    missing = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            of = getattr(getattr(node.func, "value", None), "id", "")
            modes = {"rb", "wb", "wb+", "xb"} & {getattr(one, "value", None) for one in node.args}
            text = name in TEXT_FILES and not modes and (name, of) not in OTHER_OPENS
            if text and not {"encoding", "dir"} & {one.arg for one in node.keywords}:
                missing.append(f"{name_of(path)}:{node.lineno}")
    assert missing == []
