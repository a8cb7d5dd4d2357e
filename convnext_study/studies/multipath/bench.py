"""The speed of both forms of the paths, for ``convnext-study bench --parts multipath``.

On the CPU one thread is used, and its processor time is measured, since wall time is shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from convnext_study.benchmarks import Settings
from convnext_study.benchmarks.timing import Spread, interleave, one_thread, rate, ratio, show, wait
from convnext_study.errors import UserError, did_you_mean
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits
from convnext_study.studies.multipath.network import MultipathNet
from convnext_study.studies.multipath.paths import IMPLEMENTATIONS
from convnext_study.studies.multipath.spec import LARGE, LARGE_PATHS, SMALL, MultipathSpec

NETWORKS = {"small": SMALL, "large": LARGE, "large_paths": LARGE_PATHS}
NOTES = ("On a CPU: one thread, CPU time.",)


def measure(settings: Settings, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rows of ``convnext-study bench --parts multipath``, one per network, job and batch size.

    Raises UserError for a network that is none of `NETWORKS`, and for an image size.
    """
    if settings.image_size:
        raise UserError("--image-size: multipath networks are measured at 32x32; leave it out")
    for name in settings.networks:
        if name not in NETWORKS:
            raise UserError(f"--networks: {name!r}{did_you_mean(name, list(NETWORKS))}")
    rows = []
    for name in settings.networks or list(NETWORKS)[: 1 if settings.quick else None]:
        for job in ("train", "infer"):
            for batch in (settings.batch_size,) if settings.batch_size else (1, 16):
                report(f"{name}, {job}, batch {batch}")
                speeds = _speeds(NETWORKS[name], job, batch, settings)
                rows.append({"network": name, "job": job, "batch": batch, **speeds})
    return rows


def _speeds(spec: MultipathSpec, job: str, batch: int, settings: Settings) -> dict[str, Any]:
    """Images/s of each form on random images, channels last as the engine trains, and the ratio of
    fused to plain, over interleaved repeats."""
    device = settings.device
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    clock = time.process_time if device == "cpu" else None
    with one_thread():
        measures = {}
        for implementation in IMPLEMENTATIONS:
            net = MultipathNet(spec, implementation=implementation).train(job == "train")
            net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            measures[implementation] = rate(_step(net, x), batch, 0.0, clock)
        speeds = interleave(measures, settings.repeats)
    rates = {form: Spread.of(values).to_dict() for form, values in speeds.items()}
    return {"images_per_s": rates, "ratio": ratio(speeds["fused"], speeds["plain"]).to_dict()}


def _step(net: MultipathNet, x: torch.Tensor) -> Callable[[], None]:
    labels = torch.arange(len(x), device=x.device) % net.num_classes

    def train() -> None:
        net.zero_grad()
        F.cross_entropy(net(x), labels).backward()  # type: ignore[no-untyped-call]
        wait(x.device.type)

    @torch.inference_mode()
    def infer() -> None:
        net(x)
        wait(x.device.type)

    return train if net.training else infer


def table(rows: Sequence[dict[str, Any]]) -> Table[dict[str, Any]]:
    """The measured speeds."""
    columns: list[Column[dict[str, Any]]] = [
        Column("network", "network", kind="text"),
        Column("job", "", kind="text"),
        Column("batch", "batch", format=count),
        *(
            Column(
                form,
                f"{form}, images/s",
                lambda row, form=form: row["images_per_s"][form]["median"],  # type: ignore[misc]
                format=digits(1),
            )
            for form in ("plain", "fused")
        ),
        Column("ratio", "fused over plain", format=show),
    ]
    return Table("multipath", "paths one by one, and fused, at 32x32", columns, rows, NOTES)
