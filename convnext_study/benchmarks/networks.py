"""Every network of a road map, as the engine runs it, beside its plainest form and timm's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convnext_study.benchmarks.timing import Spread, interleave, rate, ratio
from convnext_study.benchmarks.workload import (
    Implementation,
    Workload,
    inference_step,
    peak_memory,
    timm_twin,
    training_step,
)
from convnext_study.roadmap import Roadmap, Variant


@dataclass(frozen=True)
class Settings:
    """How much is measured: repeats, seconds per measure, batch, threads, device.

    Without ``memory`` no peak is measured, which takes a process for each network.
    """

    repeats: int
    seconds: float
    batch_size: int
    threads: int
    device: str = "cpu"
    memory: bool = True


@dataclass(frozen=True)
class Requested:
    """What is asked of a study's own measurement; what is left out the study chooses.

    Args:
        networks: names.
        image_size: height and width.
        batch_size: images at a time.
        quick: less of everything.
    """

    networks: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    batch_size: int | None = None
    quick: bool = False


def networks(
    road: Roadmap,
    variants: Sequence[Variant],
    settings: Settings,
    report: Callable[[str], None],
    image_size: int | None = None,
) -> list[dict[str, Any]]:
    """A row of plain values for each network; equal ones (the first two rows) once.

    ``training`` and ``inference`` hold images/s of each form and the ratios of ours to the
    others', ``latency_ms`` the time of one image alone, ``memory_mb`` the peak of a training step.
    """
    rows: list[dict[str, Any]] = []
    seen = set()
    for variant in variants:
        if variant.spec in seen:
            continue
        seen.add(variant.spec)
        report(f"network {variant.name}")
        workload = Workload(
            variant.spec,
            "ours",
            settings.batch_size,
            image_size or road.image_size,
            road.num_classes,
            settings.device,
        )
        rows.append({"step": variant.name, "label": variant.label, **_row(workload, settings)})
    return rows


def implementations_of(workload: Workload) -> tuple[Implementation, ...]:
    """The forms in which this network can be had."""
    try:
        timm_twin(workload.spec, workload.classes)
    except KeyError:
        return ("ours", "plain")
    return ("ours", "plain", "timm")


def _row(workload: Workload, settings: Settings) -> dict[str, Any]:
    loads = {
        implementation: replace(workload, implementation=implementation)
        for implementation in implementations_of(workload)
    }
    single = {implementation: replace(one, batch=1) for implementation, one in loads.items()}
    latency = _compare(single, inference_step, settings)
    return {
        "batch": workload.batch,
        "image_size": workload.image_size,
        "training": _compare(loads, training_step, settings),
        "inference": _compare(loads, inference_step, settings),
        "latency_ms": {
            implementation: 1000 / measured["median"]
            for implementation, measured in latency["images_per_s"].items()
        },
        "memory_mb": {
            implementation: peak_memory(one, settings.threads) if settings.memory else None
            for implementation, one in loads.items()
        },
    }


def _compare(
    workloads: dict[Implementation, Workload],
    step: Callable[[Workload], Callable[[], object]],
    settings: Settings,
) -> dict[str, Any]:
    measures = {
        str(implementation): rate(step(workload), workload.batch, settings.seconds)
        for implementation, workload in workloads.items()
    }
    found = interleave(measures, settings.repeats)
    return {
        "images_per_s": {
            implementation: Spread.of(values).to_dict() for implementation, values in found.items()
        },
        "ratio": {
            implementation: ratio(found["ours"], values).to_dict()
            for implementation, values in found.items()
            if implementation != "ours"
        },
    }
