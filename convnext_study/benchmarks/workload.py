"""A network at work on one resident batch: what is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
        implementation: see `Implementation`.
        batch: images per step.
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
        twin = timm_twin(workload.spec, workload.classes)
        if twin is None:
            raise ValueError("timm has no network of this shape")
        return twin().to(workload.device).train()
    net: Any = RoadmapNet(workload.spec, num_classes=workload.classes)
    if workload.implementation == "ours":
        if workload.device == "cpu":
            use_gemm_convs(net)
        net = net.to(memory_format=torch.channels_last)
    return net.to(workload.device).train()  # type: ignore[no-any-return]


def timm_twin(spec: NetSpec, classes: int) -> Callable[[], nn.Module] | None:
    """timm's own network of the same shape, for a spec at either end of a road.

    None for middle steps, and for a ResNet whose stem is not 64 wide.
    """
    from convnext_study.roadmap import ROADMAPS

    def resnet() -> nn.Module:
        from timm.models.resnet import Bottleneck, ResNet

        return ResNet(Bottleneck, layers=spec.depths, num_classes=classes)  # type: ignore[no-any-return]

    def convnext() -> nn.Module:
        from timm.models.convnext import ConvNeXt

        return ConvNeXt(  # type: ignore[no-any-return]
            num_classes=classes,
            depths=spec.depths,
            dims=tuple(spec.width * 2**stage for stage in range(STAGES)),
            patch_size=spec.stem_stride,
            ls_init_value=spec.layer_scale,
        )

    if spec in [road.variants()[-1].spec for road in ROADMAPS.values()]:
        return convnext
    bases = [road.base for road in ROADMAPS.values()]
    return resnet if spec in bases and spec.width == 64 else None


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
