"""Where runs are trained: processes of this machine, torchrun, SLURM.

A further launcher is a file of this room with a `Launcher`, and its line in ``LAUNCHERS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from convnext_study.errors import UserError, did_you_mean
from convnext_study.imports import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from convnext_study.launchers.graph import Job, Outcome
    from convnext_study.launchers.resources import Requested, Resources
    from convnext_study.training.runtime import Runtime

LAUNCHERS = {
    "local": "convnext_study.launchers.local:Local",
    "torchrun": "convnext_study.launchers.torchrun:Torchrun",
    "slurm": "convnext_study.launchers.slurm.submit:Slurm",
}


@dataclass(frozen=True)
class LaunchOptions:
    """What is requested of a launcher; all but ``dry_run`` are of one alone.

    Args:
        processes: that share each run.
        cluster: the file of the site that jobs are submitted to.
        wait: follow submitted jobs to their ends.
        dry_run: batch scripts are printed, and nothing is submitted.
    """

    processes: int | None = None
    cluster: Path | None = None
    wait: bool = True
    dry_run: bool = False


class Launcher(ABC):
    """What trains jobs.

    Attributes:
        name: of ``LAUNCHERS``.
        own: names of the options that it takes.
        submits: whether jobs are left to others, by scripts that a dry run prints.
    """

    name: ClassVar[str]
    own: ClassVar[tuple[str, ...]] = ()
    submits: ClassVar[bool] = False

    def __init__(self, options: LaunchOptions = LaunchOptions()) -> None:
        self.options = options

    @abstractmethod
    def run(
        self, jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        """Train jobs; ``on_poll`` is called from time to time. Returns how they ended.

        Raises UserError where the folder cannot be written.
        """

    def world_size(self, devices: Sequence[str]) -> int:
        """Processes that share a run, on these devices."""
        return 1

    def resources(self, runtime: Runtime, requested: Requested, **images: Any) -> Resources:
        """What each training may use where it will run; ``images`` as `choose_resources` takes
        them. Raises UserError where this machine has no such device."""
        from convnext_study.launchers.resources import choose_resources

        return choose_resources(runtime, requested, **images)

    def describe(self, resources: Resources, each: str) -> str:
        """In words, where runs will be trained that have ``each`` so many threads."""
        return f"on {self.name}, {each}"


def launcher_class(name: str) -> type[Launcher]:
    """Raises UserError for an unknown launcher."""
    if name not in LAUNCHERS:
        near = did_you_mean(name, list(LAUNCHERS))
        *names, last = LAUNCHERS
        raise UserError(f"launcher: {name!r}; use {', '.join(names)} or {last}{near}")
    found: type[Launcher] = resolve(LAUNCHERS[name])
    return found


def make_launcher(name: str, options: LaunchOptions) -> Launcher:
    """The launcher of that name. Raises UserError, also for an option that it does not take."""
    kind = launcher_class(name)
    for field in fields(LaunchOptions):
        given = getattr(options, field.name) != field.default
        if given and field.name not in (*kind.own, "dry_run"):
            option = "--no-wait" if field.name == "wait" else f"--{field.name}"
            raise UserError(f"{option}: is not for --launcher {name}; leave one of them out")
    return kind(options)


def make_folders(jobs: Sequence[Job]) -> None:
    """Raises UserError where they cannot be written, before this machine begins any run."""
    from convnext_study.runs.files import make_folder

    for folder in {job.folder.parent for job in jobs}:
        make_folder(folder)
