"""One run to train, how it ended, and jobs as a file that another process reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from convnext_study.errors import UserError
from convnext_study.runs.files import read_json, write_json
from convnext_study.runs.parents import KEPT_RECORD
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done``, ``failed``, ``stopped``, or ``busy`` where another command's
    process works on it, and why in one line. One that is ``submitted`` has not ended."""

    run: Run
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """What a process is sent: plain values only."""

    run: Run
    folder: Path
    runtime: Runtime
    wandb: str = "off"

    @cached_property
    def waits_for(self) -> str | None:
        """The key of the run that has to be done before; None where it starts from none, or has
        begun and keeps what it started from."""
        return None if (self.folder / KEPT_RECORD).exists() else self.run.init_from


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Jobs as JSON, their folders absolute: a process elsewhere may start in another folder."""
    write_json(
        path,
        [
            {
                "run": job.run.model_dump(mode="json"),
                "folder": str(job.folder.absolute()),
                "runtime": asdict(job.runtime),
                "wandb": job.wandb,
            }
            for job in jobs
        ],
    )


def read_jobs(path: Path) -> list[Job]:
    """The jobs of a file that `write_jobs` wrote. Raises UserError, one line."""
    try:
        return [
            Job(
                Run.model_validate(one["run"]),
                Path(one["folder"]),
                Runtime(**one["runtime"]),
                one["wandb"],
            )
            for one in read_json(path)
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable list of jobs ({reason})") from None
