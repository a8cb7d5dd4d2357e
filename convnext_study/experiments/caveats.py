"""Warnings about what of a planned study does not compare with the paper, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convnext_study.data.sources import IMAGENET, DatasetSize
from convnext_study.experiments.estimate import CostEstimate
from convnext_study.recipes import (
    MODERN,
    MODERN_B,
    PUBLISHED,
    Recipe,
    images_at_a_time,
    make_recipe,
)
from convnext_study.results.subset_results import RECIPE
from convnext_study.roadmap.extensions import SECTION
from convnext_study.roadmap.paper import SAME_SETTING, published_row
from convnext_study.runs.records import Run
from convnext_study.training.runtime import batch_norm_warning

PAPER_SEEDS = 3
# Each has a sentence of its own, or changes no result.
_COVERED = {
    "name",
    "epochs",
    "global_batch_size",
    "image_size",
    "ema",
    "eval_weights",
    "sync_bn",
}


def caveats(
    runs: Sequence[Run], estimates: Sequence[CostEstimate], sizes: Mapping[str, DatasetSize]
) -> list[str]:
    """Warnings about rows of the published road maps, each once; none if the plan is the paper's.
    ``sizes`` are those of the data, by URI."""
    rows = [
        (run, plan, make_recipe(run.recipe))
        for run, plan in zip(runs, estimates, strict=True)
        if run.metadata.get("published") and run.metadata.get(RECIPE) in PUBLISHED
    ]
    texts = [_data(sizes[run.data]) for run, _, _ in rows]
    for run, plan, recipe in rows:
        texts += _recipe(recipe, PUBLISHED[run.metadata[RECIPE]], plan)
    texts += _unpublished([run for run, _, _ in rows])
    texts += _batch_norm([(plan, recipe) for _, plan, recipe in rows])
    seeds = {run.seed for run, _, _ in rows if run.metadata["regime"] == "t"}
    if 0 < len(seeds) < PAPER_SEEDS:
        paper = f"the paper's Table 10 has means and standard deviations over {PAPER_SEEDS}"
        texts.append(f"{len(seeds)} seed(s): {paper}")
    return list(dict.fromkeys(filter(None, texts)))


def _data(dataset: DatasetSize) -> str:
    if dataset[:3] == IMAGENET[:3]:
        return ""
    return (
        f"data: {dataset.train:,} training and {dataset.val:,} validation images of "
        f"{dataset.classes} classes are not ImageNet-1K's; no accuracy is comparable with the "
        "paper's"
    )


def _recipe(recipe: Recipe, paper: Recipe, plan: CostEstimate) -> list[str]:
    """How a row's recipe differs from the paper's."""
    texts = []
    if recipe.epochs != paper.epochs:
        texts.append(f"{recipe.epochs} epochs, published {paper.epochs}")
    if recipe.global_batch_size != paper.global_batch_size:
        texts.append(
            f"global batch {recipe.global_batch_size}, published {paper.global_batch_size} (the "
            "learning rate is scaled linearly, which does not make them equal)"
        )
    if plan.image_size != paper.image_size:
        texts.append(f"images of {plan.image_size}, published {paper.image_size}")
    if recipe.ema:
        whose = "its" if recipe.eval_weights == "ema" else "not its"
        texts.append(f"EMA is on, but off on the paper's road ({whose} result is used)")
    values, published = dict(recipe), dict(paper)
    changed = [key for key in values if key not in _COVERED and values[key] != published[key]]
    if changed:
        texts.append(f"also differs from {paper.name} in {', '.join(changed)}")
    return [f"recipe {recipe.name}: {text}" for text in texts]


def _unpublished(runs: Sequence[Run]) -> list[str]:
    """What of these rows' trainings the paper leaves open, or contradicts by its numbers."""
    texts = []
    modern = [run for run in runs if run.metadata[RECIPE] == MODERN.name]
    middle = [run.name for run in modern if run.metadata["regime"] == "b"]
    if middle:
        texts.append(
            f"stochastic depth is not published for {_rows(middle)} of the ResNet-200 road: they "
            f"use ConvNeXt-T's {MODERN.drop_path}, ConvNeXt-B {MODERN_B.drop_path}"
        )
    extensions = [run.name for run in modern if run.metadata["section"] == SECTION]
    if extensions:
        texts.append(f"no recipe is published for {_rows(extensions)}: they use the road's")
    if any(run.model.args.get("layer_scale") is None for run in modern):
        texts.append(
            "layer scale is in no row of the road, although the paper's setting has it "
            f"({SAME_SETTING!r}, with layer scale of 1e-6): `study layer_scale` trains the road "
            "with it"
        )
    for run in runs:
        row = published_row(run.metadata["regime"], run.name)
        texts += [f"{run.name}: {row.origin}"] if row and row.origin else []
    return texts


def _rows(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    first, count = distinct[0], len(distinct)
    return first if count == 1 else f"{count} rows ({first} to {distinct[-1]})"


def _batch_norm(rows: Sequence[tuple[CostEstimate, Recipe]]) -> list[str]:
    by_text: dict[str, list[str]] = {}
    for plan, recipe in rows:
        devices = plan.global_batch_size // plan.batch_per_device if recipe.sync_bn else 1
        text = batch_norm_warning(plan.micro_batch_size * devices, images_at_a_time(recipe))
        if text and plan.norm == "batch":
            by_text.setdefault(text, []).append(plan.step)
    return [f"{_rows(steps)}: {text}" for text, steps in by_text.items()]
