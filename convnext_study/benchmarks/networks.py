"""A road map's networks as the engine runs them, compared with plain PyTorch and with timm's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from convnext_study.benchmarks import BATCH, Settings
from convnext_study.benchmarks.timing import Row, compare, interleave, rate, wait
from convnext_study.roadmap import ROADMAPS, get_roadmap
from convnext_study.roadmap.spec import STAGES, NetSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALL_BATCH = 64  # of images up to 64x64


def measure(settings: Settings, report: Callable[[str], None]) -> tuple[str, list[Row]]:
    """Rows of training, inference, and inference of one image, for each network; the first two
    rows of a road have the same one."""
    road = get_roadmap(settings.regime)
    first, _, *middle, last = road.variants()
    batch = settings.batch_size or (BATCH if road.published else SMALL_BATCH)
    rows = []
    for variant in (first, *([] if settings.quick else middle), last):
        report(f"network {variant.name}")
        nets = forms(variant.spec, road.num_classes)
        for job, images in (("training", batch), ("inference", batch), ("one image", 1)):
            measures = {}
            for form, build in nets.items():
                shape = (images, 3, road.image_size, road.image_size)
                step = make_step(form, build(), shape, settings.device, train=job == "training")
                measures[form] = rate(step, images, settings.seconds)
            rows.append(compare(variant.name, interleave(measures, settings.repeats), job=job))
    return f"networks, batch {batch} of {road.image_size}x{road.image_size}", rows


def forms(spec: NetSpec, classes: int) -> dict[str, Callable[[], nn.Module]]:
    """Functions that build a network as the engine trains it (ours), as PyTorch runs it by default
    (plain), and timm's, if timm has it."""

    def build() -> nn.Module:
        import torch

        from convnext_study.models.roadmap_net import RoadmapNet

        torch.manual_seed(0)
        return RoadmapNet(spec, num_classes=classes)

    twin = timm_twin(spec, classes)
    return {"ours": build, "plain": build, **({"timm": twin} if twin else {})}


def timm_twin(spec: NetSpec, classes: int) -> Callable[[], nn.Module] | None:
    """timm's own network of the same shape, for a spec at either end of a road.

    None for middle steps, and for a ResNet whose stem is not 64 wide.
    """

    if spec in [road.variants()[-1].spec for road in ROADMAPS.values()]:
        from timm.models.convnext import ConvNeXt

        return partial(
            ConvNeXt,
            num_classes=classes,
            depths=spec.depths,
            dims=tuple(spec.width * 2**stage for stage in range(STAGES)),
            patch_size=spec.stem_stride,
            ls_init_value=spec.layer_scale,
        )
    if spec in [road.base for road in ROADMAPS.values()] and spec.width == 64:
        from timm.models.resnet import Bottleneck, ResNet

        return partial(ResNet, Bottleneck, layers=spec.depths, num_classes=classes)
    return None


def make_step(
    form: str, net: Any, shape: tuple[int, ...], device: str, *, train: bool
) -> Callable[[], None]:
    """A function that does one forward, backward and update, or one forward pass in evaluation
    mode, on one resident batch."""
    import torch
    import torch.nn.functional as F

    from convnext_study.models.fast_conv import use_gemm_convs

    ours = form == "ours"
    layout: Any = torch.channels_last if ours else torch.contiguous_format
    if ours and device == "cpu":
        use_gemm_convs(net)
    net = net.to(device, memory_format=layout).train(train)
    images: Tensor = torch.randn(shape).to(device, memory_format=layout)
    labels = (torch.arange(len(images)) % net.num_classes).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=ours or None)

    def training_step() -> None:
        F.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait(device)

    @torch.inference_mode()
    def inference_step() -> None:
        net(images)
        wait(device)

    return training_step if train else inference_step
