"""Composing the images of ``clutter`` beside training on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from convnext_study.benchmarks.networks import Settings
from convnext_study.benchmarks.timing import Spread, interleave, rate, ratio
from convnext_study.benchmarks.workload import Workload, training_step
from convnext_study.roadmap import Roadmap, Variant

DATA = "clutter"


def composition(
    road: Roadmap,
    variants: Sequence[Variant],
    settings: Settings,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """For each network, images composed a second over images trained on: how little it costs.

    Both work on whole batches in turn, with the same threads; composing takes one alone.
    """
    from convnext_study.data import open_data
    from convnext_study.data.loader import train_batches
    from convnext_study.recipes import MODERN_COMPOSED

    data = open_data(DATA)
    recipe = MODERN_COMPOSED.replace(global_batch_size=settings.batch_size)
    batches = itertools.chain.from_iterable(
        train_batches(data, recipe, 0, epoch) for epoch in itertools.count()
    )
    seconds, batch = settings.seconds, settings.batch_size
    composed = rate(lambda: next(batches), batch, seconds)
    rows = []
    for variant in variants:
        report(f"composition beside {variant.name}")
        workload = Workload(
            variant.spec, "ours", batch, data.size, data.num_classes, settings.device
        )
        trained = rate(training_step(workload), batch, seconds)
        found = interleave({"composed": composed, "trained": trained}, settings.repeats)
        rows.append(
            {
                "step": variant.name,
                "images_per_s": {name: Spread.of(one).to_dict() for name, one in found.items()},
                "ratio": ratio(found["composed"], found["trained"]).to_dict(),
            }
        )
    return rows
