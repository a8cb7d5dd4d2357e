"""Every network of a road map, as the engine runs it, beside its plainest form and timm's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convnext_study.bench.timing import Spread, in_turns, rate, ratio
from convnext_study.bench.workload import (
    Form,
    Load,
    inference_step,
    peak_memory,
    timm_twin,
    training_step,
)
from convnext_study.roadmap import Point, Roadmap


@dataclass(frozen=True)
class Settings:
    """How much is measured: turns, seconds for each measure of a turn, batch, threads, device.

    Without ``memory`` no peak is measured, which takes a process for each network.
    """

    turns: int
    seconds: float
    batch: int
    threads: int
    device: str = "cpu"
    memory: bool = True


def networks(
    road: Roadmap,
    points: Sequence[Point],
    settings: Settings,
    tick: Callable[[str], None],
    image_size: int | None = None,
) -> list[dict[str, Any]]:
    """A row of plain values for each network; equal ones (the first two rows) once.

    ``training`` and ``inference`` hold images/s of each form and the ratios of ours to the
    others', ``latency_ms`` the time of one image alone, ``memory_mb`` the peak of a training step.
    """
    rows: list[dict[str, Any]] = []
    seen = set()
    for point in points:
        if point.spec in seen:
            continue
        seen.add(point.spec)
        tick(f"network {point.name}")
        load = Load(
            point.spec,
            "ours",
            settings.batch,
            image_size or road.image_size,
            road.num_classes,
            settings.device,
        )
        rows.append({"step": point.name, "label": point.label, **_row(load, settings)})
    return rows


def forms_of(load: Load) -> tuple[Form, ...]:
    """The forms in which this network can be had."""
    try:
        timm_twin(load.spec, load.classes)
    except KeyError:
        return ("ours", "plain")
    return ("ours", "plain", "timm")


def _row(load: Load, settings: Settings) -> dict[str, Any]:
    loads = {form: replace(load, form=form) for form in forms_of(load)}
    single = {form: replace(one, batch=1) for form, one in loads.items()}
    latency = _compare(single, inference_step, settings)
    return {
        "batch": load.batch,
        "image_size": load.image_size,
        "training": _compare(loads, training_step, settings),
        "inference": _compare(loads, inference_step, settings),
        "latency_ms": {
            form: 1000 / measured["median"] for form, measured in latency["images_per_s"].items()
        },
        "memory_mb": {
            form: peak_memory(one, settings.threads) if settings.memory else None
            for form, one in loads.items()
        },
    }


def _compare(
    loads: dict[Form, Load], step: Callable[[Load], Callable[[], object]], settings: Settings
) -> dict[str, Any]:
    measures = {
        str(form): rate(step(load), load.batch, settings.seconds) for form, load in loads.items()
    }
    found = in_turns(measures, settings.turns)
    return {
        "images_per_s": {form: Spread.of(values).to_dict() for form, values in found.items()},
        "ratio": {
            form: ratio(found["ours"], values).to_dict()
            for form, values in found.items()
            if form != "ours"
        },
    }
