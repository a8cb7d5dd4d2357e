"""``bench``: how fast it is on this machine, as ratios."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convnext_study.benchmarks import PARTS, Settings
from convnext_study.cli.options import (
    MACHINE,
    MOST_PROCESSES,
    Device,
    Json,
    Regime,
    print_json,
    print_tables,
)
from convnext_study.errors import UserError, did_you_mean
from convnext_study.imports import studies
from convnext_study.recipes.recipe import MOST_IMAGES, MOST_PIXELS
from convnext_study.roadmap import DEFAULT_REGIME, get_roadmap

if TYPE_CHECKING:
    from convnext_study.report.tables import Table

_what: Any = functools.partial(typer.Option, rich_help_panel="What to measure")
_machine: Any = functools.partial(typer.Option, rich_help_panel=MACHINE)


def bench(
    parts: Annotated[
        str,
        _what(
            help="Comma-separated; also what a study measures: anytime (time that skipping "
            "saves), multipath."
        ),
    ] = ",".join(PARTS),
    regime: Regime = DEFAULT_REGIME,
    quick: Annotated[
        bool, _what("--quick", help="Only both ends of the road, fewer and shorter repeats.")
    ] = False,
    batch_size: Annotated[
        int | None,
        _what(
            min=1,
            max=MOST_IMAGES,
            help="Images per step. (default: 64 for nano, else 8; a study has its own)",
        ),
    ] = None,
    networks: Annotated[
        str,
        _what(help="Of a study, comma-separated, such as hrnet_w48. (default: the study's own)"),
    ] = "",
    image_size: Annotated[
        str | None,
        _what(help="Of a study, HEIGHTxWIDTH in pixels. (default: the study's own)"),
    ] = None,
    data: Annotated[
        str | None, _what(help="folder:PATH for the pipeline. (default: made-up JPEGs)")
    ] = None,
    repeats: Annotated[
        int | None, _what(min=1, max=10_000, help="Of each comparison. (default: 5; 3 if quick)")
    ] = None,
    threads: Annotated[
        int | None,
        _machine(min=1, max=MOST_PROCESSES, help="Of each measure. (default: as a training has)"),
    ] = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Folder for bench.json.")] = Path("bench"),
    as_json: Json = False,
) -> None:
    """Measure speed beside timm and the plain networks, interleaved."""
    import torch

    from convnext_study.experiments.roadmap_runs import parse_names
    from convnext_study.launchers.resources import Requested, choose_resources
    from convnext_study.runs.files import make_folder, write_json
    from convnext_study.runs.provenance import hardware, versions
    from convnext_study.training.runtime import Runtime

    road, wanted = get_roadmap(regime), _parts(parse_names(parts))
    names, size = parse_names(networks), _image_size(image_size)
    if (names or size) and not set(wanted) - set(PARTS):
        option = "--networks" if names else "--image-size"
        raise UserError(f"{option}: is for parts of a study, such as --parts anytime")
    if data is not None:  # bad data fails before minutes of other parts
        from convnext_study.data import open_data

        open_data(data)
    make_folder(out)
    requested = Requested(device=device, threads=threads)
    runtime = choose_resources(Runtime(), requested, image_size=road.image_size, runs=1).runtime
    torch.set_num_threads(runtime.threads)
    settings = Settings(
        regime=road.regime,
        repeats=repeats or (3 if quick else 5),
        seconds=0.1 if quick else 0.4,
        threads=runtime.threads,
        device=runtime.device,
        batch_size=batch_size,
        quick=quick,
        data=data,
        networks=names,
        image_size=size,
    )
    found: dict[str, Any] = {
        "hardware": {**hardware(), "versions": versions()},
        "settings": dataclasses.asdict(settings),
    }
    tables = []
    for part in wanted:
        found[part], table = _measure(part, settings)
        tables.append(table)
    write_json(out / "bench.json", found)
    if as_json:
        print_json(found)
        return
    print_tables(*tables)
    print(
        f"\nratios: median (lowest-highest) of {settings.repeats} interleaved repeats, "
        f"{settings.threads} thread(s) on {settings.device}"
    )
    print(f"written: {out / 'bench.json'}")


def _measure(part: str, settings: Settings) -> tuple[list[dict[str, Any]], Table[Any]]:
    """Rows of plain values, and their table."""
    from convnext_study.benchmarks.timing import comparison_table

    if part in PARTS:
        module = import_module(f"convnext_study.benchmarks.{part}")
        title, rows = module.measure(settings, _report)
        return rows, comparison_table(part, title, rows)
    study = studies()[part]
    measure, table = map(study.load, study.bench or ())
    rows = measure(settings, _report)
    return rows, table(rows)


def _report(text: str) -> None:
    print(f"measuring: {text}", file=sys.stderr, flush=True)


def _parts(wanted: tuple[str, ...]) -> tuple[str, ...]:
    known = [*PARTS, *(name for name, study in studies().items() if study.bench)]
    for name in wanted or ("",):
        if name not in known:
            raise UserError(f"--parts: {name!r}{did_you_mean(name, known)}")
    return wanted


def _image_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = [int(side) for side in re.findall(r"\d{1,4}", text)]
    if not re.fullmatch(r"\d{1,4}x\d{1,4}", text) or not all(
        0 < side <= MOST_PIXELS for side in sides
    ):
        raise UserError(
            f"--image-size: {text!r:.40}; use HEIGHTxWIDTH, as in 512x1024, "
            f"neither above {MOST_PIXELS}"
        )
    return sides[0], sides[1]
