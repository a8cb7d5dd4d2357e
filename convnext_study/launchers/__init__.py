"""Launchers, which train runs: local processes, torchrun, SLURM.

To add a launcher, add a file with a `Launcher` here and an entry in ``LAUNCHERS``.
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
SPECIAL_OPTIONS = ("processes", "cluster", "wait")  # options of a `Machine` for a single launcher


class Launcher(ABC):
    """Trains jobs with the options of a ``machine``.

    Attributes:
        name: its key in ``LAUNCHERS``.
        own: the options of ``SPECIAL_OPTIONS`` that it accepts.
        submits: whether it submits jobs by batch scripts, which a dry run prints.
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
        """Train jobs; ``on_poll`` is called regularly. Returns how they ended.

        Raises UserError if the folder cannot be written.
        """

    def world_size(self, devices: Sequence[str]) -> int:
        """The number of processes that share a run on these devices."""
        return 1

    def resources(self, **images: Any) -> Resources:
        """What each training may use; for ``images`` see `choose_resources`. Raises UserError if
        this machine has no such device."""
        from convnext_study.launchers.resources import choose_resources

        return choose_resources(self.machine, **images)

    def describe(self, resources: Resources, per_run: str) -> str:
        """Where runs will be trained, in words; ``per_run`` describes the threads of a run."""
        return f"on {self.name}, {per_run}"


def launcher_class(name: str) -> type[Launcher]:
    """Raises UserError for an unknown launcher."""
    if name not in LAUNCHERS:
        near = did_you_mean(name, list(LAUNCHERS))
        *names, last = LAUNCHERS
        raise UserError(f"launcher: {name!r}; use {', '.join(names)} or {last}{near}")
    launcher: type[Launcher] = resolve(LAUNCHERS[name])
    return launcher


def make_launcher(machine: Machine) -> Launcher:
    """The machine's launcher. Raises UserError, also for an option of another launcher."""
    kind = launcher_class(machine.launcher)
    for field in fields(machine):
        is_set = getattr(machine, field.name) != field.default
        if is_set and field.name in SPECIAL_OPTIONS and field.name not in kind.own:
            option = "--no-wait" if field.name == "wait" else f"--{field.name}"
            raise UserError(
                f"{option}: does not apply to --launcher {kind.name}; remove one of them"
            )
    return kind(machine)


def make_folders(jobs: Sequence[Job]) -> None:
    """Raises UserError if a folder cannot be written, before any run begins."""
    from convnext_study.runs.files import make_folder

    for folder in {job.folder.parent for job in jobs}:
        make_folder(folder)
