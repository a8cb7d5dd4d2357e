"""A SLURM site's profile, a TOML file that the user names, and the batch script made from it."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from convnext_study.errors import EXIT_STOPPED, UserError, first_fault
from convnext_study.launchers.torchrun import WORKER

# Values are written in comment lines of the batch script, which a line break would end.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$")]
OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

# sbatch options that the launcher decides, or that a field of the profile already sets.
TAKEN = {
    *("account", "array", "constraint", "cpus-per-task", "error", "gpus-per-node", "job-name"),
    *("mem", "no-requeue", "nodes", "ntasks-per-node", "open-mode", "output", "partition"),
    *("qos", "requeue", "signal", "time", "wrap"),
}


class ClusterConfigError(UserError):
    """A cluster file cannot be used; the message names the file and the field."""


class ClusterConfig(BaseModel):
    """One job's share of a cluster.

    Attributes:
        partition: as in ``sbatch``; if not given, the site's default.
        account: likewise.
        qos: likewise.
        constraint: likewise.
        nodes: machines per run.
        gpus: GPUs on each of them; 0 trains on the CPU.
        processes: on each node; if not given, one per GPU, or one without GPUs.
        cpus_per_process: cores for each process and the readers it starts.
        memory_gb: of each node.
        minutes: time limit of one start; longer runs are requeued and resume.
        signal_seconds: how long before the limit a run is signalled to save.
        requeue: start again after preemption, a node's failure or the time limit.
        max_requeues: a limit on that, for a run that makes no progress.
        array_limit: runs of one request at a time.
        max_array_size: runs in one array; a request of more is submitted as several arrays. The
            site's own limit (MaxArraySize) applies too, if SLURM reports it.
        modules: arguments of ``module load`` before the run.
        environment: variables to set.
        sbatch: further options, by their long names.
        srun: further arguments of ``srun``.
        python: the interpreter on the nodes, if it is not the one that submits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    nodes: int = Field(default=1, ge=1)
    gpus: int = Field(default=0, ge=0)
    processes: int | None = Field(default=None, ge=1)
    cpus_per_process: int = Field(default=1, ge=1)
    memory_gb: float | None = Field(default=None, gt=0)
    minutes: int = Field(ge=1)
    signal_seconds: int = Field(default=120, ge=1)
    requeue: bool = True
    max_requeues: int = Field(default=100, ge=1)
    array_limit: int = Field(default=256, ge=1)
    max_array_size: int = Field(default=1000, ge=1)
    modules: tuple[Text, ...] = ()
    environment: dict[VariableName, Text] = Field(default_factory=dict)
    sbatch: dict[OptionName, Text | int | bool] = Field(default_factory=dict)
    srun: tuple[Text, ...] = ()
    python: Text | None = None

    @property
    def processes_per_node(self) -> int:
        """Processes on each node: one per GPU unless given."""
        return self.processes or max(self.gpus, 1)

    @property
    def world_size(self) -> int:
        """Processes that share a run."""
        return self.nodes * self.processes_per_node

    @property
    def device(self) -> str:
        """The device that runs train on: ``cuda`` or ``cpu``."""
        return "cuda" if self.gpus else "cpu"

    def setup(self) -> list[str]:
        """Lines of the batch script before the run, with every value quoted."""
        loads = [f"module load {shlex.quote(name)}" for name in self.modules]
        return loads + [
            f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()
        ]


def read_cluster(path: Path) -> ClusterConfig:
    """The profile in a TOML file. Raises ClusterConfigError, one line that names file and field."""
    try:
        fields: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClusterConfigError(f"cluster {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not TOML, or not text
        raise ClusterConfigError(f"cluster {path}: not TOML ({error})") from None
    try:
        cluster = ClusterConfig.model_validate(fields)
    except ValidationError as error:
        raise ClusterConfigError(
            f"cluster {path}: {first_fault(error, ClusterConfig.model_fields)}"
        ) from None
    if taken := sorted(TAKEN & set(cluster.sbatch)):
        raise ClusterConfigError(
            f"cluster {path}: sbatch.{taken[0]}: is set by the launcher; use the cluster file's "
            "own field for it, or leave it out"
        )
    if cluster.gpus and cluster.processes_per_node > cluster.gpus:
        raise ClusterConfigError(
            f"cluster {path}: processes: {cluster.processes} on {cluster.gpus} GPUs; use at most "
            "one per GPU"
        )
    if cluster.signal_seconds >= 60 * cluster.minutes:
        raise ClusterConfigError(
            f"cluster {path}: signal_seconds: {cluster.signal_seconds} leaves no time in "
            f"{cluster.minutes} minutes; use less"
        )
    return cluster


JOBS = "jobs.json"

# Arguments of srun: the first process to leave must not end the others while they still write, but
# must if they hang. (SLURM 22.05 and later no longer pass --cpus-per-task on to srun.)
SRUN = ("--kill-on-bad-exit=0", "--wait=60")


def script_text(studies: Sequence[str], folder: Path, cluster: ClusterConfig) -> str:
    """The batch script of an array with one run per name in ``studies``."""
    executor = make_executor(studies, folder, cluster)
    text: str = executor._make_submission_file_text(command(folder, cluster), "")
    return text


def command(folder: Path, cluster: ClusterConfig) -> str:
    """The command of each task of the script: our worker, with the jobs of ``folder``."""
    python = cluster.python or sys.executable
    return shlex.join([python, "-u", "-m", WORKER, str(folder / JOBS)])


def import_submitit() -> Any:
    """submitit, which is an extra. Raises UserError if it is missing."""
    try:
        import submitit
    except ImportError:
        raise UserError("slurm: submitit is not installed; install convnext-study[slurm]") from None
    return submitit


def make_executor(studies: Sequence[str], folder: Path, cluster: ClusterConfig) -> Any:
    """submitit's executor for one array, used for its batch script and its submission."""

    class Executor(import_submitit().SlurmExecutor):  # type: ignore[misc]
        @classmethod
        def affinity(cls) -> int:
            return 2  # so that a script can be shown without SLURM

    executor = Executor(folder)
    executor.update_parameters(**_parameters(studies[0], cluster))
    if len(studies) > 1:
        executor.parameters["map_count"] = len(studies)
    return executor


def _parameters(study: str, cluster: ClusterConfig) -> dict[str, Any]:
    """The batch script's settings, by submitit's names."""
    memory = None if cluster.memory_gb is None else f"{round(cluster.memory_gb * 1024)}M"
    return {
        "job_name": re.sub(r"[^\w.-]", "_", study),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "nodes": cluster.nodes,
        "gpus_per_node": cluster.gpus or None,
        "ntasks_per_node": cluster.processes_per_node,
        "cpus_per_task": cluster.cpus_per_process,
        "mem": memory,
        "time": cluster.minutes,
        "array_parallelism": cluster.array_limit,
        "wckey": None,
        "additional_parameters": {
            "signal": f"USR1@{cluster.signal_seconds}",
            "requeue" if cluster.requeue else "no-requeue": True,
            **{name: value for name, value in cluster.sbatch.items() if value is not False},
        },
        "srun_args": [f"--cpus-per-task={cluster.cpus_per_process}", *SRUN, *cluster.srun],
        # A signal to the whole job must not end the script before it has seen the exit code.
        "setup": [*cluster.setup(), "trap : TERM USR1"],
        "teardown": _teardown(cluster),
    }


def _teardown(cluster: ClusterConfig) -> list[str]:
    """What follows the run: requeue the job if it was stopped with its state saved."""
    requeue = (
        f'if [ "$code" = {EXIT_STOPPED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt '
        f'{cluster.max_requeues} ]; then scontrol requeue "$SLURM_JOB_ID"; fi'
    )
    return ["code=$?", *([requeue] if cluster.requeue else []), 'exit "$code"']
