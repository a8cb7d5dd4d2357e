"""``bench``: how fast it is on this machine, as ratios."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from convnext_study.cli.options import Json, Regime, print_tables
from convnext_study.errors import BadRequest
from convnext_study.roadmap import Point, Roadmap, get_roadmap

PARTS = ("networks", "loop", "pipeline", "growth")
TURNS, QUICK_TURNS = 5, 3
SECONDS, QUICK_SECONDS = 0.4, 0.1
OUR_COMMAND = "train separate_downsampling --epochs 1"


def add_to(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    regime: Regime = "nano",
    parts: Annotated[
        str | None,
        typer.Option(help=f"Comma-separated, of {', '.join(PARTS)}. (default: all; none for peer)"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only both ends of the road, fewer and shorter turns.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a step. (default: 64 for nano, else 8)")
    ] = None,
    turns: Annotated[int | None, typer.Option(min=1, help="Repeats of each comparison.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each measure. (default: as a training has)")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps. (default: the best there is)")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="folder:PATH for the pipeline. (default: made-up JPEGs)")
    ] = None,
    peer: Annotated[
        str | None, typer.Option(help="Another trainer's command, run in turns with ours.")
    ] = None,
    ours: Annotated[
        str, typer.Option(help="Our side of --peer: arguments of convnext-study.")
    ] = OUR_COMMAND,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and the figure.")] = Path(
        "bench"
    ),
    as_json: Json = False,
) -> None:
    """Measure speed and memory beside timm and the plain networks, in interleaved turns."""
    road = get_roadmap(regime)
    wanted = _parts(parts, peer)
    settings = _settings(road, batch, turns, threads, device, quick=quick)
    found: dict[str, Any] = {"machine": _machine(), "regime": regime, "settings": vars(settings)}
    for part in wanted:
        found[part] = _measure(part, road, settings, data, quick=quick)
    if peer is not None:
        from convnext_study.bench.peer import peer as run_peer

        found["peer"] = run_peer(peer, ours, settings.turns, _tick)
    files = _write(found, out)
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    from convnext_study.bench.report import tables

    print_tables(*tables(found))
    print()
    print(
        f"ratios: median (lowest-highest) of {settings.turns} interleaved turns, "
        f"{settings.threads} thread(s) on {settings.device}"
    )
    print("written: " + ", ".join(map(str, files)))


def _parts(parts: str | None, peer: str | None) -> list[str]:
    if parts is None:
        return [] if peer else list(PARTS)
    wanted = [name.strip() for name in parts.split(",") if name.strip()]
    for name in wanted:
        if name not in PARTS:
            raise BadRequest(f"--parts: {name!r}; use {', '.join(PARTS)}")
    return wanted


def _settings(
    road: Roadmap,
    batch: int | None,
    turns: int | None,
    threads: int | None,
    device: str | None,
    *,
    quick: bool,
) -> Any:
    import torch

    from convnext_study.bench.networks import Settings
    from convnext_study.launching.machine import Requested, make_plan
    from convnext_study.training.task import Machine

    requested = Requested(device=device, threads=threads)
    plan = make_plan(Machine(), requested, image_size=road.image_size, runs=1)
    torch.set_num_threads(plan.machine.threads)
    return Settings(
        turns=turns or (QUICK_TURNS if quick else TURNS),
        seconds=QUICK_SECONDS if quick else SECONDS,
        batch=batch or (8 if road.published else 64),
        threads=plan.machine.threads,
        device=plan.machine.device,
    )


def _measure(part: str, road: Roadmap, settings: Any, data: str | None, *, quick: bool) -> Any:
    if part == "networks":
        from convnext_study.bench.networks import networks

        return networks(road, _points(road, quick=quick), settings, _tick)
    if part == "loop":
        from convnext_study.bench.loop import loop

        return loop(road, settings, _tick)
    if part == "growth":
        from convnext_study.bench.growth import growth

        return growth(road, settings, _tick)
    from convnext_study.bench.pipeline import pipeline

    return pipeline(data, 48 if quick else 192, settings, _tick)


def _points(road: Roadmap, *, quick: bool) -> tuple[Point, ...]:
    points = road.points()
    return (points[0], points[-1]) if quick else points


def _machine() -> dict[str, Any]:
    from convnext_study.training.run import hardware, versions

    return {**hardware(), "versions": versions()}


def _tick(text: str) -> None:
    print(f"measuring: {text}", file=sys.stderr, flush=True)


def _write(found: dict[str, Any], out: Path) -> list[Path]:
    from convnext_study.bench.report import draw
    from convnext_study.records import write_json

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "bench.json", found)
        return [out / "bench.json", *draw(found, out)]
    except OSError as error:
        raise BadRequest(f"{out}: cannot be written ({error.strerror})") from None
