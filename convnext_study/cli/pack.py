"""``pack`` decodes image files once and stores them smaller, so that training reads faster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from convnext_study.cli.options import CORRUPT, MAX_PROCESSES, OnCorruptImage, console
from convnext_study.errors import EXIT_STOPPED
from convnext_study.recipes.recipe import LEAST_PIXELS, MOST_PIXELS

SECONDS = 10.0  # between lines if there is no terminal


def pack(
    data: Annotated[str, typer.Argument(help="Image files with classes, for example folder:PATH.")],
    out: Annotated[Path, typer.Argument(help="Output folder, to use as --data packed:OUT.")],
    side: Annotated[
        int,
        typer.Option(
            min=LEAST_PIXELS,
            max=MOST_PIXELS,
            help="Shrink the short side to this; smaller images are kept.",
        ),
    ] = 256,
    raw: Annotated[
        bool, typer.Option("--raw", help="Store raw pixels: larger, but faster to read.")
    ] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 90,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_PROCESSES, help="Parallel processes. (default: one per core)"),
    ] = None,
    corrupt_images: Annotated[OnCorruptImage, typer.Option(help=CORRUPT)] = "stop",
) -> None:
    """Decode and resize images once, and write them to shards that are faster to read.

    If stopped, run the same command again to write the missing shards.
    """
    from convnext_study.data.packing import Packing
    from convnext_study.data.packing import pack as write_pack
    from convnext_study.launchers.resources import cores

    packing = Packing(side, raw, quality, corrupt_images)
    start, printed = time.monotonic(), 0.0

    def report(done: int, images: int) -> None:
        nonlocal printed
        now = time.monotonic()
        if done < images and now - printed < SECONDS and not terminal.is_terminal:
            return
        printed = now
        line = f"{now - start:7.1f}s  {done:,} of {images:,} images"
        print(line, end="\r" if terminal.is_terminal and done < images else "\n", flush=True)

    terminal = console()
    try:
        packed = write_pack(data, out, packing, jobs or cores(), report)
    except KeyboardInterrupt:
        typer.echo("\nstopped; rerun the same command to resume", err=True)
        raise typer.Exit(EXIT_STOPPED) from None
    size = sum(sum(part.shards) for part in packed.parts.values())
    if empty := sum(part.empty for part in packed.parts.values()):
        print(f"{empty:,} images could not be read and are missing from the packed data")
    print(f"{out}: {size / 1e9:.2f} GB; train with --data packed:{out}")
