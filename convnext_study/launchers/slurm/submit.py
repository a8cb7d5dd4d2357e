"""Runs on a SLURM cluster: one job per run, in one array per request, or several for a large one.

submitit writes the batch script and submits it; the script starts our own worker, which reads
plain JSON. A run resumes from its folder by itself, so to requeue is to run the same command
again: SLURM does so after preemption and a node's failure, and the script itself if the worker's
exit code (75) says that it was signalled to stop, as it is before the time limit.
A run's outcome is read from its record, never from SLURM: clusters without accounting forget a
job's end, and another job may have finished the run.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convnext_study.errors import RunFailed, UserError, one_line
from convnext_study.launchers import Launcher
from convnext_study.launchers.graph import Job, Outcome, levels, parents_of, write_jobs
from convnext_study.launchers.resources import Machine, Node, Resources, choose_resources
from convnext_study.launchers.slurm.cluster import (
    JOBS,
    ClusterConfig,
    command,
    import_submitit,
    make_executor,
    read_cluster,
    script_text,
)
from convnext_study.launchers.worker import recorded_signals
from convnext_study.runs.files import read_json, write_json
from convnext_study.runs.log import failure, read_events
from convnext_study.runs.records import is_done, is_locked

SUBMITTED = "submitted.json"
TICK = 2.0  # seconds between reads of the records, which may be on a slow shared disk
POLL = 10.0  # seconds between queries to SLURM, which serves all users of a site

Queued = dict[str, tuple[str, int]]  # by run: its task in SLURM, and events logged before it


class Slurm(Launcher):
    """A SLURM cluster. Raises UserError for an unusable cluster file."""

    name = "slurm"
    own = ("cluster", "wait")
    submits = True

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        if machine.cluster is None:
            raise UserError(
                "launcher slurm: pass your site's cluster file with --cluster FILE; see "
                "launch/clusters/"
            )
        self.cluster = read_cluster(machine.cluster)

    def run(
        self, jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        """See `run_slurm`."""
        return run_slurm(jobs, self.cluster, self.machine.dry_run, self.machine.wait, on_poll)

    def world_size(self, devices: Sequence[str]) -> int:
        """The cluster file's number."""
        return self.cluster.world_size

    def resources(self, **images: Any) -> Resources:
        """What a node has for each process."""
        node = Node(self.cluster.cpus_per_process, (self.cluster.device,))
        plan = choose_resources(replace(self.machine, jobs=1), node=node, **images)
        return replace(plan, jobs=min(self.cluster.array_limit, images["runs"]))


def run_slurm(
    jobs: Sequence[Job],
    cluster: ClusterConfig,
    dry_run: bool = False,
    wait: bool = True,
    on_poll: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Submit jobs that are not in the queue already, and wait until all have ended.

    Scripts, job lists and output go to ``slurm/`` beside the folder of the runs. With ``dry_run``
    the script is printed and nothing is written; without ``wait`` the outcomes are ``submitted``.
    Ctrl-C ends the waiting, never the jobs.

    Raises:
        UserError: there is no SLURM here, or the folder's name cannot be used in a script.
        RunFailed: SLURM refuses.
    """
    if not jobs:
        return []
    fitted = [fit_to_node(job, cluster) for job in jobs]
    home = _home(jobs[0])
    if dry_run:
        for number, (part, part_cluster) in enumerate(_arrays(fitted, cluster), _next_number(home)):
            parent_jobs = (
                ["NUMBER-OF-THE-PARENTS-JOB"]
                if parents_of(part) & {job.run.key for job in fitted}
                else []
            )
            studies = [job.run.study for job in part]
            print(script_text(studies, home / f"{number:04d}", _after(part_cluster, parent_jobs)))
        return []
    if shutil.which("sbatch") is None or shutil.which("squeue") is None:
        raise UserError("slurm: sbatch was not found; use a login node, or --launcher torchrun")
    tasks = _queued(home, fitted)
    unsubmitted = [job for job in fitted if job.run.id not in tasks]
    for part, part_cluster in _arrays(unsubmitted, cluster):
        # afterany: a child whose parent failed records that itself.
        parents = [job.run.id for job in fitted if job.run.key in parents_of(part)]
        numbers = {tasks[run][0].partition("_")[0] for run in parents if run in tasks}
        try:
            tasks |= submit(part, home, _after(part_cluster, sorted(numbers, key=int)))
        except RunFailed as error:
            note = f"; {len(tasks)} runs are in the queue, the same command submits the rest"
            raise RunFailed(f"{error}{note if tasks else ''}") from None
    if not wait:
        return [Outcome(job.run, "submitted", f"job {tasks[job.run.id][0]}") for job in jobs]
    queued = [(job, *tasks[job.run.id]) for job in jobs]
    return follow({name: Task(job, logged) for job, name, logged in queued}, home, on_poll)


def _arrays(
    jobs: Sequence[Job], cluster: ClusterConfig
) -> list[tuple[Sequence[Job], ClusterConfig]]:
    """Jobs in parts, one array each, with each part's share of the limit on runs at a time.
    Parents are in earlier parts than their children.
    """
    if not jobs:
        return []
    size = cluster.max_array_size
    if len(jobs) > 1 and (site_limit := max_array_size()):
        size = min(size, site_limit)
    arrays: list[tuple[Sequence[Job], ClusterConfig]] = []
    for level in levels(jobs):
        parts = [level[start : start + size] for start in range(0, len(level), size)]
        limit = max(cluster.array_limit // len(parts), 1)
        arrays += [(part, cluster.model_copy(update={"array_limit": limit})) for part in parts]
    return arrays


def _after(cluster: ClusterConfig, numbers: Sequence[str]) -> ClusterConfig:
    """The profile of an array that waits for the jobs with these ``numbers``."""
    if not numbers:
        return cluster
    own = cluster.sbatch.get("dependency")
    both = ",".join([*([str(own)] if own else []), f"afterany:{':'.join(numbers)}"])
    return cluster.model_copy(update={"sbatch": {**cluster.sbatch, "dependency": both}})


def fit_to_node(job: Job, cluster: ClusterConfig) -> Job:
    """The job for a node of the profile, which is not the machine that submits."""
    threads = min(job.runtime.threads, cluster.cpus_per_process)
    return replace(
        job,
        folder=job.folder.absolute(),
        runtime=replace(job.runtime, device=cluster.device, threads=threads),
    )


def submit(jobs: Sequence[Job], home: Path, cluster: ClusterConfig) -> Queued:
    """Write the jobs and submit them to SLURM. Raises RunFailed with SLURM's message."""
    utils = import_submitit().core.utils
    folder = _new_folder(home)
    write_jobs(folder / JOBS, jobs)
    executor = make_executor([job.run.study for job in jobs], folder, cluster)
    logged = [len(read_events(job.folder)) for job in jobs]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the error has the same message
            number = executor._submit_command(command(folder, cluster)).job_id
    except (utils.FailedJobError, utils.FailedSubmissionError) as error:
        shutil.rmtree(folder)
        reason = " ".join(str(error).split()) or "no reason given"
        raise RunFailed(f"slurm: sbatch refused the jobs: {reason}") from None
    names = [f"{number}_{index}" for index in range(len(jobs))] if len(jobs) > 1 else [f"{number}"]
    tasks = {
        job.run.id: (name, count) for job, name, count in zip(jobs, names, logged, strict=True)
    }
    write_json(folder / SUBMITTED, tasks)
    return tasks


def _home(job: Job) -> Path:
    home = job.folder.absolute().parent.with_name("slurm")
    # SLURM expands % in the names of output files; a line break would end a script's line.
    if re.search(r"[%\x00-\x1f\x7f]", str(home)):
        raise UserError(
            f"{str(home)!r}: SLURM cannot use a folder with this name; choose another --out"
        )
    return home


def _next_number(home: Path) -> int:
    return (
        max((int(path.name) for path in home.glob("[0-9]*") if path.name.isdigit()), default=0) + 1
    )


def _new_folder(home: Path) -> Path:
    while True:
        folder = home / f"{_next_number(home):04d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue  # another process took that number just now
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
        return folder


def _queued(home: Path, jobs: Sequence[Job]) -> Queued:
    """The tasks of earlier requests in SLURM's queue, by run."""
    run_ids = {job.run.id for job in jobs}
    tasks: Queued = {}
    for path in sorted(home.glob(f"*/{SUBMITTED}")):
        try:
            for run, (name, logged) in read_json(path).items():
                if run in run_ids and re.fullmatch(r"\d+(_\d+)?", name):
                    tasks[run] = (name, int(logged))
        except (AttributeError, OSError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not readable ({one_line(str(error))}); remove it") from None
    alive = waiting_tasks(name for name, _ in tasks.values())
    if alive is None:
        raise RunFailed("slurm: squeue does not respond; try again when SLURM is back")
    return {run: task for run, task in tasks.items() if task[0] in alive}


def waiting_tasks(tasks: Iterable[str]) -> set[str] | None:
    """Those of the tasks that wait or run, or None if SLURM does not answer."""
    numbers = sorted({task.partition("_")[0] for task in tasks}, key=int)
    if not numbers:
        return set()
    answer = _ask("squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(numbers)}")
    # A single forgotten number is an error; of several, forgotten ones are left out.
    if answer is None or (answer.returncode and "Invalid job id" not in answer.stderr):
        return None
    return set(answer.stdout.split())


def max_array_size() -> int | None:
    """The most runs that an array may have at this site, or None if SLURM does not answer."""
    answer = _ask("scontrol", "show", "config")
    match = answer and re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE)
    # Indices, which begin with 0, must be below it; 0 disables arrays.
    return max(int(match[1]), 1) if match else None


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """The output of a SLURM command; None if it does not exist or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None


@dataclass(frozen=True)
class Task:
    """A run in the queue.

    ``logged`` is the number of events in the run's log when it was submitted: those of an earlier
    job do not concern this one.
    """

    job: Job
    logged: int = 0


def follow(tasks: Mapping[str, Task], logs: Path, on_poll: Callable[[], None]) -> list[Outcome]:
    """Wait until every task's run is done or has left the queue. Returns the outcomes.

    ``tasks`` has SLURM's names as keys, ``logs`` is the folder with their output. SIGINT, SIGTERM
    and SIGHUP end the waiting; the jobs go on.
    """
    waiting, outcomes = dict(tasks), list[Outcome]()
    missed: set[str] = set()  # gone at the last query: a result may appear later on a shared disk
    queried_at = -POLL
    with recorded_signals() as stop:
        while waiting and not stop:
            on_poll()
            for name in [name for name, task in waiting.items() if is_done(task.job.folder)]:
                outcomes.append(Outcome(waiting.pop(name).job.run, "done"))
            if waiting and time.monotonic() - queried_at >= POLL:
                queried_at = time.monotonic()
                alive = waiting_tasks(waiting)
                gone = set() if alive is None else set(waiting) - alive
                ended = sorted(gone & missed)
                outcomes += [outcome_of(waiting.pop(name), name, logs) for name in ended]
                missed = gone
            if waiting:
                time.sleep(TICK)
        on_poll()
    numbers = " ".join(sorted({name.partition("_")[0] for name in waiting}, key=int))
    note = f"continues in the queue; to end it: scancel {numbers}"
    return outcomes + [
        Outcome(task.job.run, "submitted", f"job {name} {note}") for name, task in waiting.items()
    ]


def outcome_of(task: Task, name: str, logs: Path) -> Outcome:
    """The outcome of a run whose task, with that name in SLURM, has left the queue."""
    job = task.job
    if is_done(job.folder):
        return Outcome(job.run, "done")
    if is_locked(job.folder):
        return Outcome(job.run, "busy", f"job {name}: another process is working on this run")
    events = read_events(job.folder)[task.logged :]
    if events and events[-1]["event"] == "stopped":
        return Outcome(job.run, "stopped", f"job {name} left the queue with its state saved")
    reason = failure(events) or "left the queue without a result"
    return Outcome(job.run, "failed", f"job {name}: {reason}; see {logs}")
