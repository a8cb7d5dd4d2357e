"""What of a planned study will not compare with the paper, each in one line."""

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
    runs: Sequence[Run], estimates: Sequence[CostEstimate], sizes: Mapping[str, DatasetSize]
) -> list[str]:
    """Warnings in plain words about rows of the published road maps, each once; none where the plan
    is the paper's. ``sizes`` are those of the data, by URI."""
    rows = [
        (run, plan, make_recipe(run.recipe))
        for run, plan in zip(runs, estimates, strict=True)
        if run.metadata.get("published") and run.metadata.get(RECIPE) in PUBLISHED
    ]
    found = [_data(sizes[run.data]) for run, _, _ in rows]
    for run, plan, recipe in rows:
        found += _recipe(recipe, PUBLISHED[run.metadata[RECIPE]], plan)
    found += _unpublished([run for run, _, _ in rows])
    found += _batch_norm([(plan, recipe) for _, plan, recipe in rows])
    seeds = {run.seed for run, _, _ in rows if run.metadata["regime"] == "t"}
    if 0 < len(seeds) < PAPER_SEEDS:
        paper = f"the paper's Table 10 has means and standard deviations over {PAPER_SEEDS}"
        found.append(f"{len(seeds)} seed(s): {paper}")
    return list(dict.fromkeys(filter(None, found)))


def _data(dataset: DatasetSize) -> str:
    if dataset[:3] == IMAGENET[:3]:
        return ""
    return (
        f"data: {dataset.train:,} training and {dataset.val:,} validation images of "
        f"{dataset.classes} classes are not ImageNet-1K's; no accuracy compares with the paper's"
    )


def _recipe(recipe: Recipe, paper: Recipe, plan: CostEstimate) -> list[str]:
    """How a row's recipe differs from the one that the paper trains it with."""
    found = []
    if recipe.epochs != paper.epochs:
        found.append(f"{recipe.epochs} epochs, published {paper.epochs}")
    if recipe.global_batch_size != paper.global_batch_size:
        found.append(
            f"global batch {recipe.global_batch_size}, published {paper.global_batch_size} (the "
            "learning rate is scaled linearly, which does not make them equal)"
        )
    if plan.image_size != paper.image_size:
        found.append(f"images of {plan.image_size}, published {paper.image_size}")
    if recipe.ema:
        which = "its" if recipe.eval_weights == "ema" else "not its"
        found.append(f"EMA is on, off on the paper's road ({which} result is used)")
    given, published = dict(recipe), dict(paper)
    other = [key for key in given if key not in _TOLD and given[key] != published[key]]
    if other:
        found.append(f"differs from {paper.name} also in {', '.join(other)}")
    return [f"recipe {recipe.name}: {text}" for text in found]


def _unpublished(runs: Sequence[Run]) -> list[str]:
    """What of these rows' trainings the paper does not say, or says otherwise than its numbers."""
    found = []
    modern = [run for run in runs if run.metadata[RECIPE] == MODERN.name]
    between = [run.name for run in modern if run.metadata["regime"] == "b"]
    if between:
        found.append(
            f"stochastic depth is not published for {_rows(between)} of the ResNet-200 road: they "
            f"have ConvNeXt-T's {MODERN.drop_path}, ConvNeXt-B {MODERN_B.drop_path}"
        )
    further = [run.name for run in modern if run.metadata["section"] == SECTION]
    if further:
        found.append(f"no recipe is published for {_rows(further)}: they have the road's")
    if any(run.model.args.get("layer_scale") is None for run in modern):
        found.append(
            f"layer scale is in no row of the road, where the paper has it ({SAME_SETTING!r}, "
            "which has layer scale of 1e-6): `study layer_scale` trains the road with it"
        )
    for run in runs:
        row = published_row(run.metadata["regime"], run.name)
        found += [f"{run.name}: {row.origin}"] if row and row.origin else []
    return found


def _rows(names: Sequence[str]) -> str:
    once = list(dict.fromkeys(names))
    return once[0] if len(once) == 1 else f"{len(once)} rows ({once[0]} to {once[-1]})"


def _batch_norm(rows: Sequence[tuple[CostEstimate, Recipe]]) -> list[str]:
    few: dict[str, list[str]] = {}
    for plan, recipe in rows:
        devices = plan.global_batch_size // plan.batch_per_device if recipe.sync_bn else 1
        text = batch_norm_warning(plan.micro_batch_size * devices, images_at_a_time(recipe))
        if text and plan.norm == "batch":
            few.setdefault(text, []).append(plan.step)
    return [f"{_rows(steps)}: {text}" for text, steps in few.items()]
