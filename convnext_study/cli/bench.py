"""``bench``: how fast it is on this machine, as ratios."""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.benchmarks import PARTS, Settings
from convnext_study.cli.options import (
    DEVICE,
    MACHINE,
    OTHER,
    count,
    option,
    print_json,
    print_tables,
    with_options,
)
from convnext_study.errors import UserError, did_you_mean
from convnext_study.imports import studies
from convnext_study.recipes.recipe import MOST_IMAGES, MOST_PIXELS
from convnext_study.roadmap import DEFAULT_REGIME, get_roadmap

if TYPE_CHECKING:
    from convnext_study.report.tables import Table

WHAT = "What to measure"


@dataclass(frozen=True)
class BenchOptions:
    """The options of ``bench``."""

    parts: str = option(
        WHAT,
        "Parts to measure, comma-separated; studies add anytime (time saved by skipping) and "
        "multipath.",
        ",".join(PARTS),
    )
    regime: str = option(WHAT, "Which road map: t, b or nano.", DEFAULT_REGIME)
    quick: bool = option(
        WHAT, "Only the two ends of the road, with fewer and shorter repeats.", False
    )
    batch_size: int | None = count(
        WHAT,
        "Images per step. (default: 64 for nano, otherwise 8; studies have their own)",
        most=MOST_IMAGES,
    )
    networks: str = option(
        WHAT,
        "For a study's part: networks, comma-separated, such as hrnet_w48. "
        "(default: the study's own)",
        "",
    )
    image_size: str | None = option(
        WHAT, "For a study's part: HEIGHTxWIDTH in pixels. (default: the study's own)"
    )
    data: str | None = option(
        WHAT, "Images for the pipeline, as folder:PATH. (default: synthetic JPEGs)"
    )
    repeats: int | None = count(
        WHAT, "Repeats of each comparison. (default: 5; with --quick 3)", most=10_000
    )
    threads: int | None = count(MACHINE, "Threads per measurement. (default: as in training)")
    device: str | None = option(MACHINE, DEVICE)
    out: Path = option(OTHER, "Folder for bench.json.", Path("bench"))
    as_json: bool = option(OTHER, "Print JSON, for machines.", False, "--json")


@with_options
def bench(options: BenchOptions) -> None:
    """Benchmark against timm and the plain networks, with interleaved repeats."""
    import torch

    from convnext_study.experiments.roadmap_runs import parse_names
    from convnext_study.launchers.resources import Machine, choose_resources
    from convnext_study.runs.files import make_folder, write_json
    from convnext_study.runs.folder import hardware, versions

    road, parts = get_roadmap(options.regime), _parts(parse_names(options.parts))
    names, size = parse_names(options.networks), _image_size(options.image_size)
    if (names or size) and not set(parts) - set(PARTS):
        name = "--networks" if names else "--image-size"
        raise UserError(f"{name}: applies only to parts of a study, such as --parts anytime")
    if options.data is not None:  # bad data fails before minutes of other parts
        from convnext_study.data import open_data
        from convnext_study.data.sources import OF_IMAGES

        open_data(options.data, OF_IMAGES)
    make_folder(options.out)
    machine = Machine(device=options.device, threads=options.threads)
    runtime = choose_resources(machine, image_size=road.image_size, runs=1).runtime
    torch.set_num_threads(runtime.threads)
    settings = Settings(
        regime=road.regime,
        repeats=options.repeats or (3 if options.quick else 5),
        seconds=0.1 if options.quick else 0.4,
        threads=runtime.threads,
        device=runtime.device,
        batch_size=options.batch_size,
        quick=options.quick,
        data=options.data,
        networks=names,
        image_size=size,
    )
    measured = {part: _measure(part, settings) for part in parts}
    results: dict[str, Any] = {
        "hardware": {**hardware(), "versions": versions()},
        "settings": dataclasses.asdict(settings),
        **{part: rows for part, (rows, _) in measured.items()},
    }
    write_json(options.out / "bench.json", results)
    if options.as_json:
        print_json(results)
        return
    print_tables(*(table for _, table in measured.values()))
    print(
        f"\n\nratios: median (minimum-maximum) of {settings.repeats} interleaved repeats, "
        f"{settings.threads} thread(s) on {settings.device}"
    )
    print(f"written: {options.out / 'bench.json'}")


def _measure(part: str, settings: Settings) -> tuple[list[dict[str, Any]], Table[Any]]:
    """Rows of JSON values, and their table."""
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


def _parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    available = [*PARTS, *(name for name, study in studies().items() if study.bench)]
    for name in parts or ("",):
        if name not in available:
            raise UserError(f"--parts: {name!r}{did_you_mean(name, available)}")
    return parts


def _image_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = [int(side) for side in re.findall(r"\d{1,4}", text)]
    if not re.fullmatch(r"\d{1,4}x\d{1,4}", text) or not all(
        0 < side <= MOST_PIXELS for side in sides
    ):
        raise UserError(
            f"--image-size: {text!r:.40}; use HEIGHTxWIDTH, such as 512x1024, at most "
            f"{MOST_PIXELS} each"
        )
    return sides[0], sides[1]
