"""``bench``: how fast it is on this machine, as ratios."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convnext_study.cli.options import MOST_PROCESSES, Device, Json, Regime, print_tables
from convnext_study.errors import UserError
from convnext_study.imports import studies
from convnext_study.recipes.recipe import MOST_IMAGES, MOST_PIXELS
from convnext_study.roadmap import DEFAULT_REGIME, Roadmap, Variant, get_roadmap
from convnext_study.runs.files import make_folder

if TYPE_CHECKING:
    from convnext_study.benchmarks.networks import BatchRequest

PARTS = ("networks", "engine_overhead", "pipeline")
REPEATS, QUICK_REPEATS = 5, 3
SECONDS, QUICK_SECONDS = 0.4, 0.1


def bench(
    regime: Regime = DEFAULT_REGIME,
    parts: Annotated[
        str | None,
        typer.Option(
            help=f"Comma-separated, of {', '.join(PARTS)} (default: these); or what a study "
            "measures: anytime (time that skipping saves), multipath."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only both ends of the road, fewer and shorter repeats.")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_IMAGES,
            help="Images per step. (default: 64 for nano, else 8; a study has its own)",
        ),
    ] = None,
    networks: Annotated[
        str,
        typer.Option(
            help="Of a study, comma-separated, such as hrnet_w48. (default: the study's own)"
        ),
    ] = "",
    image_size: Annotated[
        str | None,
        typer.Option(help="Of a study, HEIGHTxWIDTH in pixels. (default: the study's own)"),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Repeats of each comparison.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_PROCESSES, help="Of each measure. (default: as a training has)"
        ),
    ] = None,
    device: Device = None,
    data: Annotated[
        str | None, typer.Option(help="folder:PATH for the pipeline. (default: made-up JPEGs)")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for bench.json.")] = Path("bench"),
    as_json: Json = False,
) -> None:
    """Measure speed and memory beside timm and the plain networks, interleaved."""
    road = get_roadmap(regime)
    wanted = _parts(parts)
    if data is not None:  # bad data fails before minutes of other parts
        from convnext_study.data import open_data

        open_data(data)
    make_folder(out)
    settings = _settings(road, batch_size, repeats, threads, device, quick=quick)
    found: dict[str, Any] = {"hardware": _hardware(), "regime": regime, "settings": vars(settings)}
    requested = _requested(wanted, networks, image_size, batch_size, quick=quick)
    for part in wanted:
        found[part] = (
            _measure(part, road, settings, data, quick=quick)
            if part in PARTS
            else _of_study(part, 0)(requested, settings, _report)
        )
    _write(found, out / "bench.json")
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    from convnext_study.benchmarks.report import tables

    own = [_of_study(part, 1)(found[part]) for part in wanted if part not in PARTS]
    print_tables(*tables(found), *own)
    print()
    print(
        f"ratios: median (lowest-highest) of {settings.repeats} interleaved repeats, "
        f"{settings.threads} thread(s) on {settings.device}"
    )
    print(f"written: {out / 'bench.json'}")


def _of_study(name: str, place: int) -> Any:
    """What measures a study, or makes the table of it."""
    study = studies()[name]
    return study.load((study.bench or ("", ""))[place])


def _parts(parts: str | None) -> list[str]:
    if parts is None:
        return list(PARTS)
    from convnext_study.experiments.roadmap_runs import parse_names

    wanted = list(parse_names(parts))
    if not wanted:
        raise UserError(f"--parts: {parts!r} names no part; use some of {', '.join(PARTS)}")
    known = (*PARTS, *(name for name, study in studies().items() if study.bench))
    for name in wanted:
        if name not in known:
            raise UserError(f"--parts: {name!r}; use {', '.join(known)}")
    return wanted


def _requested(
    parts: list[str], networks: str, image_size: str | None, batch: int | None, *, quick: bool
) -> BatchRequest:
    from convnext_study.benchmarks.networks import BatchRequest
    from convnext_study.experiments.roadmap_runs import parse_names

    names = parse_names(networks)
    if (names or image_size) and all(part in PARTS for part in parts):
        option = "--networks" if names else "--image-size"
        raise UserError(f"{option}: is for parts of a study, such as --parts anytime")
    sides = image_size.lower().split("x") if image_size else []
    valid = len(sides) == 2 and all(
        side.isdecimal() and len(side) < 5 and 0 < int(side) <= MOST_PIXELS for side in sides
    )
    if image_size and not valid:
        raise UserError(
            f"--image-size: {image_size!r:.40}; use HEIGHTxWIDTH, as in 512x1024, "
            f"neither above {MOST_PIXELS}"
        )
    size = (int(sides[0]), int(sides[1])) if sides else None
    return BatchRequest(names, size, batch, quick)


def _settings(
    road: Roadmap,
    batch: int | None,
    repeats: int | None,
    threads: int | None,
    device: str | None,
    *,
    quick: bool,
) -> Any:
    import torch

    from convnext_study.benchmarks.networks import Settings
    from convnext_study.launchers.resources import Requested, choose_resources
    from convnext_study.training.runtime import Runtime

    requested = Requested(device=device, threads=threads)
    plan = choose_resources(Runtime(), requested, image_size=road.image_size, runs=1)
    torch.set_num_threads(plan.runtime.threads)
    return Settings(
        repeats=repeats or (QUICK_REPEATS if quick else REPEATS),
        seconds=QUICK_SECONDS if quick else SECONDS,
        batch_size=batch or (8 if road.published else 64),
        threads=plan.runtime.threads,
        device=plan.runtime.device,
    )


def _measure(part: str, road: Roadmap, settings: Any, data: str | None, *, quick: bool) -> Any:
    if part == "networks":
        from convnext_study.benchmarks.networks import networks

        return networks(road, _variants(road, quick=quick), settings, _report)
    if part == "engine_overhead":
        from convnext_study.benchmarks.engine_overhead import engine_overhead

        return engine_overhead(road, settings, _report)
    from convnext_study.benchmarks.pipeline import pipeline

    return pipeline(data, 48 if quick else 192, settings, _report)


def _variants(road: Roadmap, *, quick: bool) -> tuple[Variant, ...]:
    variants = road.variants()
    return (variants[0], variants[-1]) if quick else variants


def _hardware() -> dict[str, Any]:
    from convnext_study.runs.provenance import hardware, versions

    return {**hardware(), "versions": versions()}


def _report(text: str) -> None:
    print(f"measuring: {text}", file=sys.stderr, flush=True)


def _write(found: dict[str, Any], file: Path) -> None:
    from convnext_study.runs.files import write_json

    try:
        write_json(file, found)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from None
