"""From jobs to a batch script and back to outcomes; SLURM's own commands are stand-ins here.

The real thing is tests/slurm/preemption.py, which `make test-slurm` runs.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.fakes import write_run
from support.runs import append, make_jobs

from convnext_study.errors import RunFailed, UserError
from convnext_study.launchers.graph import read_jobs
from convnext_study.launchers.slurm import submit
from convnext_study.launchers.slurm.cluster import (
    ClusterConfig,
    ClusterConfigError,
    read_cluster,
    script_text,
)
from convnext_study.launchers.slurm.submit import (
    Task,
    fit_to_node,
    follow,
    run_slurm,
    waiting_tasks,
)
from convnext_study.training.runtime import Runtime

CLUSTERS = Path(__file__).parents[2] / "launch" / "clusters"
PROFILE = ClusterConfig(minutes=60, processes=2)


class Commands:
    """Stand-ins for programs: each writes down its arguments and does what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >>"{path}.calls"\n{body}\n')
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for wait in ("TICK", "POLL"):
        monkeypatch.setattr(submit, wait, 0.01)
    return Commands(folder)


# Profiles


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_examples_are_profiles(path: Path, tmp_path: Path) -> None:
    cluster = read_cluster(path)
    assert cluster.world_size == cluster.nodes * (cluster.processes or cluster.gpus)
    script = script_text(["roadmap-t"] * 17, tmp_path, cluster)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_processes_and_device_follow_the_gpus() -> None:
    assert (ClusterConfig(minutes=1).world_size, ClusterConfig(minutes=1).device) == (1, "cpu")
    eight = ClusterConfig(minutes=1, gpus=8, nodes=2)
    assert (eight.processes_per_node, eight.world_size, eight.device) == (8, 16, "cuda")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "minutes = 60\npartitoin = 'x'",
            "partitoin: extra inputs are not permitted; did you mean",
        ),
        ("partition = 'x'", "minutes: field required"),
        ("minutes = 0", "minutes: input should be greater than or equal to 1"),
        ("minutes = 60\ngpus = 'two'", "gpus: input should be a valid integer"),
        ('minutes = 60\naccount = "a\\nrm -rf x"', "account: a character that cannot stand here"),
        ("minutes = 60\nsbatch = {requeue = true}", "sbatch.requeue: is set by the launcher"),
        ("minutes = 60\nsbatch = {'a b' = 'x'}", "sbatch.a b"),
        ("minutes = 60\nenvironment = {'A;b' = 'x'}", "environment.A;b"),
        (
            "minutes = 60\ngpus = 2\nprocesses = 3",
            "processes: 3 on 2 GPUs; use at most one per GPU",
        ),
        ("minutes = 1\nsignal_seconds = 60", "signal_seconds: 60 leaves no time in 1 minutes"),
        ("minutes =", "not TOML"),
        (None, "cannot be read (No such file"),
    ],
)
def test_a_profile_that_cannot_be_used(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "site.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClusterConfigError) as caught:
        read_cluster(path)
    said = str(caught.value)
    assert said.startswith(f"cluster {path}: ")
    assert message in said
    assert "\n" not in said


# The batch script


def test_dry_run_prints_the_script_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no SLURM is needed for it
    cluster = ClusterConfig(
        partition="gpu",
        account="my project",
        gpus=4,
        nodes=2,
        cpus_per_process=6,
        memory_gb=1.5,
        minutes=90,
        signal_seconds=75,
        array_limit=1,
        modules=("cuda/12",),
        environment={"A": "b c"},
        sbatch={"exclude": "n1", "exclusive": True, "overcommit": False},
        srun=("--mpi=none",),
    )
    assert run_slurm(make_jobs(tmp_path / "study"), cluster, dry_run=True) == []
    assert list(tmp_path.iterdir()) == []
    lines = capsys.readouterr().out.splitlines()
    settings = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    logs = tmp_path / "study" / "slurm" / "0001" / "%A_%a_0_log"
    assert settings == {
        *("partition=gpu", "account='my project'", "nodes=2", "gpus-per-node=4"),
        *("ntasks-per-node=4", "cpus-per-task=6", "mem=1536M", "time=90", "signal=USR1@75"),
        *("requeue", "array=0-1%1", "exclude=n1", "exclusive", "job-name=test"),
        *("open-mode=append", f"output={logs}.out", f"error={logs}.err"),
    }
    assert "module load cuda/12" in lines
    assert "export A='b c'" in lines
    (start,) = [line for line in lines if line.startswith("srun ")]
    assert "--cpus-per-task=6 --kill-on-bad-exit=0 --wait=60 --mpi=none" in start
    assert start.endswith("slurm/0001/jobs.json")


def run_script(text: str, **environment: str) -> int:
    return subprocess.run(
        ["bash"], input=text, text=True, env={**os.environ, "SLURM_JOB_ID": "17", **environment}
    ).returncode


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, "0", False), (1, "0", False), (75, "", True), (75, "99", True), (75, "100", False)],
)
def test_a_run_that_was_stopped_is_requeued(
    tmp_path: Path, commands: Commands, code: int, restarts: str, requeued: bool
) -> None:
    commands.add("srun", f"exit {code}")
    commands.add("scontrol", "")
    text = script_text(["test"], tmp_path, PROFILE)
    assert run_script(text, SLURM_RESTART_COUNT=restarts) == code
    assert commands.calls("scontrol") == (["requeue 17"] if requeued else [])
    without = script_text(["test"], tmp_path, PROFILE.model_copy(update={"requeue": False}))
    assert "#SBATCH --no-requeue" in without
    assert "scontrol" not in without


def test_names_are_never_commands(
    tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.add("srun", "")
    evil = "$(touch pwned)`touch pwned`; touch pwned #' \""
    cluster = PROFILE.model_copy(
        update={"account": evil, "environment": {"A": evil}, "srun": (evil,), "python": evil}
    )
    text = script_text([f"a\ntouch pwned\n{evil}"], tmp_path / evil, cluster)
    monkeypatch.chdir(tmp_path)
    assert run_script(text) == 0
    assert not (tmp_path / "pwned").exists()
    assert commands.calls("srun")[0].count(evil) == 5  # output, error, argument, python, jobs


def test_a_folder_that_slurm_would_misread(tmp_path: Path) -> None:
    for name in ("100%", "a\nb"):
        with pytest.raises(UserError, match="choose another --out"):
            run_slurm(make_jobs(tmp_path / name), PROFILE, dry_run=True)


def test_a_job_is_fitted_to_the_node_it_will_run_on(tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, 1)
    here = replace(job, runtime=Runtime(device="cpu", threads=64))
    there = fit_to_node(here, ClusterConfig(minutes=1, gpus=1, cpus_per_process=8)).runtime
    assert (there.device, there.threads) == ("cuda", 8)
    assert fit_to_node(job, ClusterConfig(minutes=1, cpus_per_process=8)).runtime == Runtime()


# Submission and the queue


def test_submitted_once(tmp_path: Path, commands: Commands) -> None:
    jobs = make_jobs(tmp_path)
    commands.add("sbatch", 'cp "$1" "$0.script"; echo Submitted batch job 17')
    commands.add("squeue", "printf '17_0\\n17_1\\n'")
    outcomes = run_slurm(jobs, PROFILE, wait=False)
    assert [one.status for one in outcomes] == ["submitted"] * 2
    assert [one.reason for one in outcomes] == ["job 17_0", "job 17_1"]
    folder = tmp_path / "slurm" / "0001"
    script = (commands.folder / "sbatch.script").read_text()
    assert script == script_text(["test"] * 2, folder, PROFILE)
    assert [job.run for job in read_jobs(folder / "jobs.json")] == [job.run for job in jobs]

    assert run_slurm(jobs, PROFILE, wait=False) == outcomes
    assert len(commands.calls("sbatch")) == 1

    commands.add("sbatch", "echo Submitted batch job 18")
    commands.add("squeue", "echo 17_1")  # the first has left the queue
    again = run_slurm(jobs, PROFILE, wait=False)
    assert [one.reason for one in again] == ["job 18", "job 17_1"]
    (fresh,) = read_jobs(tmp_path / "slurm" / "0002" / "jobs.json")
    assert fresh.run == jobs[0].run


NEXT = 'n=$(wc -l <"$0.calls"); cp "$1" "$0.script$n"; echo Submitted batch job $((16 + n))'


@pytest.mark.parametrize("limit", ["profile", "site"])
def test_a_request_beyond_the_sites_limit_is_several_arrays(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    jobs = make_jobs(tmp_path, 5)
    cluster = PROFILE.model_copy(update={"array_limit": 7})
    commands.add("sbatch", NEXT)
    commands.add("squeue", "")
    if limit == "profile":
        cluster = cluster.model_copy(update={"max_array_size": 2})
    else:
        commands.add("scontrol", "printf 'MaxAge = 9\\nMaxArraySize            = 2\\n'")
    assert run_slurm(jobs, cluster, dry_run=True) == []
    shown = capsys.readouterr().out
    outcomes = run_slurm(jobs, cluster, wait=False)
    tasks = ["17_0", "17_1", "18_0", "18_1", "19"]
    assert [one.reason for one in outcomes] == [f"job {task}" for task in tasks]
    scripts = [(commands.folder / f"sbatch.script{n}").read_text() for n in (1, 2, 3)]
    assert shown == "".join(script + "\n" for script in scripts)
    for script in scripts[:2]:  # seven at a time of all, so two of each
        assert "#SBATCH --array=0-1%2" in script
    assert "--array" not in scripts[2]
    commands.add("squeue", "printf '%s\\n' " + " ".join(tasks))
    assert run_slurm(jobs, cluster, wait=False) == outcomes
    assert len(commands.calls("sbatch")) == 3


def test_what_was_submitted_before_a_refusal_stays(tmp_path: Path, commands: Commands) -> None:
    jobs = make_jobs(tmp_path, 3)
    cluster = PROFILE.model_copy(update={"max_array_size": 2})
    refuse = '[ "$(wc -l <"$0.calls")" = 1 ] || { echo too many >&2; exit 1; }; '
    commands.add("sbatch", refuse + NEXT)
    commands.add("squeue", "printf '17_0\\n17_1\\n'")
    with pytest.raises(RunFailed, match=r"too many.*; 2 runs are in the queue, the same command"):
        run_slurm(jobs, cluster, wait=False)
    commands.add("sbatch", "echo Submitted batch job 20")
    outcomes = run_slurm(jobs, cluster, wait=False)
    assert [one.reason for one in outcomes] == ["job 17_0", "job 17_1", "job 20"]


def test_what_slurm_refuses(
    tmp_path: Path,
    commands: Commands,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = make_jobs(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(commands.folder))
        with pytest.raises(UserError, match="sbatch was not found"):
            run_slurm(jobs, PROFILE)
        patch.setitem(sys.modules, "submitit", None)
        with pytest.raises(
            UserError, match=r"submitit is not installed; install convnext-study\[slurm"
        ):
            run_slurm(jobs, PROFILE, dry_run=True)
    commands.add("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    commands.add("squeue", "")
    with pytest.raises(RunFailed, match=r"^slurm: sbatch refused .*: invalid partition[^\n]*$"):
        run_slurm(jobs, PROFILE)
    assert not list((tmp_path / "slurm").iterdir())
    assert capfd.readouterr().err == ""
    assert run_slurm([], PROFILE) == []


def test_the_queue(commands: Commands) -> None:
    assert waiting_tasks([]) == set()
    commands.add("squeue", "echo 17_1")
    assert waiting_tasks(["17_0", "17_1", "4"]) == {"17_1"}
    assert "--jobs=4,17" in commands.calls("squeue")[0]
    commands.add("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert waiting_tasks(["17"]) == set()
    commands.add("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert waiting_tasks(["17"]) is None


def test_outcomes_come_from_the_records(tmp_path: Path, commands: Commands) -> None:
    jobs = make_jobs(tmp_path, 4)
    write_run(tmp_path, jobs[0].run)
    write_run(tmp_path, jobs[1].run, status="failed")
    write_run(tmp_path, jobs[2].run, status="unfinished")
    append(jobs[2], {"event": "stopped"})
    commands.add("squeue", "")
    tasks = {f"17_{index}": Task(job) for index, job in enumerate(jobs)}
    outcomes = follow(tasks, tmp_path / "slurm", lambda: None)
    found = {one.run.name: (one.status, one.reason.partition("; see ")[0]) for one in outcomes}
    assert found == {
        "run0": ("done", ""),
        "run1": ("failed", "job 17_1: TrainingError: the loss is nan at step 41"),
        "run2": ("stopped", "job 17_2 left the queue with its state saved"),
        "run3": ("failed", "job 17_3: left the queue without a result"),
    }
    assert len(commands.calls("squeue")) == 2  # one look is not enough: shared disks are slow


def test_a_job_that_failed_at_once_is_not_told_by_the_job_before(
    tmp_path: Path, commands: Commands
) -> None:
    jobs = make_jobs(tmp_path)
    for job in jobs:
        append(job, {"event": "started"}, {"event": "stopped"})
    commands.add("sbatch", "echo Submitted batch job 17")
    commands.add("squeue", "printf '17_0\\n17_1\\n'")
    run_slurm(jobs, PROFILE, wait=False)
    append(jobs[1], {"event": "resumed"}, {"event": "stopped"})
    seen = iter([True])

    def leave() -> None:
        if not next(seen, False):
            commands.add("squeue", "")

    outcomes = {one.run.id: one for one in run_slurm(jobs, PROFILE, on_poll=leave)}
    assert len(commands.calls("sbatch")) == 1
    first, second = (outcomes[job.run.id] for job in jobs)
    assert (first.status, second.status) == ("failed", "stopped")
    assert "left the queue without a result" in first.reason


def test_ctrl_c_ends_the_waiting_not_the_jobs(tmp_path: Path, commands: Commands) -> None:
    (job,) = make_jobs(tmp_path, 1)
    commands.add("squeue", "echo 17")
    commands.add("scancel", "")
    before = signal.getsignal(signal.SIGINT)
    (outcome,) = follow({"17": Task(job)}, tmp_path, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert outcome.status == "submitted"
    assert outcome.reason == "job 17 continues in the queue; to end it: scancel 17"
    assert commands.calls("scancel") == []
    assert signal.getsignal(signal.SIGINT) is before
