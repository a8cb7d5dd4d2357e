"""Where runs are trained: processes of this machine, torchrun, SLURM.

A further launcher is a file of this room, its name in ``LAUNCHERS``, and a line in each function
here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from convnext_study.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from convnext_study.launchers.graph import Job, Outcome
    from convnext_study.launchers.resources import Node, Resources
    from convnext_study.launchers.slurm.cluster import ClusterConfig

    # Takes jobs, the machine's plan and what to call from time to time; returns how they ended.
    Launcher = Callable[[Sequence[Job], Resources, Callable[[], None]], list[Outcome]]

LAUNCHERS = ("local", "torchrun", "slurm")


def cluster_for(name: str, path: Path | None) -> ClusterConfig | None:
    """The site that a launcher submits to, read from its file; None for this machine.

    Raises UserError for an unknown launcher, and for a file that is missing or cannot be used.
    """
    if name not in LAUNCHERS:
        near = did_you_mean(name, list(LAUNCHERS))
        raise UserError(f"launcher: {name!r}; use local, torchrun or slurm{near}")
    if name != "slurm":
        return None
    if path is None:
        raise UserError("launcher slurm: name the site with --cluster FILE, as in launch/clusters/")
    from convnext_study.launchers.slurm.cluster import read_cluster

    return read_cluster(path)


def node_for(device: str | None, cluster: ClusterConfig | None) -> Node:
    """Where each training will run: a node of the cluster, or else this machine.

    Raises UserError where this machine has no such device.
    """
    from convnext_study.launchers.resources import Node, this_node

    if cluster is not None:
        return Node(cluster.cpus_per_process, (cluster.device,))
    return this_node(device)


def world_size_for(
    name: str, cluster: ClusterConfig | None, devices: Sequence[str], processes: int | None
) -> int:
    """Processes that share a run: as ``processes`` requests of torchrun, or one a device there."""
    if cluster is not None:
        return cluster.world_size
    if name == "torchrun":
        return processes or max(len(devices), 1)
    return 1


def launcher_for(
    name: str = "local",
    cluster: ClusterConfig | None = None,
    *,
    processes: int | None = None,
    dry_run: bool = False,
    wait: bool = True,
) -> Launcher:
    """What trains jobs.

    It raises UserError where the folder cannot be written.

    Args:
        name: one of ``LAUNCHERS``.
        cluster: where SLURM submits to; see `cluster_for`.
        processes: that share each run with torchrun.
        dry_run: SLURM's batch scripts are printed, and nothing is submitted.
        wait: follow submitted jobs to their ends.
    """

    def local(
        jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        from convnext_study.launchers.local import Pool

        _make_folders(jobs)
        return Pool(resources.jobs, on_poll, resources.devices).run(jobs)

    def torchrun(
        jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        from convnext_study.launchers.torchrun import run_torchrun

        _make_folders(jobs)
        world_size = world_size_for(name, None, resources.devices, processes)
        return run_torchrun(jobs, world_size, on_poll)

    def slurm(
        jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        from convnext_study.launchers.slurm.submit import run_slurm

        assert cluster is not None  # noqa: S101  `cluster_for` sees to it
        return run_slurm(jobs, cluster, dry_run, wait, on_poll)

    return {"local": local, "torchrun": torchrun, "slurm": slurm}[name]


def _make_folders(jobs: Sequence[Job]) -> None:
    """Raises UserError where they cannot be written, before this machine begins any run."""
    from convnext_study.runs.files import make_folder

    for folder in {job.folder.parent for job in jobs}:
        make_folder(folder)
