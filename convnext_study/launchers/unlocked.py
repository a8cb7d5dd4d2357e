"""Runs that another process works on, before this machine begins any."""

from __future__ import annotations

import time
from collections.abc import Sequence

from convnext_study.errors import UserError
from convnext_study.launchers.job import Job
from convnext_study.runs.files import make_folder
from convnext_study.runs.records import is_locked

PATIENCE = 15.0  # seconds to wait for a run that another process works on


def wait_until_unlocked(jobs: Sequence[Job]) -> None:
    """See that this machine may work on the jobs, before any of them starts.

    The trainings of a command that was just killed are given the seconds they need to leave.
    Raises UserError where the folder cannot be written or another process works on a run.
    """
    for folder in {job.folder.parent for job in jobs}:
        make_folder(folder)
    folders = [job.folder for job in jobs]
    deadline = time.monotonic() + PATIENCE
    while busy := [folder for folder in folders if is_locked(folder)]:
        if time.monotonic() > deadline:
            raise UserError(f"{busy[0]}: another process works on this run; wait for it or stop it")
        time.sleep(0.2)
