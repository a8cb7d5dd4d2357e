"""A network at work on one resident batch: what is timed."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from convnext_study.roadmap.spec import STAGES, NetSpec

if TYPE_CHECKING:
    from torch import nn

# ours: as the engine trains it. plain: the same network as PyTorch runs it by default. timm: the
# network of that name, as timm builds it.
Implementation = Literal["ours", "plain", "timm"]


@dataclass(frozen=True)
class Workload:
    """A network and what it is given.

    Args:
        spec: the network.
        implementation: see `Form`.
        batch: images a step.
        image_size: their side, in pixels.
        classes: outputs.
        device: where it runs.
    """

    spec: NetSpec
    implementation: Implementation
    batch: int
    image_size: int
    classes: int
    device: str = "cpu"


def build(workload: Workload) -> nn.Module:
    """The network in its form, on its device, in training mode."""
    import torch

    from convnext_study.models.fast_conv import use_gemm_convs
    from convnext_study.models.roadmap_net import RoadmapNet

    torch.manual_seed(0)
    if workload.implementation == "timm":
        return timm_twin(workload.spec, workload.classes)().to(workload.device).train()
    net: Any = RoadmapNet(workload.spec, num_classes=workload.classes)
    if workload.implementation == "ours":
        if workload.device == "cpu":
            use_gemm_convs(net)
        net = net.to(memory_format=torch.channels_last)
    return net.to(workload.device).train()  # type: ignore[no-any-return]


def timm_twin(spec: NetSpec, classes: int) -> Callable[[], nn.Module]:
    """timm's own network of the same shape, for a spec at either end of a road.

    Raises KeyError where timm has none: for middle steps, and for a ResNet whose stem is not 64
    wide.
    """
    from convnext_study.roadmap import ROADMAPS

    ends = {(road.base, "resnet") for road in ROADMAPS.values() if road.base.width == 64}
    ends |= {(road.variants()[-1].spec, "convnext") for road in ROADMAPS.values()}
    kinds = dict(ends)
    kind = kinds[spec]

    def make() -> nn.Module:
        net: Any
        if kind == "resnet":
            from timm.models.resnet import Bottleneck, ResNet

            net = ResNet(Bottleneck, layers=spec.depths, num_classes=classes)
        else:
            from timm.models.convnext import ConvNeXt

            net = ConvNeXt(
                num_classes=classes,
                depths=spec.depths,
                dims=tuple(spec.width * 2**stage for stage in range(STAGES)),
                patch_size=spec.stem_stride,
                ls_init_value=spec.layer_scale,
            )
        return net  # type: ignore[no-any-return]

    return make


def batch_of(workload: Workload) -> tuple[Any, Any]:
    """One resident batch: images and labels."""
    import torch

    images = torch.randn(workload.batch, 3, workload.image_size, workload.image_size)
    if workload.implementation == "ours":
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(workload.batch) % workload.classes
    return images.to(workload.device), labels.to(workload.device)


def training_step(workload: Workload) -> Callable[[], object]:
    """A function that does one forward, backward and update."""
    import torch
    import torch.nn.functional as F

    net = build(workload)
    images, labels = batch_of(workload)
    fused = workload.implementation == "ours"
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True if fused else None)

    def step() -> None:
        F.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait(workload.device)

    return step


def inference_step(workload: Workload) -> Callable[[], object]:
    """A function that does one forward pass in evaluation mode."""
    import torch

    net = build(workload).eval()
    images, _ = batch_of(workload)

    def step() -> None:
        with torch.inference_mode():
            net(images)
        wait(workload.device)

    return step


def wait(device: str) -> None:
    """Let a GPU finish what it was given: it works on while Python goes on."""
    if device != "cpu":
        import torch

        (torch.cuda if device.startswith("cuda") else torch.mps).synchronize()


def peak_memory(workload: Workload, threads: int) -> float | None:
    """MB that one training step adds at its peak: weights, gradients, optimizer, activations.

    On the CPU the step is done in a process of its own, whose resident set is watched. None
    on a device whose memory nobody counts, and where that process is killed for want of memory.
    """
    if workload.device.startswith("cuda"):
        return _cuda_peak(workload)
    if workload.device != "cpu":
        return None
    import multiprocessing
    from multiprocessing import resource_tracker

    context = multiprocessing.get_context("forkserver")
    # Imported once, in the server; each measured process is a fork of it.
    context.set_forkserver_preload(
        ["torch", "convnext_study.models.roadmap_net", "convnext_study.models.fast_conv"]
    )
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(theirs, workload, threads))
    resource_tracker.ensure_running()  # it would let the signal through again
    # Ctrl-C is for this process: the measured one would tell of it in many lines.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    try:
        return float(ours.recv())
    except EOFError:
        return None
    except KeyboardInterrupt:
        process.kill()
        raise
    finally:
        process.join()


def _watch(pipe: Any, workload: Workload, threads: int) -> None:
    import resource
    import sys

    import torch

    torch.set_num_threads(threads)
    unit = 1e6 if sys.platform == "darwin" else 1e3
    # First steps import and allocate what is no network's: hundreds of MB for some optimizers.
    small = workload.spec.replace(depths=(1, 1, 1, 1), width=8)
    training_step(replace(workload, spec=small, implementation="ours", batch=2))()
    if workload.implementation == "timm":
        import timm.models  # noqa: F401
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = training_step(workload)
    step()
    step()
    pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit)


def _cuda_peak(workload: Workload) -> float:
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step = training_step(workload)
    step()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 1e6
