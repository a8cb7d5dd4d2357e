"""Which process of a run this is, as torchrun or srun says, and how it meets the others."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from convnext_study.errors import RunFailed, first_line

LOOPBACK = "127.0.0.1"
# How long a process waits for the others. They may write a checkpoint to a slow disk, compile, list
# a large folder, or wait five minutes for a dead machine's lease; more than that is a hang.
PATIENCE = timedelta(minutes=20)


@dataclass(frozen=True)
class DistributedEnv:
    """Which process this is: ``rank`` of ``world_size``, ``local_rank`` on its node, and where to
    meet.

    ``address`` and ``port`` are those of rank 0; empty and 0 where there is one process.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = 0


def read_env(environment: Mapping[str, str]) -> DistributedEnv:
    """This process among those of its run, from what torchrun or srun says.

    torchrun comes first: it may itself have been started inside a SLURM job. A batch script has
    SLURM's variables too; only those of a step say that srun started this process.
    """
    get = environment.get
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return DistributedEnv(
            rank=int(environment["RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
            local_rank=int(get("LOCAL_RANK", "0")),
            address=get("MASTER_ADDR", LOOPBACK),
            port=int(get("MASTER_PORT", "29500")),
        )
    if "SLURM_STEP_NUM_TASKS" not in environment:
        return DistributedEnv()
    restarts = int(get("SLURM_RESTART_COUNT", "0"))
    alone = get("SLURM_STEP_NUM_NODES", "1") == "1"
    return DistributedEnv(
        rank=int(environment["SLURM_PROCID"]),
        world_size=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        address=LOOPBACK if alone else first_host(environment["SLURM_STEP_NODELIST"]),
        # Two jobs on one node must not meet, nor a job its own earlier start.
        port=10000 + (7 * int(environment["SLURM_JOB_ID"]) + restarts) % 20000,
    )


def first_host(nodes: str) -> str:
    """The first name of SLURM's short form of a list: ``gpu[03-05,9],big1`` is ``gpu03``."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodes).split(",")[0]


def init_process_group(env: DistributedEnv, device: str) -> str:
    """Meet the other processes of the run. Returns this process's device.

    Raises RunFailed where there is no GPU for it, or the others do not come.
    """
    import torch

    if env.world_size == 1:
        return device
    import torch.distributed as dist

    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise RunFailed(f"rank {env.rank}: no GPU is seen here; check the profile's gpus")
        device = f"cuda:{env.local_rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    elif env.address == LOOPBACK and sys.platform == "linux":
        # A node's own name may lead nowhere, or to a network that a firewall closes.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = env.address, str(env.port)
    on_gpu = device.startswith("cuda")
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            rank=env.rank,
            world_size=env.world_size,
            timeout=PATIENCE,
            # Without it NCCL learns a process's GPU from a tensor, and guesses in a barrier.
            device_id=torch.device(device) if on_gpu else None,
        )
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise RunFailed(f"rank {env.rank}: did not meet the other processes ({reason})") from error
    return device
