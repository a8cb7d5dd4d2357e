"""A road map's networks as the engine runs them, beside their plainest form and timm's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convnext_study.benchmarks.timing import Spread, interleave, rate, ratio
from convnext_study.benchmarks.workload import (
    Implementation,
    Workload,
    inference_step,
    timm_twin,
    training_step,
)
from convnext_study.roadmap import Roadmap, Variant
from convnext_study.roadmap.spec import NetSpec


@dataclass(frozen=True)
class Settings:
    """How much is measured: repeats, seconds per measure, batch, threads, device."""

    repeats: int
    seconds: float
    batch_size: int
    threads: int
    device: str = "cpu"


@dataclass(frozen=True)
class BatchRequest:
    """What a study's own measurement is requested for; what is left out the study chooses.

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
) -> list[dict[str, Any]]:
    """A row of plain values for each network; equal ones (the first two rows) once.

    ``training`` and ``inference`` hold images/s of each form and the ratios of ours to the
    others', ``latency_ms`` the time of one image alone.
    """
    distinct: dict[NetSpec, Variant] = {}
    for variant in variants:
        distinct.setdefault(variant.spec, variant)
    rows = []
    for variant in distinct.values():
        report(f"network {variant.name}")
        workload = Workload(
            variant.spec,
            "ours",
            settings.batch_size,
            road.image_size,
            road.num_classes,
            settings.device,
        )
        row = _row(workload, settings)
        rows.append({"step": variant.name, "label": variant.label, **row})
    return rows


def _row(workload: Workload, settings: Settings) -> dict[str, Any]:
    forms: tuple[Implementation, ...] = ("ours", "plain")
    if timm_twin(workload.spec, workload.classes):
        forms = (*forms, "timm")
    loads = {form: replace(workload, implementation=form) for form in forms}
    single = {form: replace(one, batch=1) for form, one in loads.items()}
    latency = _rates(single, inference_step, settings)
    return {
        "batch": workload.batch,
        "image_size": workload.image_size,
        "training": _compare(_rates(loads, training_step, settings)),
        "inference": _compare(_rates(loads, inference_step, settings)),
        "latency_ms": {form: 1000 / Spread.of(rates).median for form, rates in latency.items()},
    }


def _rates(
    workloads: dict[Implementation, Workload],
    step: Callable[[Workload], Callable[[], object]],
    settings: Settings,
) -> dict[Implementation, list[float]]:
    """Images/s of each workload, one value per repeat."""
    measures = {
        name: rate(step(workload), workload.batch, settings.seconds)
        for name, workload in workloads.items()
    }
    return interleave(measures, settings.repeats)


def _compare(rates: dict[Implementation, list[float]]) -> dict[str, Any]:
    return {
        "images_per_s": {form: Spread.of(values).to_dict() for form, values in rates.items()},
        "ratio": {
            form: ratio(rates["ours"], values).to_dict()
            for form, values in rates.items()
            if form != "ours"
        },
    }
