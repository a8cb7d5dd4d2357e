"""Where a request is trained, and what each of its trainings may use of the machine there."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convnext_study.cli.options import StudyOptions
from convnext_study.errors import UserError
from convnext_study.experiments.data_identity import (
    expected_size,
    has_maps,
    look_at,
    size_if_missing,
)
from convnext_study.experiments.network_checks import check_networks
from convnext_study.launchers import Launcher, LaunchOptions, make_launcher
from convnext_study.runs.records import Run

if TYPE_CHECKING:
    from convnext_study.launchers.resources import Resources
    from convnext_study.recipes import Recipe


def describe(todo: Sequence[Run], launcher: Launcher, resources: Resources) -> str:
    """One line: what is about to be trained, and how a batch is taken apart."""
    recipes = ", ".join(sorted({run.recipe["name"] for run in todo}))
    batches = ", ".join(sorted({str(run.recipe["global_batch_size"]) for run in todo}))
    runtime = resources.runtime
    at_a_time = (
        f", at most {runtime.micro_batch_size} at a time" if runtime.micro_batch_size else ""
    )
    each = f"{runtime.threads} thread(s) each"
    if runtime.workers:
        each += f", {runtime.workers} process(es) that read images"
    data = ", ".join(dict.fromkeys(run.data for run in todo))
    return f"{data}; {recipes}; {batches} images per step{at_a_time}; " + launcher.describe(
        resources, each
    )


def choose_resources_for(
    todo: Sequence[Run], options: StudyOptions, launcher: Launcher
) -> Resources:
    """What each training may use. Raises UserError, also for data that cannot be opened."""
    from convnext_study.launchers.resources import Requested
    from convnext_study.training.runtime import Runtime

    size, from_files = _images(todo, options)
    runtime = Runtime(
        download=options.download,
        channels_last=options.channels_last,
        micro_batch_size=options.micro_batch_size,
        compile=options.compile,
        grad_checkpointing=options.grad_checkpointing,
        corrupt_images=options.corrupt_images,
        deterministic=options.deterministic,
        tf32=options.tf32,
        cudnn_benchmark=options.cudnn_benchmark,
    )
    requested = Requested(
        device=options.device, jobs=options.jobs, threads=options.threads, workers=options.workers
    )
    plan = launcher.resources(
        runtime, requested, image_size=size, runs=len(todo), from_files=from_files
    )
    processes = launcher.world_size(plan.devices)
    check_networks(
        todo, lambda uri: expected_size(uri)[0], functools.partial(_together, options, processes)
    )
    return plan


def _together(options: StudyOptions, processes: int, recipe: Recipe) -> int:
    """Images that BatchNorm sees at a time. Raises UserError for a batch that cannot be split."""
    if processes == 1 and options.micro_batch_size is None:
        return recipe.global_batch_size
    from convnext_study.data.sharding import BatchSharding, accum_steps

    batch = recipe.global_batch_size
    sharding = BatchSharding(0, processes, options.micro_batch_size)
    pieces = accum_steps(batch, sharding, even=recipe.mixes)
    return batch // pieces // (1 if recipe.sync_bn else processes)


def _images(todo: Sequence[Run], options: StudyOptions) -> tuple[int, bool]:
    """The side of the largest images, and whether any are read one by one."""
    found = [
        _images_of(uri, [run for run in todo if run.data == uri], options)
        for uri in dict.fromkeys(run.data for run in todo)
    ]
    return max(size for size, _ in found), any(from_files for _, from_files in found)


def _images_of(uri: str, todo: Sequence[Run], options: StudyOptions) -> tuple[int, bool]:
    """The same of one data set, on which these runs are trained."""
    from convnext_study.data.sources import SOURCES

    size = max(run.recipe["image_size"] or 0 for run in todo)
    embedded = SOURCES.get(uri)
    if (
        embedded and embedded.size and not embedded.has_place
    ):  # torch is not needed here, and takes seconds to import
        return size or embedded.size.image_size, False
    if options.dry_run and (missing := size_if_missing(uri)):
        return size or missing[0].image_size, uri.startswith("folder:")
    try:  # bad data fails here, before any training
        opened = look_at(uri, **opening(options))
    except UserError as error:
        if not (options.dry_run and options.download):
            raise
        raise UserError(f"{error}; a dry run fetches nothing, fetch it before") from None
    side = opened.size.image_size
    if has_maps(uri):
        return side, True
    from convnext_study.data.loader import takes_whole_images
    from convnext_study.recipes import make_recipe

    recipes = {json.dumps(run.recipe, sort_keys=True): make_recipe(run.recipe) for run in todo}
    whole = all(takes_whole_images(recipe) for recipe in recipes.values())
    return size or side, not (opened.in_memory and whole)


def opening(options: StudyOptions) -> dict[str, Any]:
    """How data is opened, as `look_at` takes it: a dry run fetches nothing."""
    return {
        "download": options.download and not options.dry_run,
        "corrupt_images": options.corrupt_images,
    }


def launcher_of(options: StudyOptions) -> Launcher:
    """What trains the jobs. Raises UserError, also for an option of another launcher."""
    return make_launcher(
        options.launcher,
        LaunchOptions(options.processes, options.cluster, options.wait, options.dry_run),
    )
