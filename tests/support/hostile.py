"""Records as a stranger may have written them: honest folders with one value changed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convnext_study.runs.files import LOG, RUN, read_json
from convnext_study.runs.records import Run

# Texts that something takes for more than a text: a path, a formula, markup, code, a command.
TEXTS = (
    "../../../../evil",
    "/evil",
    "=HYPERLINK(1)",
    "+cmd|' /C calc'!A0",
    "@SUM(1)",
    "[/z]",
    "[bold]b[/bold]",
    "<script>alert(1)</script>",
    r"\input{x} $\frac{$ & % # _ ^ ~",
    "\x1b[31m\x00\ufffe",
    "a\u2028b\u202ec\nd",
    "--upload-pack=touch evil",
)
# Values where another kind is honest, and numbers that nothing can be computed with.
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**12,
    2**70,
    -1e300,
    float("nan"),
    float("inf"),
    "x",
    [],
    {},
    [[1]],
)


def change(path: Path, place: tuple[Any, ...], value: Any) -> None:
    """Set one value of a JSON file; of ``run.json`` the key too, as a stranger with the package."""
    whole = read_json(path)
    inner = whole
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    if path.name == RUN and place[0] == "run":
        with contextlib.suppress(ValueError):
            whole["key"] = Run.model_validate(whole["run"]).key
    path.write_text(json.dumps(whole), encoding="utf-8")


def add_event(run: Path, **fields: Any) -> None:
    """Append an event to a run's log."""
    with (run / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"event": "resumed", "step": 1, **fields}, ensure_ascii=False) + "\n")


def files_under(folder: Path) -> dict[Path, bytes]:
    """The content of every file, to see that none was touched."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def places_in(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value within a value stands, the first two of a list."""
    if isinstance(value, dict | list):
        names = list(value) if isinstance(value, dict) else range(min(len(value), 2))
        for name in names:
            yield (*before, name)
            yield from places_in(value[name], (*before, name))
