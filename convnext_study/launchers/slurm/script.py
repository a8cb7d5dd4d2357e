"""The batch script of an array of runs, as submitit writes it from a cluster's description."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext_study.errors import EXIT_STOPPED, UserError
from convnext_study.launchers.slurm.cluster import ClusterConfig
from convnext_study.launchers.torchrun import WORKER

JOBS = "jobs.json"

# srun's own: SLURM 22.05 and later no longer hand --cpus-per-task on; the first process to leave
# must not take the others along while they still write, and must take them along if they hang.
SRUN = ("--kill-on-bad-exit=0", "--wait=60")


def script_text(studies: Sequence[str], folder: Path, cluster: ClusterConfig) -> str:
    """The batch script for as many runs as there are names in ``studies``."""
    executor = make_executor(studies, folder, cluster)
    text: str = executor._make_submission_file_text(command(folder, cluster), "")
    return text


def command(folder: Path, cluster: ClusterConfig) -> str:
    """What each task of the script starts: our worker, with the jobs of ``folder``."""
    python = cluster.python or sys.executable
    return shlex.join([python, "-u", "-m", WORKER, str(folder / JOBS)])


def import_submitit() -> Any:
    """submitit, which is an extra. Raises UserError where it is missing."""
    try:
        import submitit
    except ImportError:
        raise UserError("slurm: submitit is missing; install convnext-study[slurm]") from None
    return submitit


def make_executor(studies: Sequence[str], folder: Path, cluster: ClusterConfig) -> Any:
    """submitit's executor for one array, used for its batch script and its submission."""

    class Executor(import_submitit().SlurmExecutor):  # type: ignore[misc]
        @classmethod
        def affinity(cls) -> int:
            return 2  # a script can be shown where there is no SLURM

    executor = Executor(folder)
    executor.update_parameters(**_parameters(studies[0], cluster))
    if len(studies) > 1:
        executor.parameters["map_count"] = len(studies)
    return executor


def _parameters(study: str, cluster: ClusterConfig) -> dict[str, Any]:
    """The batch script's settings, in submitit's words."""
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
    """What follows the run: the same job again where it was stopped in good order."""
    again = (
        f'if [ "$code" = {EXIT_STOPPED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt '
        f'{cluster.max_requeues} ]; then scontrol requeue "$SLURM_JOB_ID"; fi'
    )
    return ["code=$?", *([again] if cluster.requeue else []), 'exit "$code"']
