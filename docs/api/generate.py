"""Write the API reference's pages, one for each room of the package, from its docstrings."""

from pathlib import Path

import mkdocs_gen_files

PACKAGE = "convnext_study"
PAGES = (
    ("Start", "index.md"),
    ("Data", "data.md"),
    ("Recipes", "recipes.md"),
    ("Stop and resume", "resume.md"),
    ("Clusters", "clusters.md"),
    ("Ablations", "ablations.md"),
    ("Your own step", "your_own_step.md"),
    ("timm", "timm.md"),
    ("The report", "report.md"),
    ("Clutter", "clutter.md"),
    ("Preregistration", "preregistration.md"),
    ("Multi-path networks", "multipath.md"),
    ("Anytime prediction", "anytime.md"),
    ("Pruning", "pruning.md"),
    ("Performance", "performance.md"),
    ("An example", "example/README.md"),
)


def modules(room: Path) -> list[str]:
    """The public modules of a room, dotted, in the order of their paths."""
    return [
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(room.rglob("*.py"))
        if not path.stem.startswith("_") or path.stem == "__init__"
    ]


def write_reference() -> list[str]:
    """Write a page for each room; returns their lines in the table of contents."""
    root = Path(PACKAGE)
    rooms = sorted(path for path in root.iterdir() if (path / "__init__.py").exists())
    single = [f"{PACKAGE}.{path.stem}" for path in sorted(root.glob("[a-z]*.py"))]
    pages = {"package": [PACKAGE, *single], **{room.name: modules(room) for room in rooms}}
    lines = []
    for name, names in pages.items():
        with mkdocs_gen_files.open(f"api/{name}.md", "w") as page:
            page.write(f"# {PACKAGE if name == 'package' else f'{PACKAGE}.{name}'}\n\n")
            page.writelines(f"::: {module}\n\n" for module in names)
        lines.append(f"    * [{name}](api/{name}.md)")
    return lines


with mkdocs_gen_files.open("SUMMARY.md", "w") as summary:
    summary.writelines(f"* [{title}]({path})\n" for title, path in PAGES)
    summary.write("* API\n" + "\n".join(write_reference()) + "\n")
