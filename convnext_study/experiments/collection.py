"""A study from its runs to its table and figure: train what is not done, then show all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convnext_study.errors import RunFailed, UserError
from convnext_study.launchers import Launcher
from convnext_study.launchers.graph import Job, Outcome
from convnext_study.launchers.resources import Resources
from convnext_study.runs.files import RUN, RUNS
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.parents import check_parent
from convnext_study.runs.records import Record, RecordError, Run, is_done, read, scan

WANDB_MODES = ("off", "offline", "online", "tensorboard")


@dataclass(frozen=True)
class RunCollection:
    """Runs that belong together, and the folder they go to."""

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
        """Whether the run has a result on disk that can be read."""
        return is_done(self.path(run))

    def note_places(self) -> None:
        """Record of finished runs where their data lies now, as far as that can be written: later
        commands on a run by itself look there."""
        for run in filter(self.is_done, self.runs):
            with contextlib.suppress(UserError, RunFailed), RunFolder(self.path(run), run):
                pass

    def records(self) -> list[Record]:
        """The records of this study's runs, in the order requested.

        What has not begun is left out, and what cannot be read.
        """
        found = []
        for path in map(self.path, self.runs):
            if (path / RUN).exists():
                with contextlib.suppress(RecordError):
                    found.append(read(path))
        return found

    def ledger(self) -> list[Record]:
        """The records of every run that the folder holds and that can be read."""
        return list(scan(self.folder / RUNS))


def train_all(
    study: RunCollection,
    resources: Resources,
    on_poll: Callable[[], None],
    launcher: Launcher,
) -> list[Outcome]:
    """Train what is not done; finished runs are skipped, half-finished ones resumed.

    Raises UserError where the folder cannot be written, Busy where a run starts from one that
    another command trains, and ParentError where from one that is neither among these nor done.
    """
    todo = [run for run in study.runs if not study.is_done(run)]
    keys = {run.key for run in todo}
    for run in todo:
        if run.init_from not in keys:
            check_parent(run, study.path(run))
    jobs = [Job(run, study.path(run), resources.runtime, study.wandb) for run in todo]
    return launcher.run(jobs, resources, on_poll) if jobs else []


def unfinished(outcomes: Sequence[Outcome], status: str) -> list[Outcome]:
    """The outcomes with that status."""
    return [outcome for outcome in outcomes if outcome.status == status]
