"""The time that pruned networks take, measured after removal: fewer MACs need not be faster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.benchmarks.timing import Spread, interleave, one_thread, rate
from convnext_study.experiments.dataset_size import dataset_size
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.rows import Row
from convnext_study.studies.pruning.sizes import Images, network_of

if TYPE_CHECKING:
    from torch import nn

BATCH, REPEATS, SECONDS = 32, 5, 0.1
CLOCK = time.process_time  # of this process alone: others may use the machine too
NOTE = (
    f"latency: ms of processor time of one image in batches of {BATCH}, forward, float32, one "
    f"thread, channels last, median of {REPEATS} turns with all networks in turn; masked networks "
    "take the time of whole ones."
)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one image."""

    median: float
    low: float
    high: float


def measure(rows: Mapping[str, Row]) -> dict[str, Latency]:
    """Of each row's network; equal ones are measured once, all of them in turn."""
    keys = {name: _key(row) for name, row in rows.items()}
    models = {keys[name]: row for name, row in rows.items()}
    with one_thread():
        steps = {key: _step(row.model, _images(row)) for key, row in models.items()}
        measures = {key: rate(step, BATCH, SECONDS, CLOCK) for key, step in steps.items()}
        found = interleave(measures, REPEATS)
    by_key = {key: _latency(Spread.of(rates)) for key, rates in found.items()}
    return {name: by_key[key] for name, key in keys.items()}


def _key(row: Row) -> str:
    return f"{row.model.model_dump_json()} {_images(row)}"


def _images(row: Row) -> Images:
    about = row.records[0].manifest.get("data", {})
    size = row.run.recipe["image_size"]
    if size is None:
        size = dataset_size(row.run.data, images=None, classes=0, image_size=0).image_size
    return Images(int(size), int(about.get("classes", 10)))


def _step(model: ModelRef, images: Images) -> Any:
    import torch

    net: nn.Module = network_of(model, images.classes).eval()
    net.to(memory_format=torch.channels_last)
    batch = torch.zeros(BATCH, *images.shape).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode():
            net(batch)

    return step


def _latency(images_per_s: Spread) -> Latency:
    return Latency(1000 / images_per_s.median, 1000 / images_per_s.high, 1000 / images_per_s.low)
