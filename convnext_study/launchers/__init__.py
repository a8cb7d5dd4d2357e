"""Where runs are trained: processes of this machine, torchrun, SLURM.

A further launcher is a file of this room with a `Launcher`, and its line in ``LAUNCHERS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from convnext_study.errors import UserError, did_you_mean
from convnext_study.imports import resolve

if TYPE_CHECKING:
    from convnext_study.launchers.graph import Job, Outcome
    from convnext_study.launchers.resources import Machine, Resources

LAUNCHERS = {
    "local": "convnext_study.launchers.local:Local",
    "torchrun": "convnext_study.launchers.torchrun:Torchrun",
    "slurm": "convnext_study.launchers.slurm.submit:Slurm",
}
OF_ONE = ("processes", "cluster", "wait")  # options of a `Machine` that one launcher alone takes


class Launcher(ABC):
    """What trains jobs, as a ``machine`` says.

    Attributes:
        name: of ``LAUNCHERS``.
        own: those of ``OF_ONE`` that it takes.
        submits: whether jobs are left to others, by scripts that a dry run prints.
    """

    name: ClassVar[str]
    own: ClassVar[tuple[str, ...]] = ()
    submits: ClassVar[bool] = False

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

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

    def resources(self, **images: Any) -> Resources:
        """What each training may use where it will run; ``images`` as `choose_resources` takes
        them. Raises UserError where this machine has no such device."""
        from convnext_study.launchers.resources import choose_resources

        return choose_resources(self.machine, **images)

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


def make_launcher(machine: Machine) -> Launcher:
    """What trains the jobs. Raises UserError, also for an option of another launcher."""
    kind = launcher_class(machine.launcher)
    for field in fields(machine):
        given = getattr(machine, field.name) != field.default
        if given and field.name in OF_ONE and field.name not in kind.own:
            option = "--no-wait" if field.name == "wait" else f"--{field.name}"
            raise UserError(f"{option}: is not for --launcher {kind.name}; leave one of them out")
    return kind(machine)


def make_folders(jobs: Sequence[Job]) -> None:
    """Raises UserError where they cannot be written, before this machine begins any run."""
    from convnext_study.runs.files import make_folder

    for folder in {job.folder.parent for job in jobs}:
        make_folder(folder)
