"""Where runs are trained, and what each of the trainings may use of the machine there."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convnext_study.data import forkserver
from convnext_study.errors import UserError
from convnext_study.experiments.collection import RunCollection, train_all
from convnext_study.experiments.data_identity import (
    expected_size,
    has_maps,
    identify,
    look_at,
    size_if_missing,
)
from convnext_study.experiments.network_checks import check_networks
from convnext_study.experiments.study_file import recorded
from convnext_study.launchers import Launcher, LaunchOptions, make_launcher
from convnext_study.models.builders import TIMM_BUILDER
from convnext_study.runs.records import Run

if TYPE_CHECKING:
    from convnext_study.launchers.graph import Outcome
    from convnext_study.launchers.resources import Resources
    from convnext_study.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where runs are trained, and how; None leaves it to be chosen.

    Args:
        download: fetch a data set that is missing.
        corrupt_images: what an image that cannot be read does: stop the run, or be skipped.
        launcher: ``local``, ``torchrun`` (DDP on this machine) or ``slurm``.
        processes: that share each run, with torchrun.
        cluster: the site's file, with slurm.
        wait: follow the jobs to their end, with slurm.
        jobs: parallel trainings.
        threads: of each training.
        workers: processes per training that read image files.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        micro_batch_size: most images that a process takes at a time; None: the paper's, in its
            recipes.
        compile: use torch.compile.
        channels_last: memory layout of images.
        grad_checkpointing: save memory, take longer.
        deterministic: only algorithms that give the same bits every time.
        tf32: on GPUs, round factors of float32 products; None: in the paper's recipes.
        cudnn_benchmark: on GPUs, try cuDNN's algorithms and take the fastest.
        dry_run: nothing is trained or fetched.
    """

    download: bool = False
    corrupt_images: Literal["stop", "skip"] = "stop"
    launcher: str = "local"
    processes: int | None = None
    cluster: Path | None = None
    wait: bool = True
    jobs: int | None = None
    threads: int | None = None
    workers: int | None = None
    device: str | None = None
    micro_batch_size: int | None = None
    compile: bool = False
    channels_last: bool = True
    grad_checkpointing: bool = False
    deterministic: bool = False
    tf32: bool | None = None
    cudnn_benchmark: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Plan:
    """A study, what of it is still to be trained, and where: ``resources`` are None for nothing."""

    study: RunCollection
    todo: list[Run]
    launcher: Launcher
    resources: Resources | None

    @property
    def jobs(self) -> int:
        """Parallel trainings."""
        return self.resources.jobs if self.resources else 1

    def train(self, on_poll: Callable[[], None]) -> list[Outcome]:
        """Train what is not done, as `train_all` does.

        A run that was busy, and that another command has finished meanwhile, has no outcome.
        """
        if self.resources is None:
            return []
        outcomes = train_all(self.study, self.resources, on_poll, self.launcher)
        return [one for one in outcomes if one.status != "busy" or not self.study.is_done(one.run)]


def plan(study: RunCollection, machine: Machine) -> Plan:
    """What is left of a study, and what of the machine each training may use.

    Raises UserError for what would fail: data that cannot be opened, an option of another launcher.
    """
    todo = [run for run in study.runs if not study.is_done(run)]
    launcher = launcher_of(machine)
    return Plan(
        study, todo, launcher, choose_resources_for(todo, machine, launcher) if todo else None
    )


def identify_in(folder: Path, runs: Sequence[Run], machine: Machine) -> list[Run]:
    """The runs with what their data is; in a dry run, as far as that can be known.

    Raises UserError, before anything is written, for data that cannot be used.
    """
    known = recorded(folder).values()
    if not known and not machine.dry_run and machine.launcher == "local":
        # It imports while this process plans.
        timms = ("timm",) if any(run.model.builder == TIMM_BUILDER for run in runs) else ()
        forkserver.start((*forkserver.TRAININGS, *timms))
    return identify(runs, known, required=not machine.dry_run, **opening(machine))


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


def choose_resources_for(todo: Sequence[Run], machine: Machine, launcher: Launcher) -> Resources:
    """What each training may use. Raises UserError, also for data that cannot be opened."""
    from convnext_study.launchers.resources import Requested
    from convnext_study.training.runtime import Runtime

    size, from_files = _images(todo, machine)
    runtime = Runtime(
        download=machine.download,
        channels_last=machine.channels_last,
        micro_batch_size=machine.micro_batch_size,
        compile=machine.compile,
        grad_checkpointing=machine.grad_checkpointing,
        corrupt_images=machine.corrupt_images,
        deterministic=machine.deterministic,
        tf32=machine.tf32,
        cudnn_benchmark=machine.cudnn_benchmark,
    )
    requested = Requested(
        device=machine.device, jobs=machine.jobs, threads=machine.threads, workers=machine.workers
    )
    plan = launcher.resources(
        runtime, requested, image_size=size, runs=len(todo), from_files=from_files
    )
    processes = launcher.world_size(plan.devices)
    check_networks(
        todo, lambda uri: expected_size(uri)[0], functools.partial(_together, machine, processes)
    )
    return plan


def _together(machine: Machine, processes: int, recipe: Recipe) -> int:
    """Images that BatchNorm sees at a time. Raises UserError for a batch that cannot be split."""
    from convnext_study.recipes import images_at_a_time

    most = images_at_a_time(recipe, machine.micro_batch_size)
    if processes == 1 and most is None:
        return recipe.global_batch_size
    from convnext_study.data.sharding import BatchSharding, accum_steps

    batch = recipe.global_batch_size
    sharding = BatchSharding(0, processes, most)
    pieces = accum_steps(batch, sharding, even=recipe.mixes)
    return batch // pieces // (1 if recipe.sync_bn else processes)


def _images(todo: Sequence[Run], machine: Machine) -> tuple[int, bool]:
    """The side of the largest images, and whether any are read one by one."""
    found = [
        _images_of(uri, [run for run in todo if run.data == uri], machine)
        for uri in dict.fromkeys(run.data for run in todo)
    ]
    return max(size for size, _ in found), any(from_files for _, from_files in found)


def _images_of(uri: str, todo: Sequence[Run], machine: Machine) -> tuple[int, bool]:
    """The same of one data set, on which these runs are trained."""
    from convnext_study.data.sources import SOURCES

    size = max(run.recipe["image_size"] or 0 for run in todo)
    embedded = SOURCES.get(uri)
    if (
        embedded and embedded.size and not embedded.has_place
    ):  # torch is not needed here, and takes seconds to import
        return size or embedded.size.image_size, False
    if machine.dry_run and (missing := size_if_missing(uri)):
        return size or missing[0].image_size, uri.startswith("folder:")
    try:  # bad data fails here, before any training
        opened = look_at(uri, **opening(machine))
    except UserError as error:
        if not (machine.dry_run and machine.download):
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


def opening(machine: Machine) -> dict[str, Any]:
    """How data is opened, as `look_at` takes it: a dry run fetches nothing."""
    return {
        "download": machine.download and not machine.dry_run,
        "corrupt_images": machine.corrupt_images,
    }


def launcher_of(machine: Machine) -> Launcher:
    """What trains the jobs. Raises UserError, also for an option of another launcher."""
    return make_launcher(
        machine.launcher,
        LaunchOptions(machine.processes, machine.cluster, machine.wait, machine.dry_run),
    )
