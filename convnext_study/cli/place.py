"""Where a request is trained, and what each of its trainings may use of the machine there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from convnext_study.cli.options import StudyOptions
from convnext_study.errors import BadRequest
from convnext_study.launching.study import Where, claim, in_a_pool
from convnext_study.records import Run

if TYPE_CHECKING:
    from convnext_study.launching.local import Job, Outcome
    from convnext_study.launching.machine import Node, Plan, Requested
    from convnext_study.launching.profile import Profile


def describe(todo: Sequence[Run], options: StudyOptions, plan: Plan) -> str:
    """One line: what is about to be trained, and how a batch is taken apart."""
    recipes = ", ".join(sorted({run.recipe["name"] for run in todo}))
    batches = ", ".join(sorted({str(run.recipe["global_batch"]) for run in todo}))
    machine = plan.machine
    at_a_time = f", at most {machine.micro_batch} at a time" if machine.micro_batch else ""
    each = f"{machine.threads} thread(s) each"
    if machine.workers:
        each += f", {machine.workers} process(es) that read images"
    how = f"on {options.on}, {each}"
    if options.on == "local":
        where = f"{plan.devices[0]} to {plan.devices[-1]}" if plan.devices else machine.device
        how = f"{plan.jobs} side by side, {each}, on {where}"
    return f"{options.data}; {recipes}; {batches} images a step{at_a_time}; {how}"


def plan_for(todo: Sequence[Run], options: StudyOptions, profile: Profile | None) -> Plan:
    """What each training may use. Raises BadRequest, also for data that cannot be opened."""
    from convnext_study.launching.machine import make_plan
    from convnext_study.training.task import Machine

    if options.bad_images not in ("stop", "skip"):
        raise BadRequest(f"bad images: {options.bad_images!r}; use stop or skip")
    size, from_files = _images(todo, options)
    machine = Machine(
        download=options.download,
        channels_last=options.channels_last,
        micro_batch=options.micro_batch,
        compile=options.compile,
        grad_checkpointing=options.grad_checkpointing,
        bad_images="skip" if options.bad_images == "skip" else "stop",
        deterministic=options.deterministic,
        tf32=options.tf32,
        cudnn_benchmark=options.cudnn_benchmark,
    )
    node, requested = _room(options, profile)
    plan = make_plan(
        machine, requested, image_size=size, runs=len(todo), from_files=from_files, node=node
    )
    return replace(plan, jobs=min(profile.array_limit, len(todo))) if profile else plan


def _images(todo: Sequence[Run], options: StudyOptions) -> tuple[int, bool]:
    """The side of the largest images, and whether any are read one by one."""
    from convnext_study.training.known_sizes import DIGITS

    size = max(run.recipe["image_size"] or 0 for run in todo)
    if options.data == "digits":  # torch is not needed here, and takes seconds to import
        return size or DIGITS, False
    from convnext_study.training.data import open_data
    from convnext_study.training.data.batches import in_memory
    from convnext_study.training.recipe import make_recipe

    # Bad data fails here, before any training.
    data = open_data(options.data, download=options.download)
    recipes = {json.dumps(run.recipe, sort_keys=True): run.recipe for run in todo}
    from_files = any(not in_memory(data, make_recipe(recipe)) for recipe in recipes.values())
    return size or data.size, from_files


def _room(options: StudyOptions, profile: Profile | None) -> tuple[Node, Requested]:
    """Where each training will run, and what was requested of it: the machine that submits to a
    cluster is another one.
    """
    from convnext_study.launching.machine import Node, Requested, this_node

    requested = Requested(
        device=options.device,
        jobs=options.jobs if options.on == "local" else 1,
        threads=options.threads,
        workers=options.workers,
    )
    if profile is not None:
        return Node(profile.cpus_per_process, (profile.device,)), requested
    node = this_node(options.device)
    if options.on == "torchrun":
        processes = options.processes or len(node.devices)
        return node, replace(requested, processes=processes)
    return node, requested


def site_of(options: StudyOptions) -> Profile | None:
    """The site, where there is one. Raises BadRequest."""
    if options.on not in ("local", "torchrun", "slurm"):
        raise BadRequest(f"on: {options.on!r}; use local, torchrun or slurm")
    if options.on != "slurm":
        return None
    if options.profile is None:
        raise BadRequest("on slurm: name the site with --profile FILE, as in launch/clusters/")
    from convnext_study.launching.profile import read_profile

    return read_profile(options.profile)


def where_for(options: StudyOptions, profile: Profile | None) -> Where:
    """Who trains the jobs."""
    if profile is not None:
        from convnext_study.launching.slurm import run_slurm

        def with_slurm(jobs: Sequence[Job], plan: Plan, tick: Callable[[], None]) -> list[Outcome]:
            return run_slurm(jobs, profile, options.dry_run, options.wait, tick)

        return with_slurm
    if options.on == "local":
        return in_a_pool
    from convnext_study.launching.torchrun import run_torchrun

    def with_torchrun(jobs: Sequence[Job], plan: Plan, tick: Callable[[], None]) -> list[Outcome]:
        claim(jobs)
        return run_torchrun(jobs, options.processes or max(len(plan.devices), 1), tick)

    return with_torchrun
