"""Study folders as the engine would leave them, without the training: for tests of what reads them.

The numbers are made up by a seeded generator, in the shape that real runs have.
"""

from __future__ import annotations

import fcntl
import json
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.roadmap import Variant, get_roadmap
from convnext_study.runs.files import LOCK, LOG, RESULT, RUN, write_json
from convnext_study.runs.metrics import Metric, Samples
from convnext_study.runs.records import FORMAT, Epoch, Record, Result, Run, Status


def _dice(name: str) -> random.Random:
    return random.Random(name)


def fake_run(variant: Variant, seed: int = 0, *, data: str = "digits", **recipe: Any) -> Run:
    """What the road-map command would ask for a row; ``recipe`` changes some of its fields."""
    road = get_roadmap(variant.regime)
    kind = "published" if road.published else "small"
    (run,) = roadmap_runs(road, [variant], data="digits", seeds=[seed], recipe=kind)
    fields = {name: run.recipe[name] for name in ("name", "epochs", "global_batch_size")}
    return run.model_copy(update={"data": data, "recipe": {**fields, **recipe}})


def fake_runs(
    regime: str = "nano", seeds: Iterable[int] = (0,), *, data: str = "digits", **recipe: Any
) -> list[Run]:
    """Every row of a road map, for every seed."""
    variants = get_roadmap(regime).variants()
    return [fake_run(variant, seed, data=data, **recipe) for seed in seeds for variant in variants]


def fake_result(
    run: Run, top1: float = 97.0, *, val_images: int = 599, epochs: int | None = None, **more: Any
) -> Result:
    """A result of about that accuracy: the nearest that so many images can show."""
    right = round(top1 / 100 * val_images)
    order = np.random.default_rng(zlib.crc32(run.id.encode())).permutation(val_images)
    cost = {"macs": 9_300_000, "params": 215_000, "activations": 310_000}
    cost.update({name: more.pop(name) for name in cost.keys() & more.keys()})
    fields = {
        "metrics": {
            "top1": Metric(
                value=100 * right / val_images,
                label="top-1",
                samples=Samples.of_bits(more.pop("bits", order < right)),
            ),
            "val_loss": Metric(value=0.1, label="validation loss", unit="", higher_is_better=False),
        },
        "primary": "top1",
        "costs": {"network": cost},
        "val_images": val_images,
        "images_per_s": 1400.0,
        "seconds": 9.1,
        "epochs": epochs or run.recipe["epochs"],
    }
    return Result(**{**fields, **more})


def fake_record(run: Run, result: Result | None = None, epochs: Iterable[Epoch] = ()) -> Record:
    """A record without a folder, unfinished without a result."""
    return Record(
        folder=Path("none"),
        run=run,
        manifest={},
        epochs=list(epochs),
        events=[],
        result=result,
        status="done" if result else "unfinished",
    )


def fake_epochs(run: Run, top1: float, count: int | None = None) -> list[Epoch]:
    """A curve that ends near ``top1`` when all epochs are there."""
    total = run.recipe["epochs"]
    noise = _dice(run.id)
    return [
        Epoch(
            epoch=epoch,
            epochs=total,
            loss=2.3 * 0.55**epoch + 0.05,
            lr=2e-3 * (1 - epoch / total),
            metrics={
                "top1": top1 if epoch == total else max(0, top1 - 60 * 0.5**epoch - noise.random()),
                "val_loss": 2.2 * 0.6**epoch + 0.05,
            },
            primary="top1",
            label="top-1",
            unit="%",
            seconds=0.9,
            images_per_s=1400 + 20 * noise.random(),
        )
        for epoch in range(1, (total if count is None else count) + 1)
    ]


def write_run(
    folder: Path,
    run: Run,
    *,
    status: Status = "done",
    top1: float = 97.0,
    epochs: int | None = None,
    result: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run's folder under ``folder/runs``. A ``running`` one needs `locked` to look alive.

    ``epochs`` is how far an unfinished run got (2 if not given); ``result`` changes fields of it.
    """
    path = folder / "runs" / run.id
    path.mkdir(parents=True)
    about = {
        "format": FORMAT,
        "key": run.key,
        "run": run.model_dump(mode="json"),
        "versions": {"python": "3.11.7", "torch": "2.14.1", "timm": "1.0.31"},
        "commit": "0123456789abcdef",
        "hardware": {"system": "Linux", "processor": "x86_64", "cores": 2},
    }
    write_json(path / RUN, about)
    if status == "new":
        return path
    made = fake_epochs(run, top1, None if status == "done" else 2 if epochs is None else epochs)
    lines: list[dict[str, Any]] = [{"event": "started", "step": 0}]
    lines += [one.model_dump() for one in made]
    if status == "failed":
        lines.append({"event": "failed", "reason": "TrainingError: the loss is nan at step 41"})
    if status == "done":
        outcome = fake_result(run, top1, **(result or {}))
        write_json(path / RESULT, outcome.model_dump())
        lines.append({"event": "done", "top1": outcome.value})
    (path / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's lock, as a living training does."""
    with (folder / LOCK).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_study(
    folder: Path,
    runs: Iterable[Run],
    *,
    top1: Mapping[str, float] | None = None,
    spread: float = 0.4,
    status: Mapping[str, Status] | None = None,
    **result: Any,
) -> Path:
    """Write many runs. By default accuracy grows along the road, with noise between seeds.

    ``top1`` and ``status`` are by name; ``result`` changes fields of every result.
    """
    for run in runs:
        noise = _dice(f"{run.name} {run.seed}")
        place = run.metadata.get("order", 0)
        base = (top1 or {}).get(run.name, 95.6 + 0.14 * place)
        macs = round(12e6 * (0.6 + 0.5 * _dice(run.name).random()))
        write_run(
            folder,
            run,
            status=(status or {}).get(run.name, "done"),
            top1=min(100.0, max(0.0, base + noise.gauss(0, spread) if spread else base)),
            result={"macs": macs, **result},
        )
    return folder
