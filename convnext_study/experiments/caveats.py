"""What of a planned study will not compare with the paper, each in one line."""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.dataset_size import (
    IMAGENET_CLASSES,
    IMAGENET_TRAIN,
    IMAGENET_VAL,
    DatasetSize,
)
from convnext_study.experiments.estimate import CostEstimate
from convnext_study.recipes import RECIPES, make_recipe
from convnext_study.results.subset_results import RECIPE
from convnext_study.roadmap import Roadmap
from convnext_study.runs.records import Run

SMALL_BATCH = 32  # images; BatchNorm's statistics over fewer are noisy
PAPER_SEEDS = 3
# Each is told in a sentence of its own, or changes no result.
_TOLD = {
    "name",
    "epochs",
    "global_batch_size",
    "image_size",
    "ema",
    "eval_weights",
    "sync_bn",
}


def caveats(
    road: Roadmap, runs: Sequence[Run], estimates: Sequence[CostEstimate], dataset: DatasetSize
) -> list[str]:
    """Warnings in plain words, none where the plan is the paper's."""
    return [
        *_network(road),
        *_data(dataset),
        *_recipes(runs, estimates),
        *_batch_norm(runs, estimates),
        *_seeds(road, runs),
    ]


def _network(road: Roadmap) -> list[str]:
    if road.published:
        return []
    return [
        f"regime {road.regime}: these networks are ours; the paper has no figure for them, and a "
        "GPU is nowhere near the assumed share of its peak on networks so small"
    ]


def _data(dataset: DatasetSize) -> list[str]:
    found = (dataset.train, dataset.val, dataset.classes)
    if found == (IMAGENET_TRAIN, IMAGENET_VAL, IMAGENET_CLASSES):
        return []
    return [
        f"data: {dataset.train:,} training and {dataset.val:,} validation images of "
        f"{dataset.classes} "
        "classes are not ImageNet-1K's; no accuracy compares with the paper's"
    ]


def _recipes(runs: Sequence[Run], estimates: Sequence[CostEstimate]) -> list[str]:
    """How the recipes differ from those that the paper trains their rows with, each once."""
    told: dict[str, None] = {}
    for run, plan in zip(runs, estimates, strict=True):
        recipe = make_recipe(run.recipe)
        paper = RECIPES[run.metadata[RECIPE]]
        name = f"recipe {recipe.name}"
        if recipe.epochs != paper.epochs:
            told[f"{name}: {recipe.epochs} epochs, published {paper.epochs}"] = None
        if recipe.global_batch_size != paper.global_batch_size:
            told[
                f"{name}: global batch {recipe.global_batch_size}, published "
                f"{paper.global_batch_size} (the "
                "learning rate is scaled linearly, which does not make them equal)"
            ] = None
        if plan.image_size != paper.image_size:
            told[f"{name}: images of {plan.image_size}, published {paper.image_size}"] = None
        if recipe.ema:
            which = "its" if recipe.eval_weights == "ema" else "not its"
            told[f"{name}: EMA is on, off on the paper's road ({which} result is used)"] = None
        given, published = dict(recipe), dict(paper)
        other = [key for key in given if key not in _TOLD and given[key] != published[key]]
        if other:
            told[f"{name}: differs from {paper.name} also in {', '.join(other)}"] = None
    return list(told)


def _batch_norm(runs: Sequence[Run], estimates: Sequence[CostEstimate]) -> list[str]:
    few: dict[int, list[str]] = {}
    for run, plan in zip(runs, estimates, strict=True):
        devices = 1
        if make_recipe(run.recipe).sync_bn:
            devices = plan.global_batch_size // plan.batch_per_device
        seen = plan.micro_batch_size * devices
        if plan.norm == "batch" and seen < SMALL_BATCH:
            few.setdefault(seen, []).append(plan.step)
    return [
        f"BatchNorm sees {seen} images at a time, under {SMALL_BATCH}, in "
        f"{len(dict.fromkeys(steps))} rows ({steps[0]} to {steps[-1]}): they are handicapped "
        "against the LayerNorm rows; use fewer devices, a larger micro batch or sync_bn"
        for seen, steps in few.items()
    ]


def _seeds(road: Roadmap, runs: Sequence[Run]) -> list[str]:
    seeds = len({run.seed for run in runs})
    if seeds >= PAPER_SEEDS or road.regime != "t":
        return []
    paper = f"the paper's Table 10 has means and standard deviations over {PAPER_SEEDS}"
    return [f"{seeds} seed(s): {paper}"]
