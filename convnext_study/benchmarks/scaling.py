"""How the cost of a training step grows with image size, batch and depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from convnext_study.benchmarks.networks import Settings
from convnext_study.benchmarks.timing import Spread, interleave, rate, ratio
from convnext_study.benchmarks.workload import Workload, training_step
from convnext_study.roadmap import Roadmap
from convnext_study.roadmap.spec import NetSpec

FACTORS = (1, 2, 3)


def scaling(
    road: Roadmap, settings: Settings, report: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """For the last network of a road: the seconds an image takes, as multiples of the first value.

    ``macs`` is the same multiple of its multiply-accumulates, which would be the growth if
    arithmetic were all. The batch is halved and doubled, not the work an image is.
    """
    base = Workload(
        road.variants()[-1].spec,
        "ours",
        settings.batch_size,
        road.image_size,
        road.num_classes,
        settings.device,
    )
    ways: dict[str, list[tuple[int, Workload]]] = {
        "image_size": [
            (size, replace(base, image_size=size))
            for size in (base.image_size * factor for factor in FACTORS)
        ],
        "batch": [
            (batch, replace(base, batch=batch))
            for batch in (max(base.batch // 4, 1), base.batch, base.batch * 2)
        ],
        "blocks": [
            (sum(spec.depths), replace(base, spec=spec))
            for spec in (_deeper(base.spec, factor) for factor in FACTORS)
        ],
    }
    found = {}
    for name, values in ways.items():
        report(f"growth with {name}")
        found[name] = _compare(values, settings)
    return found


def _deeper(spec: NetSpec, factor: int) -> NetSpec:
    first, second, third, fourth = (depth * factor for depth in spec.depths)
    return spec.replace(depths=(first, second, third, fourth))


def _compare(values: Sequence[tuple[int, Workload]], settings: Settings) -> list[dict[str, Any]]:
    from convnext_study import cost

    measures = {
        str(value): rate(training_step(workload), workload.batch, settings.seconds)
        for value, workload in values
    }
    found = interleave(measures, settings.repeats)
    macs = {
        value: cost.count_spec(workload.spec, workload.image_size, workload.classes).macs
        for value, workload in values
    }
    first = values[0][0]
    return [
        {
            "value": value,
            "images_per_s": Spread.of(found[str(value)]).to_dict(),
            "seconds_an_image": ratio(found[str(first)], found[str(value)]).to_dict(),
            "macs": macs[value] / macs[first],
        }
        for value, _ in values
    ]
