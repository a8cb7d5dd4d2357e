"""Where a request is trained, and what each of its trainings may use of the machine there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from convnext_study.cli.options import StudyOptions
from convnext_study.errors import UserError
from convnext_study.experiments.collection import Launcher, launch_local, wait_until_unlocked
from convnext_study.experiments.dataset_size import size_if_missing
from convnext_study.runs.records import Run

if TYPE_CHECKING:
    from convnext_study.launchers.job import Job, Outcome
    from convnext_study.launchers.resources import Node, Requested, Resources
    from convnext_study.launchers.slurm.cluster import ClusterConfig


def describe(todo: Sequence[Run], options: StudyOptions, resources: Resources) -> str:
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
    how = f"on {options.launcher}, {each}"
    if options.launcher == "local":
        launcher = (
            f"{resources.devices[0]} to {resources.devices[-1]}"
            if resources.devices
            else runtime.device
        )
        how = f"{resources.jobs} side by side, {each}, on {launcher}"
    return f"{options.data}; {recipes}; {batches} images a step{at_a_time}; {how}"


def choose_resources_for(
    todo: Sequence[Run], options: StudyOptions, cluster: ClusterConfig | None
) -> Resources:
    """What each training may use. Raises UserError, also for data that cannot be opened."""
    from convnext_study.launchers.resources import choose_resources
    from convnext_study.training.runtime import Runtime

    if options.corrupt_images not in ("stop", "skip"):
        raise UserError(f"corrupt images: {options.corrupt_images!r}; use stop or skip")
    size, from_files = _images(todo, options)
    runtime = Runtime(
        download=options.download,
        channels_last=options.channels_last,
        micro_batch_size=options.micro_batch_size,
        compile=options.compile,
        grad_checkpointing=options.grad_checkpointing,
        corrupt_images="skip" if options.corrupt_images == "skip" else "stop",
        deterministic=options.deterministic,
        tf32=options.tf32,
        cudnn_benchmark=options.cudnn_benchmark,
    )
    node, requested = _room(options, cluster)
    plan = choose_resources(
        runtime, requested, image_size=size, runs=len(todo), from_files=from_files, node=node
    )
    return replace(plan, jobs=min(cluster.array_limit, len(todo))) if cluster else plan


def _images(todo: Sequence[Run], options: StudyOptions) -> tuple[int, bool]:
    """The side of the largest images, and whether any are read one by one."""
    from convnext_study.data import open_data
    from convnext_study.data.sources import SOURCES

    size = max(run.recipe["image_size"] or 0 for run in todo)
    embedded = SOURCES.get(options.data)
    if embedded and embedded.size:  # torch is not needed here, and takes seconds to import
        return size or embedded.size.image_size, False
    if options.dry_run and (missing := size_if_missing(options.data)):
        return size or missing[0].image_size, options.data.startswith("folder:")
    from convnext_study.data.loader import in_memory
    from convnext_study.recipes import make_recipe

    # Bad data fails here, before any training.
    data = open_data(options.data, download=options.download and not options.dry_run)
    recipes = {json.dumps(run.recipe, sort_keys=True): run.recipe for run in todo}
    from_files = any(not in_memory(data, make_recipe(recipe)) for recipe in recipes.values())
    return size or data.size, from_files


def _room(options: StudyOptions, cluster: ClusterConfig | None) -> tuple[Node, Requested]:
    """Where each training will run, and what was requested of it: the machine that submits to a
    cluster is another one.
    """
    from convnext_study.launchers.resources import Node, Requested, this_node

    requested = Requested(
        device=options.device,
        jobs=options.jobs if options.launcher == "local" else 1,
        threads=options.threads,
        workers=options.workers,
    )
    if cluster is not None:
        return Node(cluster.cpus_per_process, (cluster.device,)), requested
    node = this_node(options.device)
    if options.launcher == "torchrun":
        processes = options.processes or len(node.devices)
        return node, replace(requested, processes=processes)
    return node, requested


def cluster_of(options: StudyOptions) -> ClusterConfig | None:
    """The site, where there is one. Raises UserError."""
    if options.launcher not in ("local", "torchrun", "slurm"):
        raise UserError(f"launcher: {options.launcher!r}; use local, torchrun or slurm")
    if options.launcher != "slurm":
        return None
    if options.cluster is None:
        raise UserError("launcher slurm: name the site with --cluster FILE, as in launch/clusters/")
    from convnext_study.launchers.slurm.cluster import read_cluster

    return read_cluster(options.cluster)


def get_launcher(options: StudyOptions, cluster: ClusterConfig | None) -> Launcher:
    """Who trains the jobs."""
    if cluster is not None:
        from convnext_study.launchers.slurm.submit import run_slurm

        def with_slurm(
            jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
        ) -> list[Outcome]:
            return run_slurm(jobs, cluster, options.dry_run, options.wait, on_poll)

        return with_slurm
    if options.launcher == "local":
        return launch_local
    from convnext_study.launchers.torchrun import run_torchrun

    def with_torchrun(
        jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        wait_until_unlocked(jobs)
        return run_torchrun(jobs, options.processes or max(len(resources.devices), 1), on_poll)

    return with_torchrun
