"""A report's page, as its tests read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import unescape
from pathlib import Path
from typing import Any

from rich.console import Console

from convnext_study.report.page import render
from convnext_study.results.load import load_results
from convnext_study.runs.files import RUN
from convnext_study.runs.records import Run


def page_of(folder: Path, **how: Any) -> str:
    return render(load_results(folder), **how).html


def on_screen(*shown: Any, width: int = 80) -> str:
    """What a terminal of that width shows of tables and other things of rich's, without colour."""
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(*shown)
    return capture.get()


def data_in(html: str) -> list[dict[str, Any]]:
    """The numbers that the page holds for machines."""
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', html, re.S)
    assert found
    return list(json.loads(found[1]))


def text_in(html: str) -> str:
    """What a reader sees, roughly."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def set_commit(folder: Path, runs: Iterable[Run], commit: str | None) -> None:
    """Have runs made by another commit."""
    for run in runs:
        path = folder / "runs" / run.id / RUN
        path.write_text(json.dumps({**json.loads(path.read_text()), "commit": commit}))
