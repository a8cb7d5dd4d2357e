"""Write the pages that are made of the package: commands, models, API, the notebook; navigation."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import mkdocs_gen_files
import timm
import typer

from convnext_study.cli import COMMANDS, app
from convnext_study.cost import count
from convnext_study.models.timm_hook import all_models

NAVIGATION = {
    "": (("Home", "index.md"), ("Install", "install.md"), ("FAQ", "faq.md")),
    "Tutorials": (
        ("With the paper, on a laptop", "tutorial_laptop.md"),
        ("With your own images", "tutorial_images.md"),
        ("On a cluster", "tutorial_cluster.md"),
        ("In a notebook", "notebook.md"),
        ("In timm", "timm.md"),
    ),
    "How to": (
        ("Data", "data.md"),
        ("Recipes", "recipes.md"),
        ("Project defaults", "defaults.md"),
        ("Stop and resume", "resume.md"),
        ("Clusters", "clusters.md"),
        ("Ablations", "ablations.md"),
        ("Your own step", "your_own_step.md"),
        ("The report", "report.md"),
    ),
    "Studies": (
        ("Clutter", "clutter.md"),
        ("Preregistration", "preregistration.md"),
        ("Example report", "example/README.md"),
        ("Multi-path networks", "multipath.md"),
        ("Anytime prediction", "anytime.md"),
        ("Pruning", "pruning.md"),
        ("Performance", "performance.md"),
    ),
    "Reference": (
        ("Commands", "commands.md"),
        ("Models", "models.md"),
        ("Machine formats", "formats.md"),
        ("From Python", "python.md"),
        ("Road maps and networks", "api/networks.md"),
        ("Studies and tasks", "api/studies.md"),
        ("Results", "api/results.md"),
    ),
}
# What others build on; all other modules are the package's own.
API = {
    "networks": (
        *("roadmap.roadmap", "roadmap.spec", "roadmap.extensions", "models.roadmap_net"),
        *("models.registry", "models.pretrained.convert", "cost.closed_form", "cost.counter"),
    ),
    "studies": (
        *("experiments.context", "recipes", "recipes.recipe", "training.task", "imports"),
        *("report.findings", "errors"),
    ),
    "results": (
        *("runs.records", "runs.metrics", "results.load", "results.rows", "results.compare"),
        *("results.attribution", "results.claims", "evaluation.load_run"),
    ),
}


def write_page(path: str, text: str) -> None:
    """Write a page of the site."""
    with mkdocs_gen_files.open(path, "w") as page:
        page.write(text.rstrip() + "\n")


def commands_page() -> str:
    """Every command with its arguments, options and examples, as `--help` has them."""
    made: Any = typer.main.get_command(app)
    parts = ["# Commands", "`convnext-study COMMAND --help` shows the same on a terminal."]
    for name, command in made.commands.items():
        for words, one in _leaves(name, command):
            parts += [f"## {words}", one.help or ""]
            examples = COMMANDS.get(words, (None, ()))[1]
            if examples:
                lines = [f"convnext-study {words} {example}".rstrip() for example in examples]
                parts.append("\n".join(["```", *lines, "```"]))
            parts.append(_options(one))
    return "\n\n".join(parts)


def _leaves(name: str, command: Any) -> list[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    return [(f"{name} {key}", one) for key, one in below.items()] or [(name, command)]


def _options(command: Any) -> str:
    lines = ["| option | meaning |", "|---|---|"]
    for one in command.params:
        names = ", ".join(f"`{text}`" for text in (*one.opts, *one.secondary_opts))
        if one.param_type_name == "argument":
            names = f"`{one.metavar or one.name.upper()}`"
        text = (getattr(one, "help", None) or "").replace("|", r"\|")
        shown = one.default not in (None, False, True, "", ()) and "(default" not in text
        lines.append(f"| {names} | {text}{f' (default: {one.default})' if shown else ''} |")
    return "\n".join(lines)


def models_page() -> str:
    """Every network that timm knows of this package, counted."""
    lines = [
        "# Models",
        "The names that `import convnext_study` registers with timm. Parameters, and MACs of",
        "convolution and linear layers for one image, are those of `timm.create_model(name)`.\n",
        "| model | network | image | parameters, M | MACs, G |",
        "|---|---|---|---:|---:|",
    ]
    for name, entry in all_models().items():
        shape = tuple(entry.cfg["input_size"])
        cost = count(timm.create_model(name, device="meta"), shape)
        size = f"{shape[1]}x{shape[2]}"
        about = entry.description.replace("|", r"\|")
        counted = f"{cost.params / 1e6:.2f} | {cost.macs / 1e9:.3f}"
        lines.append(f"| `{name}` | {about} | {size} | {counted} |")
    return "\n".join(lines)


def notebook_page(name: str) -> str:
    """An executed notebook; its pictures are written beside it."""
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
                parts.append(f"![Figure from the cell above]({picture})")
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
            else:
                parts.append("```text\n" + "".join(data["text/plain"]).rstrip() + "\n```")
    return "\n\n".join([*parts, f"Run it yourself: [the notebook]({name}.ipynb) of this page."])


write_page("commands.md", commands_page())
write_page("models.md", models_page())
write_page("notebook.md", notebook_page("notebook"))
for title, path in NAVIGATION["Reference"]:
    if path.startswith("api/"):
        names = [f"::: convnext_study.{name}" for name in API[Path(path).stem]]
        write_page(path, "\n\n".join([f"# {title}", *names]))
lines = []
for group, pages in NAVIGATION.items():
    lines += [f"* {group}"] if group else []
    lines += [f"{'    ' if group else ''}* [{title}]({path})" for title, path in pages]
write_page("SUMMARY.md", "\n".join(lines))
