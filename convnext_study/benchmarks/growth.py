"""How time grows with runs and images: ``python -m convnext_study.benchmarks.growth``.

The table is in docs/performance.md. A constant time per run or image means linear growth.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from convnext_study.benchmarks.timing import interleave, timed

RUNS, IMAGES, CLASSES = (100, 1000, 3000), (1000, 10_000, 100_000), 100
Seconds = dict[str, dict[int, float]]  # of a job, by the number of runs or images


def measure(runs: Sequence[int] = RUNS, images: Sequence[int] = IMAGES) -> Seconds:
    """CPU seconds to write a report's page, to find all runs done (as a repeated command does), to
    open a ``folder:`` of empty files, and to list its names and sizes; the minimum of three."""
    from convnext_study.data import open_data
    from convnext_study.experiments.study_file import recorded
    from convnext_study.report.write import write_page

    with tempfile.TemporaryDirectory() as root:
        studies = {size: Path(root) / f"runs{size}" for size in runs}
        folders = {size: Path(root) / f"images{size}" for size in images}
        write_runs(studies)
        for size, folder in folders.items():
            _touch(folder, size)
        return {
            "a report's page": _seconds(
                studies, lambda folder: write_page(folder, folder, lambda _: [], refresh=1)
            ),
            "finished runs again": _seconds(studies, recorded),
            "opening images": _seconds(folders, lambda folder: open_data(f"folder:{folder}")),
            "listing images": _seconds(folders, _list),
        }


def _seconds(folders: dict[int, Path], work: Callable[[Path], object]) -> dict[int, float]:
    def once(folder: Path) -> float:
        return timed(partial(work, folder), time.process_time)[1]

    times_by_size = interleave({size: partial(once, folder) for size, folder in folders.items()}, 3)
    return {size: min(times) for size, times in times_by_size.items()}


def write_runs(folders: dict[int, Path]) -> None:
    """Write finished runs of one network with different seeds: copies of one training."""
    from convnext_study.experiments.roadmap_runs import roadmap_runs
    from convnext_study.roadmap import get_roadmap
    from convnext_study.runs.files import LOG, RESULT, RUN, RUNS, read_json, write_json
    from convnext_study.training.loop import train

    road = get_roadmap("nano")
    recipe: dict[str, Any] = {"recipe": "small", "changes": {"epochs": 1, "warmup_epochs": 0}}
    (run,) = roadmap_runs(road, road.variants()[-1:], data="synthetic:4,64,64", seeds=[0], **recipe)
    with tempfile.TemporaryDirectory() as folder_name:
        train(run, trained := Path(folder_name) / "run")
        manifest = read_json(trained / RUN)
        contents = {name: (trained / name).read_bytes() for name in (LOG, RESULT)}
    for count, folder in folders.items():
        for seed in range(count):
            new = run.model_copy(update={"seed": seed})
            (path := folder / RUNS / new.id).mkdir(parents=True)
            write_json(path / RUN, {**manifest, "key": new.key, "run": new.model_dump(mode="json")})
            for name, content in contents.items():
                (path / name).write_bytes(content)


def _touch(folder: Path, count: int) -> None:
    for number in range(count + CLASSES):
        part = folder / ("train" if number < count else "val") / f"class{number % CLASSES}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{number:07}.jpg").touch()


def _list(folder: Path) -> int:
    entries = (entry for top, *_ in os.walk(folder) for entry in os.scandir(top))
    return sum(entry.stat().st_size for entry in entries)


if __name__ == "__main__":
    for job, seconds in measure().items():
        cells = [f"{size:,}: {1e6 * took / size:,.1f} µs each" for size, took in seconds.items()]
        print("; ".join([job, *cells]))
