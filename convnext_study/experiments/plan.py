"""A study's runs, which of them are left to train, and with what resources."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.data import forkserver
from convnext_study.errors import RunFailed, UserError
from convnext_study.experiments.data_identity import (
    expected_size,
    has_maps,
    identify,
    inspect_data,
    size_if_missing,
)
from convnext_study.experiments.network_checks import check_networks
from convnext_study.experiments.study_file import recorded
from convnext_study.launchers import Launcher, make_launcher
from convnext_study.launchers.graph import Job, Outcome
from convnext_study.models.builders import LEAN_TIMM, TIMM_BUILDER
from convnext_study.runs.files import RUN, RUNS
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.parents import check_parent
from convnext_study.runs.records import Record, RecordError, Run, is_done, read, scan

if TYPE_CHECKING:
    from convnext_study.launchers.resources import Machine, Resources
    from convnext_study.recipes import Recipe

WANDB_MODES = ("off", "offline", "online", "tensorboard")


@dataclass(frozen=True)
class RunCollection:
    """Runs of a study, and the study's folder."""

    runs: tuple[Run, ...]
    folder: Path
    wandb: str = "off"

    def __post_init__(self) -> None:
        if self.wandb not in WANDB_MODES:
            raise UserError(f"wandb: {self.wandb!r}; use one of {', '.join(WANDB_MODES)}")

    def path(self, run: Run) -> Path:
        """The folder of one run."""
        return self.folder / RUNS / run.id

    def is_done(self, run: Run) -> bool:
        """Whether the run has a readable result on disk."""
        return is_done(self.path(run))

    def record_data_paths(self) -> None:
        """Record the current path of the data of finished runs, if that can be written: later
        commands on a single run use it."""
        for run in filter(self.is_done, self.runs):
            with contextlib.suppress(UserError, RunFailed), RunFolder(self.path(run), run):
                pass

    def records(self) -> list[Record]:
        """The records of this study's runs, in the order requested.

        Runs that have not begun or cannot be read are left out.
        """
        readable = []
        for path in map(self.path, self.runs):
            if (path / RUN).exists():
                with contextlib.suppress(RecordError):
                    readable.append(read(path))
        return readable

    def ledger(self) -> list[Record]:
        """The records of all readable runs in the folder."""
        return list(scan(self.folder / RUNS))


@dataclass(frozen=True)
class Plan:
    """A study, its runs that are left to train, and where; ``resources`` are None for no runs."""

    study: RunCollection
    todo: list[Run]
    launcher: Launcher
    resources: Resources | None

    @property
    def jobs(self) -> int:
        """Parallel trainings."""
        return self.resources.jobs if self.resources else 1

    def train(self, on_poll: Callable[[], None]) -> list[Outcome]:
        """Train what is not done; half-finished runs are resumed.

        A run that was busy, and that another command has finished meanwhile, has no outcome.

        Raises UserError if the folder cannot be written, Busy if another command is training a
        run's parent, and ParentError if a run's parent is neither among these runs nor done.
        """
        if self.resources is None:
            return []
        keys = {run.key for run in self.todo}
        for run in self.todo:
            if run.init_from not in keys:
                check_parent(run, self.study.path(run))
        settings = self.resources.runtime, self.study.wandb
        jobs = [Job(run, self.study.path(run), *settings) for run in self.todo]
        outcomes = self.launcher.run(jobs, self.resources, on_poll)
        return [end for end in outcomes if end.status != "busy" or not self.study.is_done(end.run)]

    def describe(self) -> str:
        """One line: what is about to be trained, and how a batch is split; empty for nothing."""
        if self.resources is None:
            return ""
        recipes = ", ".join(sorted({run.recipe["name"] for run in self.todo}))
        batches = ", ".join(sorted({str(run.recipe["global_batch_size"]) for run in self.todo}))
        runtime = self.resources.runtime
        micro_batch = runtime.micro_batch_size
        limit = f", at most {micro_batch} at a time" if micro_batch else ""
        per_run = f"{runtime.threads} thread(s) each"
        if runtime.workers:
            per_run += f", {runtime.workers} data reader(s)"
        data = ", ".join(dict.fromkeys(run.data for run in self.todo))
        where = self.launcher.describe(self.resources, per_run)
        return f"{data}; {recipes}; {batches} images per step{limit}; {where}"


def with_status(outcomes: Sequence[Outcome], status: str) -> list[Outcome]:
    """The outcomes with that status."""
    return [outcome for outcome in outcomes if outcome.status == status]


def plan(study: RunCollection, machine: Machine) -> Plan:
    """The runs of a study that are left, and the resources of each training.

    Raises UserError for what would fail: data that cannot be opened, an option of another launcher.
    """
    todo = [run for run in study.runs if not study.is_done(run)]
    launcher = make_launcher(machine)
    return Plan(study, todo, launcher, _resources(todo, launcher) if todo else None)


def identify_in(folder: Path, runs: Sequence[Run], machine: Machine) -> list[Run]:
    """The runs with the identity of their data; in a dry run, as far as it is known.

    Raises UserError, before anything is written, for data that cannot be used.
    """
    previous = recorded(folder).values()
    if not previous and not machine.dry_run and machine.launcher == "local":
        # It imports while this process plans.
        modules = (LEAN_TIMM,) if any(run.model.builder == TIMM_BUILDER for run in runs) else ()
        forkserver.start((*forkserver.TRAININGS, *modules))
    return identify(runs, previous, required=not machine.dry_run, **open_options(machine))


def _resources(todo: Sequence[Run], launcher: Launcher) -> Resources:
    """What each training may use. Raises UserError, also for data that cannot be opened."""
    machine = launcher.machine
    size, from_files = _images(todo, machine)
    resources = launcher.resources(image_size=size, runs=len(todo), from_files=from_files)
    processes = launcher.world_size(resources.devices)
    batch_norm_images = functools.partial(_batch_norm_images, machine, processes)
    check_networks(todo, lambda uri: expected_size(uri)[0], batch_norm_images)
    return resources


def _batch_norm_images(machine: Machine, processes: int, recipe: Recipe) -> int:
    """How many images BatchNorm sees at a time. Raises UserError for an indivisible batch."""
    from convnext_study.recipes import images_at_a_time

    micro_batch = images_at_a_time(recipe, machine.micro_batch_size)
    if processes == 1 and micro_batch is None:
        return recipe.global_batch_size
    from convnext_study.data.sharding import BatchSharding, accum_steps

    batch = recipe.global_batch_size
    sharding = BatchSharding(0, processes, micro_batch)
    accum = accum_steps(batch, sharding, even=recipe.mixes)
    return batch // accum // (1 if recipe.sync_bn else processes)


def _images(todo: Sequence[Run], machine: Machine) -> tuple[int, bool]:
    """The side of the largest images, and whether any are read one by one."""
    by_data = [
        _images_of(uri, [run for run in todo if run.data == uri], machine)
        for uri in dict.fromkeys(run.data for run in todo)
    ]
    return max(size for size, _ in by_data), any(from_files for _, from_files in by_data)


def _images_of(uri: str, todo: Sequence[Run], machine: Machine) -> tuple[int, bool]:
    """The same for one data set, on which these runs are trained."""
    from convnext_study.data.sources import SOURCES

    size = max(run.recipe["image_size"] or 0 for run in todo)
    embedded = SOURCES.get(uri)
    if (
        embedded and embedded.size and not embedded.has_location
    ):  # torch is not needed here, and takes seconds to import
        return size or embedded.size.image_size, False
    if machine.dry_run and (missing := size_if_missing(uri)):
        return size or missing[0].image_size, uri.startswith("folder:")
    try:  # bad data fails here, before any training
        opened = inspect_data(uri, **open_options(machine))
    except UserError as error:
        if not (machine.dry_run and machine.download):
            raise
        raise UserError(f"{error}; a dry run downloads nothing, so download it first") from None
    side = opened.size.image_size
    if has_maps(uri):
        return side, True
    from convnext_study.data.loader import takes_whole_images
    from convnext_study.recipes import make_recipe

    recipes = {json.dumps(run.recipe, sort_keys=True): make_recipe(run.recipe) for run in todo}
    whole_images = all(takes_whole_images(recipe) for recipe in recipes.values())
    return size or side, not (opened.in_memory and whole_images)


def open_options(machine: Machine) -> dict[str, Any]:
    """The options of `inspect_data`; a dry run downloads nothing."""
    return {
        "download": machine.download and not machine.dry_run,
        "corrupt_images": machine.corrupt_images,
    }
