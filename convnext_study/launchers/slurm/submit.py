"""Runs on a SLURM cluster: one job a run, a request in one array, or several where it is large.

submitit writes the batch script and submits it; what the script starts is our own worker, which
reads plain JSON. A run resumes from its folder by itself, so to requeue is to run the same command
again: SLURM does it after preemption and a node's failure, and the script itself where the worker
says (exit code 75) that it was signalled to stop, as it is before the time limit.
What a run has done is read from its record, never from SLURM: clusters without accounting forget a
job's end, and a run may have been finished by another job.
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
from convnext_study.launchers.worker import noting_signals
from convnext_study.runs.files import read_json, write_json
from convnext_study.runs.log import failure, read_events
from convnext_study.runs.records import is_done, is_locked

SUBMITTED = "submitted.json"
TICK = 2.0  # seconds between looks at the records, which may lie on a slow shared disk
POLL = 10.0  # seconds between questions to SLURM, which answers all of a site's users

Queued = dict[str, tuple[str, int]]  # by run: its task in SLURM, and the events of its log then


class Slurm(Launcher):
    """A cluster that SLURM shares out. Raises UserError for a file that cannot be used."""

    name = "slurm"
    own = ("cluster", "wait")
    submits = True

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        if machine.cluster is None:
            raise UserError(
                "launcher slurm: name the site with --cluster FILE, as in launch/clusters/"
            )
        self.cluster = read_cluster(machine.cluster)

    def run(
        self, jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        """See `run_slurm`."""
        return run_slurm(jobs, self.cluster, self.machine.dry_run, self.machine.wait, on_poll)

    def world_size(self, devices: Sequence[str]) -> int:
        """As the site's file says."""
        return self.cluster.world_size

    def resources(self, **images: Any) -> Resources:
        """What a node has for each process of its own."""
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
    """Submit jobs that are not in the queue already, and follow all of them to their ends.

    Scripts, job lists and output go to ``slurm/`` beside the folder of the runs. With ``dry_run``
    the script is printed and nothing is written; without ``wait`` the outcomes are ``submitted``.
    Ctrl-C ends the waiting, never the jobs.

    Raises:
        UserError: there is no SLURM here, or the folder's name cannot stand in a script.
        RunFailed: SLURM refuses.
    """
    if not jobs:
        return []
    fitted = [fit_to_node(job, cluster) for job in jobs]
    home = _home(jobs[0])
    if dry_run:
        for number, (part, own) in enumerate(_arrays(fitted, cluster), _next_number(home)):
            after = (
                ["NUMBER-OF-THE-PARENTS-JOB"]
                if parents_of(part) & {job.run.key for job in fitted}
                else []
            )
            studies = [job.run.study for job in part]
            print(script_text(studies, home / f"{number:04d}", _after(own, after)))
        return []
    if shutil.which("sbatch") is None or shutil.which("squeue") is None:
        raise UserError(
            "slurm: there is no sbatch here; go to a login node, or use --launcher torchrun"
        )
    tasks = _queued(home, fitted)
    fresh = [job for job in fitted if job.run.id not in tasks]
    for part, own in _arrays(fresh, cluster):
        # After any end: a child whose parent failed says so itself, in its own record.
        parents = [job.run.id for job in fitted if job.run.key in parents_of(part)]
        numbers = {tasks[run][0].partition("_")[0] for run in parents if run in tasks}
        try:
            tasks |= submit(part, home, _after(own, sorted(numbers, key=int)))
        except RunFailed as error:
            note = f"; {len(tasks)} runs are in the queue, the same command submits the rest"
            raise RunFailed(f"{error}{note if tasks else ''}") from None
    if not wait:
        return [Outcome(job.run, "submitted", f"job {tasks[job.run.id][0]}") for job in jobs]
    return follow({(at := tasks[job.run.id])[0]: Task(job, at[1]) for job in jobs}, home, on_poll)


def _arrays(
    jobs: Sequence[Job], cluster: ClusterConfig
) -> list[tuple[Sequence[Job], ClusterConfig]]:
    """Jobs in parts that SLURM takes as one array each, with what each part may have of the limit
    on runs at a time. Parents are in earlier parts than their children.
    """
    if not jobs:
        return []
    size = cluster.max_array_size
    if len(jobs) > 1 and (site := max_array_size()):
        size = min(size, site)
    found: list[tuple[Sequence[Job], ClusterConfig]] = []
    for level in levels(jobs):
        parts = [level[start : start + size] for start in range(0, len(level), size)]
        own = cluster.model_copy(update={"array_limit": max(cluster.array_limit // len(parts), 1)})
        found += [(part, own) for part in parts]
    return found


def _after(cluster: ClusterConfig, numbers: Sequence[str]) -> ClusterConfig:
    """The profile for an array that waits for the end of others."""
    if not numbers:
        return cluster
    own = cluster.sbatch.get("dependency")
    both = ",".join([*([str(own)] if own else []), f"afterany:{':'.join(numbers)}"])
    return cluster.model_copy(update={"sbatch": {**cluster.sbatch, "dependency": both}})


def fit_to_node(job: Job, cluster: ClusterConfig) -> Job:
    """The job as one node of the profile can run it; the node that submits is another machine."""
    threads = min(job.runtime.threads, cluster.cpus_per_process)
    return replace(
        job,
        folder=job.folder.absolute(),
        runtime=replace(job.runtime, device=cluster.device, threads=threads),
    )


def submit(jobs: Sequence[Job], home: Path, cluster: ClusterConfig) -> Queued:
    """Write the jobs and hand them to SLURM. Raises RunFailed with SLURM's own words."""
    utils = import_submitit().core.utils
    folder = _new_folder(home)
    write_jobs(folder / JOBS, jobs)
    executor = make_executor([job.run.study for job in jobs], folder, cluster)
    logged = [len(read_events(job.folder)) for job in jobs]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # said once, by the error
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
    # SLURM fills in % in the names of output files; a line break would end a script's line.
    if re.search(r"[%\x00-\x1f\x7f]", str(home)):
        raise UserError(
            f"{str(home)!r}: SLURM cannot use a folder of that name; choose another --out"
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
    """The tasks, by run, that earlier requests have in SLURM's queue."""
    wanted = {job.run.id for job in jobs}
    tasks: Queued = {}
    for path in sorted(home.glob(f"*/{SUBMITTED}")):
        try:
            for run, (name, logged) in read_json(path).items():
                if run in wanted and re.fullmatch(r"\d+(_\d+)?", name):
                    tasks[run] = (name, int(logged))
        except (AttributeError, OSError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not readable ({one_line(str(error))}); remove it") from None
    alive = waiting_tasks(name for name, _ in tasks.values())
    if alive is None:
        raise RunFailed("slurm: squeue gives no answer; try again when SLURM is back")
    return {run: task for run, task in tasks.items() if task[0] in alive}


def waiting_tasks(tasks: Iterable[str]) -> set[str] | None:
    """Those of the tasks that wait or run, or None where SLURM does not say."""
    numbers = sorted({task.partition("_")[0] for task in tasks}, key=int)
    if not numbers:
        return set()
    done = _ask("squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(numbers)}")
    # Of one number that SLURM has forgotten it says so; of several it leaves out those.
    if done is None or (done.returncode and "Invalid job id" not in done.stderr):
        return None
    return set(done.stdout.split())


def max_array_size() -> int | None:
    """How many runs an array may have at this site, or None where SLURM does not say."""
    done = _ask("scontrol", "show", "config")
    found = done and re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    # Indices, which begin with 0, must be below it; 0 means that there are no arrays.
    return max(int(found[1]), 1) if found else None


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """What a command of SLURM's says; None where there is none, or it hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None


@dataclass(frozen=True)
class Task:
    """A run in the queue.

    ``logged`` is how many events the run's log held when it was submitted: what an earlier job
    left there says nothing of this one.
    """

    job: Job
    logged: int = 0


def follow(tasks: Mapping[str, Task], logs: Path, on_poll: Callable[[], None]) -> list[Outcome]:
    """Wait until every task's run is done or has left the queue. Returns the outcomes.

    ``tasks`` is by SLURM's names, ``logs`` the folder with their output. SIGINT, SIGTERM and
    SIGHUP end the waiting; the jobs go on.
    """
    left, outcomes = dict(tasks), list[Outcome]()
    missed: set[str] = set()  # a shared disk may show a result after SLURM shows the job's end
    asked_at = -POLL
    with noting_signals() as stop:
        while left and not stop:
            on_poll()
            for name in [name for name, one in left.items() if is_done(one.job.folder)]:
                outcomes.append(Outcome(left.pop(name).job.run, "done"))
            if left and time.monotonic() - asked_at >= POLL:
                asked_at = time.monotonic()
                alive = waiting_tasks(left)
                gone = set() if alive is None else set(left) - alive
                outcomes += [ending(left.pop(name), name, logs) for name in sorted(gone & missed)]
                missed = gone
            if left:
                time.sleep(TICK)
        on_poll()
    numbers = " ".join(sorted({name.partition("_")[0] for name in left}, key=int))
    note = f"goes on in the queue; to end it: scancel {numbers}"
    return outcomes + [
        Outcome(one.job.run, "submitted", f"job {name} {note}") for name, one in left.items()
    ]


def ending(task: Task, name: str, logs: Path) -> Outcome:
    """The outcome of a run whose task, of that name in SLURM, has left the queue."""
    job = task.job
    if is_done(job.folder):
        return Outcome(job.run, "done")
    if is_locked(job.folder):
        return Outcome(job.run, "busy", f"job {name}: another process is working on this run")
    events = read_events(job.folder)[task.logged :]
    if events and events[-1]["event"] == "stopped":
        return Outcome(job.run, "stopped", f"job {name} left the queue with its state saved")
    why = failure(events) or "left the queue with no result"
    return Outcome(job.run, "failed", f"job {name}: {why}; see {logs}")
