"""Three steps of the nano road on a real SLURM: preempted, cut short, and the same to the bit.

``make test-slurm`` runs it. It starts a SLURM of one machine in a temporary folder, submits an
array of runs that two processes share, preempts one from the high-priority partition, sends
another the signal that comes before the time limit, and compares all of them with runs that
nothing disturbed. It ends what it started. Takes two to five minutes on two cores.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.training import assert_same

from convnext_study.experiments.roadmap_runs import choose_variants, roadmap_runs
from convnext_study.launchers.graph import Job, Outcome
from convnext_study.launchers.slurm.cluster import read_cluster
from convnext_study.launchers.slurm.submit import Task, follow, run_slurm
from convnext_study.launchers.torchrun import run_torchrun
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.files import LOG
from convnext_study.runs.log import read_lines
from convnext_study.training.runtime import Runtime

LAUNCH = Path(__file__).parents[2] / "launch"
CLUSTER = Path(__file__).parent / "local_cluster.sh"
PROFILE = LAUNCH / "clusters" / "local.toml"
STEPS, EPOCHS = "kernel_7,gelu,layer_norm", 6
LIMIT = 570  # seconds for everything
CANNOT_INSTALL = 3

BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:6.1f}s  {text}", flush=True)


def check(claim: bool, what: str) -> None:
    if not claim:
        raise SystemExit(f"test-slurm: FAILED: {what}")
    say(f"ok: {what}")


def make_jobs(study: Path) -> list[Job]:
    road = get_roadmap("nano")
    variants = choose_variants(road, STEPS)
    runs = roadmap_runs(road, variants, data="digits", seeds=[0], changes={"epochs": EPOCHS})
    return [Job(run, study / "runs" / run.id, Runtime()) for run in runs]


def events(job: Job) -> list[str]:
    lines = read_lines(job.folder / LOG)
    return [line["event"] for line in lines if line["event"] != "epoch"]


def epochs(job: Job) -> int:
    return sum(line["event"] == "epoch" for line in read_lines(job.folder / LOG))


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


def wait_for(what: str, seen: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > deadline:
            raise SystemExit(f"test-slurm: FAILED: {what}: not within {seconds:.0f} s")
        time.sleep(0.1)
    say(what)


def restarts(task: str) -> int:
    fields = dict(
        word.partition("=")[::2]
        for word in slurm("scontrol", "--oneliner", "show", "job", task).split()
    )
    return int(fields["Restarts"])


def train_disturbed(study: Path) -> tuple[list[Job], dict[str, str]]:
    """Train under SLURM, disturb the first two runs, wait for all. Returns the tasks by run."""
    jobs = make_jobs(study)
    submitted = run_slurm(jobs, read_cluster(PROFILE), wait=False)
    tasks = {one.run.id: one.reason.removeprefix("job ") for one in submitted}
    say(f"submitted: {', '.join(tasks.values())}")
    again = run_slurm(jobs, read_cluster(PROFILE), wait=False)
    check(again == submitted, "asking again submits nothing twice")

    first, second, _ = jobs
    wait_for("the first run has trained an epoch", lambda: epochs(first) >= 1)
    other = slurm(
        *("sbatch", "--parsable", "--partition=high", "--exclusive", "--output=/dev/null"),
        *("--time=5", "--wrap", "sleep 2"),
    ).strip()
    say(f"job {other} comes in the partition that goes before")
    wait_for("the first run stopped", lambda: "stopped" in events(first), 60)
    wait_for("the second run has trained an epoch", lambda: epochs(second) >= 1)
    slurm("scancel", "--signal=USR1", tasks[second.run.id])
    say("the second run gets the signal that comes before the time limit")
    wait_for("the second run stopped", lambda: "stopped" in events(second), 60)

    queued = {tasks[job.run.id]: Task(job) for job in jobs}
    outcomes = follow(queued, study, lambda: None)
    show = [(one.run.id, one.status, one.reason) for one in outcomes]
    check(all(one.status == "done" for one in outcomes), f"all are done: {show}")
    return jobs, tasks


def compare(jobs: list[Job], undisturbed: list[Job], tasks: dict[str, str]) -> None:
    whole, cut = ["started", "done"], ["started", "stopped", "resumed", "done"]
    for job, same, story in zip(jobs, undisturbed, [cut, cut, whole], strict=True):
        name = job.run.id
        check(events(job) == story, f"{name}: {', '.join(events(job))}")
        count = restarts(tasks[name])
        check(count == (story == cut), f"{name}: SLURM started it again {count} times")
        assert_same(job.folder, same.folder)
        say(f"ok: {name}: log, weights and result equal bit for bit")


def train_undisturbed(study: Path) -> list[Job]:
    jobs = make_jobs(study)
    outcomes: list[Outcome] = run_torchrun(jobs, 2)
    check([one.status for one in outcomes] == ["done"] * len(jobs), "undisturbed runs, by torchrun")
    return jobs


def show_logs(folder: Path) -> None:
    for path in [*folder.glob("cluster/log/*.log"), *folder.glob("study/slurm/*/*log.*")]:
        tail = path.read_text(errors="replace").splitlines()[-15:]
        print(f"--- {path.name}", *tail, sep="\n", file=sys.stderr)


def end_jobs() -> None:
    """End what a failure left in the queue, while there is a SLURM that can."""
    with contextlib.suppress(subprocess.SubprocessError):
        for _ in range(20):
            slurm("scancel", "--state=PENDING", "--user=root")
            slurm("scancel", "--state=RUNNING", "--user=root")
            if not slurm("squeue", "--noheader"):
                return
            time.sleep(1)


def out_of_time(*_: Any) -> None:
    raise SystemExit(f"test-slurm: FAILED: not done within {LIMIT} s")


def main() -> None:
    if subprocess.run([CLUSTER, "install"]).returncode == CANNOT_INSTALL:
        print("test-slurm: SKIPPED: there is no SLURM here, and none can be installed")
        return
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(LIMIT)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = folder / "cluster"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ["SLURM_LOCAL_PORT"] = str(probe.getsockname()[1])
    os.environ |= {"SLURM_CONF": str(cluster / "slurm.conf"), "OMP_NUM_THREADS": "1"}
    try:
        subprocess.run([CLUSTER, "start", cluster], check=True)
        say("SLURM is up")
        jobs, tasks = train_disturbed(folder / "study")
        compare(jobs, train_undisturbed(folder / "undisturbed"), tasks)
    except BaseException:
        show_logs(folder)
        raise
    finally:
        signal.alarm(0)
        pids = [int(path.read_text()) for path in cluster.glob("*.pid")]
        end_jobs()
        subprocess.run([CLUSTER, "stop", cluster], check=True)
    alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    check(len(pids) == 3 and not alive, "slurmctld, slurmd and munged were ended")
    shutil.rmtree(folder)
    print("test-slurm: passed")


if __name__ == "__main__":
    main()
