"""Write the API reference's pages, one for each room of the package, from its docstrings."""

import base64
import json
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
    ("From Python", "python.md"),
    ("A notebook", "notebook.md"),
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


def write_notebook(name: str) -> None:
    """Write an executed notebook as a page, its pictures beside it."""
    cells = json.loads(Path("docs", f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    parts = []
    for place, cell in enumerate(cells):
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                picture = f"{name}-{place}.png"
                with mkdocs_gen_files.open(picture, "wb") as file:
                    file.write(base64.b64decode(data["image/png"]))
                parts.append(f"![What the cell above draws]({picture})")
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
            else:
                parts.append("```text\n" + "".join(data["text/plain"]).rstrip() + "\n```")
    parts.append(f"[The notebook]({name}.ipynb) is this page, to run yourself.")
    with mkdocs_gen_files.open(f"{name}.md", "w") as page:
        page.write("\n\n".join(parts) + "\n")


write_notebook("notebook")
with mkdocs_gen_files.open("SUMMARY.md", "w") as summary:
    summary.writelines(f"* [{title}]({path})\n" for title, path in PAGES)
    summary.write("* API\n" + "\n".join(write_reference()) + "\n")
