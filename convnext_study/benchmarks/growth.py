"""How time grows with runs and images: ``python -m convnext_study.benchmarks.growth``.

Its table stands in docs/performance.md. What takes the same time for each run or image is linear.
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
Seconds = dict[str, dict[int, float]]  # of a job, by how many runs or images


def measure(runs: Sequence[int] = RUNS, images: Sequence[int] = IMAGES) -> Seconds:
    """Seconds of a processor for the page of a report, for finding all runs done, as a command
    that is given again does, for opening a ``folder:`` of empty files, and for listing names and
    sizes there; of each the least of three."""
    from convnext_study.data import open_data
    from convnext_study.experiments.study_file import recorded
    from convnext_study.report.write import write_page

    with tempfile.TemporaryDirectory() as place:
        studies = {size: Path(place) / f"runs{size}" for size in runs}
        folders = {size: Path(place) / f"images{size}" for size in images}
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


def _seconds(at: dict[int, Path], work: Callable[[Path], object]) -> dict[int, float]:
    def once(folder: Path) -> float:
        return timed(partial(work, folder), time.process_time)[1]

    found = interleave({size: partial(once, folder) for size, folder in at.items()}, 3)
    return {size: min(times) for size, times in found.items()}


def write_runs(folders: dict[int, Path]) -> None:
    """Finished runs of one network that differ in their seeds: a training, written many times."""
    from convnext_study.experiments.roadmap_runs import roadmap_runs
    from convnext_study.roadmap import get_roadmap
    from convnext_study.runs.files import LOG, RESULT, RUN, RUNS, read_json, write_json
    from convnext_study.training.loop import train

    road = get_roadmap("nano")
    asked: dict[str, Any] = {"recipe": "small", "changes": {"epochs": 1, "warmup_epochs": 0}}
    (run,) = roadmap_runs(road, road.variants()[-1:], data="synthetic:4,64,64", seeds=[0], **asked)
    with tempfile.TemporaryDirectory() as place:
        train(run, done := Path(place) / "run")
        about = read_json(done / RUN)
        others = {one: (done / one).read_bytes() for one in (LOG, RESULT)}
    for count, folder in folders.items():
        for seed in range(count):
            one = run.model_copy(update={"seed": seed})
            (into := folder / RUNS / one.id).mkdir(parents=True)
            write_json(into / RUN, {**about, "key": one.key, "run": one.model_dump(mode="json")})
            for name, content in others.items():
                (into / name).write_bytes(content)


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
