"""From jobs to a batch script and back to outcomes; SLURM's own commands are stand-ins here.

The real thing is tests/slurm/preemption.py, which `make test-slurm` runs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fakes import write_run
from support.runs import make_tiny_run
from support.training import assert_same

from convnext_study.errors import RunFailed, UserError
from convnext_study.launchers import torchrun, worker
from convnext_study.launchers.distributed_env import (
    DistributedEnv,
    first_host,
    init_process_group,
    read_env,
)
from convnext_study.launchers.graph import Job, read_jobs, write_jobs
from convnext_study.launchers.resources import cores
from convnext_study.launchers.slurm import queue
from convnext_study.launchers.slurm.cluster import (
    ClusterConfig,
    ClusterConfigError,
    read_cluster,
    script_text,
)
from convnext_study.launchers.slurm.queue import Task, follow, waiting_tasks
from convnext_study.launchers.slurm.submit import fit_to_node, run_slurm
from convnext_study.launchers.torchrun import run_torchrun
from convnext_study.launchers.worker import STOP_SIGNALS
from convnext_study.runs.files import CHECKPOINT, LOG
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.records import TaskRef, read
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

CLUSTERS = Path(__file__).parents[2] / "launch" / "clusters"
PROFILE = ClusterConfig(minutes=60, processes=2)


def make_jobs(study: Path, count: int = 2, **changes: Any) -> list[Job]:
    runs = [
        make_tiny_run(**changes).model_copy(update={"seed": seed, "name": f"run{seed}"})
        for seed in range(count)
    ]
    return [Job(run, study / "runs" / run.id, Runtime()) for run in runs]


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
    return Commands(folder)


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
            "partitoin: extra inputs are not permitted; did you mean partition?",
        ),
        ("partition = 'x'", "minutes: field required"),
        ("minutes = 0", "minutes: input should be greater than or equal to 1"),
        ("minutes = 60\ngpus = 'two'", "gpus: input should be a valid integer"),
        ('minutes = 60\naccount = "a\\nrm -rf x"', "account: a character that cannot stand here"),
        ("minutes = 60\nsbatch = {requeue = true}", "sbatch.requeue: the launcher sets this one"),
        ("minutes = 60\nsbatch = {'a b' = 'x'}", "sbatch.a b"),
        ("minutes = 60\nenvironment = {'A;b' = 'x'}", "environment.A;b"),
        ("minutes = 60\ngpus = 2\nprocesses = 3", "processes: 3 on 2 GPUs; use at most one a GPU"),
        ("minutes = 1\nsignal_seconds = 60", "signal_seconds: 60 leaves nothing of 1 minutes"),
        ("minutes =", "not TOML"),
    ],
)
def test_a_profile_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(ClusterConfigError) as caught:
        read_cluster(path)
    said = str(caught.value)
    assert said.startswith(f"cluster {path}: ")
    assert message in said
    assert "\n" not in said


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterConfigError, match=r"none\.toml: cannot be read \(No such file"):
        read_cluster(tmp_path / "none.toml")


# The worker


def test_jobs_survive_json(tmp_path: Path) -> None:
    jobs = [
        replace(job, wandb="offline", runtime=Runtime(threads=3, corrupt_images="skip"))
        for job in make_jobs(tmp_path)
    ]
    write_jobs(tmp_path / "jobs.json", jobs)
    assert read_jobs(tmp_path / "jobs.json") == jobs


@pytest.mark.parametrize("text", ["", "{}}", "[{}]", '[{"run": {}, "folder": "x"}]', "[3]"])
def test_a_damaged_list_of_jobs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"jobs\.json: not a readable list of jobs"):
        read_jobs(path)


def test_place_by_torchrun() -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"}
    inside_slurm = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    place = DistributedEnv(rank=3, world_size=4, local_rank=1, address="a", port=1234)
    assert read_env({**said, "MASTER_PORT": "1234", **inside_slurm}) == place


def test_place_by_srun() -> None:
    said = {
        "SLURM_PROCID": "9",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "16",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NODELIST": "gpu[03-04]",
        "SLURM_JOB_ID": "17",
    }
    place = read_env(said)
    assert (place.rank, place.world_size, place.local_rank) == (9, 16, 1)
    assert place.address == "gpu03"
    # Another job, and another start of this one, meet elsewhere.
    others = [{**said, "SLURM_JOB_ID": "18"}, {**said, "SLURM_RESTART_COUNT": "1"}]
    ports = {place.port, *(read_env(other).port for other in others)}
    assert len(ports) == 3
    assert all(1024 < port < 32768 for port in ports)
    assert read_env({**said, "SLURM_STEP_NUM_NODES": "1"}).address == "127.0.0.1"


def test_a_batch_script_is_not_a_step() -> None:
    assert (
        read_env({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"})
        == DistributedEnv()
    )
    assert read_env({}) == DistributedEnv()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu03", "gpu03"),
        ("gpu[03-05,9],big1", "gpu03"),
        ("gpu[7,9]", "gpu7"),
        ("a[1-2]b[03-04]", "a1b03"),
        ("x,y", "x"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.usefixtures("_handlers")
def test_a_worker_told_to_stop_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(tmp_path, 1)
    write_jobs(tmp_path / "jobs.json", jobs)
    log = RunFolder.log

    def log_and_signal(folder: RunFolder, line: dict[str, Any]) -> None:
        log(folder, line)
        if line.get("event") == "epoch":
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(RunFolder, "log", log_and_signal)
    assert worker.main([str(tmp_path / "jobs.json"), "0"]) == 75
    monkeypatch.setattr(RunFolder, "log", log)
    assert (jobs[0].folder / CHECKPOINT).exists()
    assert read(jobs[0].folder).result is None
    assert worker.main([str(tmp_path / "jobs.json")]) == 0
    events = [event["event"] for event in read(jobs[0].folder).events]
    assert events == ["started", "stopped", "resumed", "done"]
    train(jobs[0].run, tmp_path / "alone")
    assert_same(jobs[0].folder, tmp_path / "alone")


@pytest.mark.usefixtures("_handlers")
def test_exit_codes_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, fails = make_jobs(tmp_path)
    bad = replace(bad, run=bad.run.model_copy(update={"data": "nonsense:"}))
    fails = replace(fails, run=fails.run.model_copy(update={"task": TaskRef(name="os:listdir")}))
    path = tmp_path / "jobs.json"
    write_jobs(path, [bad, fails])
    assert worker.main([str(path), "2"]) == 2
    assert "job 2 of 2: there is none" in capfd.readouterr().err
    assert worker.main([str(path), "0"]) == 2
    assert f"convnext-study: {bad.run.id}: failed: " in capfd.readouterr().err
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert worker.main([str(path)]) == 1
    said = capfd.readouterr().err
    assert f"convnext-study: {fails.run.id}: failed: " in said
    assert "Traceback" in said
    # With a signal on its way it is a failure still: nothing was saved that could go on.
    assert worker.main([str(path), "--while-locked", str(tmp_path)]) == 1
    assert worker.main([str(path), "0", "--while-locked", str(tmp_path)]) == 2


# torchrun


def test_two_processes_share_runs_until_told_to_stop(tmp_path: Path) -> None:
    one, other = make_jobs(tmp_path, 2)
    other = replace(other, run=make_tiny_run(epochs=500))
    log = other.folder / LOG
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        if log.exists() and '"epoch"' in log.read_text():
            os.kill(os.getpid(), signal.SIGINT)

    outcomes = run_torchrun([one, other], 2, interrupt)
    said = (tmp_path / torchrun.LOG_FILE).read_text()
    assert [outcome.status for outcome in outcomes] == ["done", "stopped"], said
    result = read(one.folder).result
    assert result is not None
    assert result.value > 40
    assert (other.folder / CHECKPOINT).exists()
    assert read(other.folder).events[-1]["event"] == "stopped"
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_are_shared_out(tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, 1)
    wide = replace(job, runtime=Runtime(threads=cores()))
    assert torchrun._shared(wide, 1).runtime.threads == cores()
    assert torchrun._shared(wide, cores()).runtime.threads == 1
    assert torchrun._shared(wide, 2 * cores()).runtime.threads == 1
    assert torchrun._shared(job, 1) == job


def append(job: Job, *lines: dict[str, Any]) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / LOG).open("a") as log:
        log.writelines(json.dumps(line) + "\n" for line in lines)


def test_a_failure_takes_only_its_own_run(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, 3)
    write_run(tmp_path, jobs[0].run)
    output = f"convnext-study: {jobs[1].run.id}: failed: no such image\nTraceback ...\n"
    outcomes = torchrun._ends_of(jobs, {0: 0, 1: 0, 2: 0}, (1, output), False)
    assert [(one.run.id, one.status) for one in outcomes] == [
        (jobs[0].run.id, "done"),
        (jobs[1].run.id, "failed"),
    ]
    assert outcomes[1].reason == f"no such image; see {tmp_path / 'torchrun.log'}"
    (silent,) = torchrun._ends_of(jobs, {1: 0}, (137, ""), False)
    assert silent.reason.startswith("its processes ended with code 137")
    (early,) = torchrun._ends_of(jobs, {1: 0}, (1, ""), True)
    assert early.status == "stopped"  # before it had begun


def test_what_an_earlier_start_logged_is_no_sign_of_this_one(tmp_path: Path) -> None:
    (job,) = make_jobs(tmp_path, 1)
    append(job, {"event": "started"}, {"event": "stopped"})

    def settle(before: int, output: str = "", *, stopped: bool = False) -> tuple[str, str]:
        (outcome,) = torchrun._ends_of([job], {0: before}, (1, output), stopped)
        return outcome.status, outcome.reason

    assert settle(0) == ("stopped", "")
    for stopped in (False, True):
        status, reason = settle(2, "convnext-study: worker: failed: no GPU", stopped=stopped)
        assert status == "failed" and reason.startswith("no GPU; see ")
    assert settle(2)[0] == "failed"
    # Killed while it saved: whoever asked for the stop has no saved state.
    append(job, {"event": "resumed"})
    assert settle(2, stopped=True)[0] == "failed"
    # Two of four processes say why, and the second only what the first one's end did to it.
    append(job, {"event": "failed", "rank": 3, "reason": "CorruptImage: a.jpg"})
    append(job, {"event": "failed", "rank": 0, "reason": "RuntimeError: connection closed"})
    for stopped in (False, True):
        status, reason = settle(2, stopped=stopped)
        assert status == "failed" and reason.startswith("CorruptImage: a.jpg; see ")


def test_torchrun_gives_its_workers_time_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []

    class Process:
        def __init__(self, *_: Any, env: dict[str, str], **__: Any) -> None:
            given.append(env)

        def wait(self, _: float) -> int:
            return 1

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    run_torchrun(make_jobs(tmp_path, 1), 1)
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "7")
    run_torchrun(make_jobs(tmp_path, 1), 1)
    assert [env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] for env in given] == ["600", "7"]
    assert given[0]["PATH"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_processes_meet_with_a_device_and_a_time_limit(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    given: dict[str, Any] = {}

    def meet(backend: str, **options: Any) -> None:
        given.update(options, backend=backend)

    monkeypatch.setattr(torch.distributed, "init_process_group", meet)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: given.update(current=device))
    for name in ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
    place = DistributedEnv(rank=5, world_size=8, local_rank=1, address="127.0.0.1", port=4)
    own = init_process_group(place, device)
    assert (given["rank"], given["world_size"]) == (5, 8)
    assert 600 < given["timeout"].total_seconds() < 3600
    if device == "cuda":
        assert (own, given["current"], given["backend"]) == ("cuda:1", "cuda:1", "nccl")
        assert given["device_id"] == torch.device("cuda:1")
    else:
        assert (own, given["backend"], given["device_id"]) == ("cpu", "gloo", None)


def test_processes_that_do_not_meet_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.distributed.DistStoreError("timed out\nwith a stack")

    monkeypatch.setattr(torch.distributed, "init_process_group", fail)
    for name in ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
    with pytest.raises(
        RunFailed, match=r"^rank 1: did not meet the other processes \(timed out\)$"
    ):
        init_process_group(DistributedEnv(rank=1, world_size=2, address="127.0.0.1", port=4), "cpu")


def test_more_processes_than_there_can_be(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path)
    with pytest.raises(UserError, match="processes: 0; use 1 or more"):
        run_torchrun(jobs, 0)
    on_gpu = [replace(job, runtime=Runtime(device="cuda")) for job in jobs]
    with pytest.raises(UserError, match=r"processes: 99 on \d+ GPUs"):
        run_torchrun(on_gpu, 99)


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
    [
        ("0", "0", False),
        ("1", "0", False),
        ("75", "", True),
        ("75", "99", True),
        ("75", "100", False),
    ],
)
def test_a_run_that_was_stopped_is_requeued(
    tmp_path: Path, commands: Commands, code: str, restarts: str, requeued: bool
) -> None:
    commands.add("srun", f"exit {code}")
    commands.add("scontrol", "")
    text = script_text(["test"], tmp_path, PROFILE)
    assert run_script(text, SLURM_RESTART_COUNT=restarts) == int(code)
    assert commands.calls("scontrol") == (["requeue 17"] if requeued else [])
    without = script_text(["test"], tmp_path, PROFILE.model_copy(update={"requeue": False}))
    assert "#SBATCH --no-requeue" in without
    assert "scontrol" not in without


def test_names_are_never_commands(tmp_path: Path, commands: Commands) -> None:
    commands.add("srun", "")
    evil = "$(touch pwned)`touch pwned`; touch pwned #' \""
    cluster = PROFILE.model_copy(
        update={"account": evil, "environment": {"A": evil}, "srun": (evil,), "python": evil}
    )
    text = script_text([f"a\ntouch pwned\n{evil}"], tmp_path / evil, cluster)
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        assert run_script(text) == 0
    finally:
        os.chdir(here)
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
    assert [(one.status, one.reason) for one in outcomes] == [
        ("submitted", "job 17_0"),
        ("submitted", "job 17_1"),
    ]
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
    assert [job.run.id for job in read_jobs(tmp_path / "slurm" / "0002" / "jobs.json")] == [
        jobs[0].run.id
    ]


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
    held = [
        json.loads(path.read_text()) for path in sorted(tmp_path.glob("slurm/*/submitted.json"))
    ]
    named = [[task for task, _ in one.values()] for one in held]
    assert named == [tasks[:2], tasks[2:4], tasks[4:]]

    commands.add("squeue", "printf '%s\\n' " + " ".join(tasks))
    assert run_slurm(jobs, cluster, wait=False) == outcomes
    assert len(commands.calls("sbatch")) == 3


def test_what_was_submitted_before_a_refusal_stays(tmp_path: Path, commands: Commands) -> None:
    jobs = make_jobs(tmp_path, 3)
    cluster = PROFILE.model_copy(update={"max_array_size": 2})
    refuse = '[ "$(wc -l <"$0.calls")" = 1 ] || { echo too many >&2; exit 1; }; '
    commands.add("sbatch", refuse + NEXT)
    commands.add("squeue", "printf '17_0\\n17_1\\n'")
    with pytest.raises(
        RunFailed, match=r"too many.*; 2 runs are in the queue, the same command sub"
    ):
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
        with pytest.raises(UserError, match="there is no sbatch here"):
            run_slurm(jobs, PROFILE)
        patch.setitem(sys.modules, "submitit", None)
        with pytest.raises(
            UserError, match=r"submitit is missing; install convnext-study\[slurm\]"
        ):
            run_slurm(jobs, PROFILE, dry_run=True)
    commands.add("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    commands.add("squeue", "")
    with pytest.raises(
        RunFailed, match=r"^slurm: sbatch refused the jobs: .*invalid partition[^\n]*$"
    ):
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


def test_outcomes_come_from_the_records(
    tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "TICK", 0.01)
    monkeypatch.setattr(queue, "POLL", 0.01)
    jobs = make_jobs(tmp_path, 4)
    write_run(tmp_path, jobs[0].run)
    write_run(tmp_path, jobs[1].run, status="failed")
    write_run(tmp_path, jobs[2].run, status="unfinished")
    append(jobs[2], {"event": "stopped"})
    commands.add("squeue", "")
    tasks = {f"17_{index}": Task(job) for index, job in enumerate(jobs)}
    outcomes = follow(tasks, tmp_path / "slurm", lambda: None)
    found = {one.run.name: (one.status, one.reason) for one in outcomes}
    assert found["run0"] == ("done", "")
    assert found["run1"][0] == "failed"
    assert "job 17_1: TrainingError: the loss is nan" in found["run1"][1]
    assert found["run2"] == ("stopped", "job 17_2 left the queue with its state saved")
    assert found["run3"][0] == "failed"
    assert "left the queue with no result; see" in found["run3"][1]
    assert len(commands.calls("squeue")) == 2  # one look is not enough: shared disks are slow


def test_a_job_that_failed_at_once_is_not_told_by_the_job_before(
    tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "TICK", 0.01)
    monkeypatch.setattr(queue, "POLL", 0.01)
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
    assert outcomes[jobs[0].run.id].status == "failed"
    assert "left the queue with no result" in outcomes[jobs[0].run.id].reason
    assert outcomes[jobs[1].run.id].status == "stopped"


def test_ctrl_c_ends_the_waiting_not_the_jobs(
    tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = make_jobs(tmp_path, 1)
    monkeypatch.setattr(queue, "TICK", 0.01)
    commands.add("squeue", "echo 17")
    commands.add("scancel", "")
    before = signal.getsignal(signal.SIGINT)
    (outcome,) = follow({"17": Task(job)}, tmp_path, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert outcome.status == "submitted"
    assert outcome.reason == "job 17 goes on in the queue; to end it: scancel 17"
    assert commands.calls("scancel") == []
    assert signal.getsignal(signal.SIGINT) is before


def test_the_one_machine_slurm_is_a_script_that_parses() -> None:
    script = CLUSTERS.parents[1] / "tests" / "slurm" / "local_cluster.sh"
    assert shutil.which("bash")
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run([script, "start"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "local_cluster: start needs a folder\n")
