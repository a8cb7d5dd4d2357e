"""What a worker is given and how it ends; processes that meet, share runs and end together."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fakes import write_run
from support.runs import append, make_jobs, make_tiny_run

from convnext_study.errors import RunFailed, UserError
from convnext_study.launchers import torchrun, worker
from convnext_study.launchers.graph import read_jobs, write_jobs
from convnext_study.launchers.resources import cores
from convnext_study.launchers.torchrun import run_torchrun
from convnext_study.launchers.worker import (
    STOP_SIGNALS,
    DistributedEnv,
    init_process_group,
    read_env,
)
from convnext_study.runs.files import CHECKPOINT, LOG
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.records import TaskRef, read
from convnext_study.training.runtime import Runtime


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
    for nodes, first in (
        ("gpu03", "gpu03"),
        ("gpu[03-05,9],big1", "gpu03"),
        ("gpu[7,9]", "gpu7"),
        ("a[1-2]b[03-04]", "a1b03"),
        ("x,y", "x"),
    ):
        assert read_env({**said, "SLURM_STEP_NODELIST": nodes}).address == first
    # Another job, and another start of this one, meet elsewhere.
    others = [{**said, "SLURM_JOB_ID": "18"}, {**said, "SLURM_RESTART_COUNT": "1"}]
    ports = {place.port, *(read_env(other).port for other in others)}
    assert len(ports) == 3
    assert all(1024 < port < 32768 for port in ports)
    assert read_env({**said, "SLURM_STEP_NUM_NODES": "1"}).address == "127.0.0.1"


def test_a_batch_script_is_not_a_step() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}
    assert read_env(batch) == read_env({}) == DistributedEnv()


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


@pytest.mark.usefixtures("_handlers")
def test_exit_codes_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, fails = make_jobs(tmp_path)
    bad = replace(bad, run=bad.run.model_copy(update={"data": "nonsense:"}))
    fails = replace(fails, run=fails.run.model_copy(update={"task": TaskRef(name="os:listdir")}))
    path = tmp_path / "jobs.json"
    write_jobs(path, [bad, fails])
    write_jobs(alone := tmp_path / "alone.json", [bad])
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    # With a signal on its way it is a failure still: nothing was saved that could go on.
    signalled = ("--while-locked", str(tmp_path))
    for words, code, says in (
        ([path, "2"], 2, f"job 2 of {path}: does not exist"),
        ([path, "0"], 2, f"{bad.run.id}: failed: "),
        ([path], 1, f"{fails.run.id}: failed: "),
        ([alone], 2, f"{bad.run.id}: failed: "),
        ([path, *signalled], 1, f"{fails.run.id}: failed: "),
        ([path, "0", *signalled], 2, f"{bad.run.id}: failed: "),
    ):
        assert worker.main([str(word) for word in words]) == code
        errors = capfd.readouterr().err
        assert f"convnext-study: {says}" in errors or f"worker: failed: {says}" in errors
        assert ("Traceback" in errors) == (code == 1)


# torchrun


def test_two_processes_share_runs_until_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")  # of a job that this command runs in
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


STOPPED = {"event": "stopped"}
NO_GPU = "convnext-study: worker: failed: no GPU\n"
# Two of four processes say why, and the second only what the first one's end did to it.
TWO = ({"rank": 3, "reason": "CorruptImage: a.jpg"}, {"rank": 0, "reason": "Error: closed"})


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize(
    ("events", "output", "status", "reason"),
    [
        ([], "convnext-study: RUN: failed: no image\nTraceback ...\n", "failed", "no image; see "),
        ([], "", "failed", "its processes ended with code 2; see "),
        ([], NO_GPU, "failed", "no GPU; see "),
        ([STOPPED], "", "stopped", ""),
        # Killed while it saved: whoever stops it has no saved state.
        ([{"event": "resumed"}], "", "failed", "its processes ended with code 2"),
        ([{"event": "failed", **one} for one in TWO], "", "failed", "CorruptImage: a.jpg; see "),
    ],
)
def test_how_a_run_ended(
    tmp_path: Path,
    events: list[dict[str, Any]],
    output: str,
    status: str,
    reason: str,
    stopped: bool,
) -> None:
    (job,) = make_jobs(tmp_path, 1)
    if stopped and not (events or output):  # before it had begun
        status, reason = "stopped", ""
    # What an earlier start logged says nothing of this one.
    append(job, {"event": "started"}, STOPPED, *events)
    ended = torchrun._end_of(job, 2, 2, output.replace("RUN", job.run.id), stopped)
    assert ended.status == status and ended.reason.startswith(reason)
    assert (str(tmp_path / torchrun.LOG_FILE) in ended.reason) == (status == "failed")
    write_run(tmp_path / "done", job.run)
    done = replace(job, folder=tmp_path / "done" / "runs" / job.run.id)
    assert torchrun._end_of(done, 0, 2, output, stopped).status == "done"


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


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> DistributedEnv:
    """One of eight processes on two nodes of four GPUs."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    return DistributedEnv(rank=5, world_size=8, local_rank=1, address="127.0.0.1", port=4)


@pytest.mark.parametrize(
    ("device", "backend", "own"), [("cpu", "gloo", "cpu"), ("cuda", "nccl", "cuda:1")]
)
def test_processes_meet_with_a_device_and_a_time_limit(
    place: DistributedEnv, monkeypatch: pytest.MonkeyPatch, device: str, backend: str, own: str
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *how, **more: given.update(more, how=how)
    )
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: given.update(current=device))
    assert init_process_group(place, device) == given.get("current", "cpu") == own
    assert (given["rank"], given["world_size"], given["how"]) == (5, 8, (backend,))
    assert 600 < given["timeout"].total_seconds() < 3600
    assert given["device_id"] == (None if device == "cpu" else torch.device(own))


def test_processes_that_do_not_meet_are_one_line(
    place: DistributedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.distributed.DistStoreError("timed out\nwith a stack")

    monkeypatch.setattr(torch.distributed, "init_process_group", fail)
    says = r"^rank 5: could not connect to the other processes \(timed out\)$"
    with pytest.raises(RunFailed, match=says):
        init_process_group(place, "cpu")


def test_more_processes_than_there_can_be(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path)
    with pytest.raises(UserError, match="processes: 0; use 1 or more"):
        run_torchrun(jobs, 0)
    on_gpu = [replace(job, runtime=Runtime(device="cuda")) for job in jobs]
    with pytest.raises(UserError, match=r"processes: 99 on \d+ GPUs"):
        run_torchrun(on_gpu, 99)
