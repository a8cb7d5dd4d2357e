"""HRNet (Wang et al., 2019) as a backbone that is run stage by stage, made of timm's modules.

timm's are the ImageNet networks of the same authors: same layers, names and parameters. One
difference to the segmentation networks: their fusion upsamples by nearest neighbour. Here it is
bilinear, and BatchNorm's momentum 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from convnext_study.errors import UserError, did_you_mean
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.anytime.spec import HRNETS, HRNetSize

if TYPE_CHECKING:
    from timm.models.hrnet import HighResolutionNet

BATCHNORM_MOMENTUM = 0.01
STAGES = 4
STRIDE = 32  # of the lowest branch
_STEM = ("conv1", "bn1", "act1", "conv2", "bn2", "act2")


class HRNet(nn.Module):
    """A stem to 1/4 of the resolution, and up to four stages of parallel branches.

    Modules have timm's names, so that its checkpoints load. Branches are lists of maps, at 1/4,
    1/8, 1/16 and 1/32.

    Args:
        net: timm's network, whose modules are taken over.
        stages: how many of its stages.
    """

    def __init__(self, net: HighResolutionNet, stages: int = STAGES) -> None:
        super().__init__()
        if not 1 <= stages <= STAGES:
            raise SpecError(f"exits: there is no exit {stages}; an HRNet has {STAGES}")
        for name in (*_STEM, "layer1"):
            self.add_module(name, getattr(net, name))
        for stage in range(2, stages + 1):
            for name in _modules_of(stage):
                self.add_module(name, getattr(net, name))
        for module in self.modules():
            if isinstance(module, nn.Upsample):
                module.mode, module.align_corners = "bilinear", False
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = BATCHNORM_MOMENTUM
        self.stages = stages
        self.total_stages = STAGES
        self.exit_channels = _exit_channels(net)[:stages]

    def begin(self, x: Tensor) -> list[Tensor]:
        """Stem and stage 1: images (N, in_chans, H, W) to one map at 1/4.

        Raises UserError for an image whose sides do not divide by 32.
        """
        height, width = x.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise UserError(
                f"image of {height}x{width}: HRNet needs sides that divide by {STRIDE}; "
                "resize or pad it"
            )
        for name in (*_STEM, "layer1"):
            x = self.get_submodule(name)(x)
        return [x]

    def advance(self, stage: int, maps: Sequence[Tensor]) -> list[Tensor]:
        """Stage 2, 3 or 4, with the transition before it: branches to one branch more."""
        transition, modules = map(self.get_submodule, _modules_of(stage))
        assert isinstance(transition, nn.ModuleList)  # noqa: S101
        entered = [
            maps[branch] if isinstance(layer, nn.Identity) else layer(maps[-1])
            for branch, layer in enumerate(transition)
        ]
        found: list[Tensor] = modules(entered)
        return found

    def modules_of(self, stage: int) -> list[nn.Module]:
        """What `begin` or `advance` runs for this stage."""
        if stage == 1:
            return [self.get_submodule(name) for name in (*_STEM, "layer1")]
        return [self.get_submodule(name) for name in _modules_of(stage)]

    def exit_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps that a head sees, the largest first: all branches."""
        return list(maps)


def hrnet(name: str, stages: int = STAGES, *, in_chans: int = 3, pretrained: bool = False) -> HRNet:
    """A network of `HRNETS`, or one of timm's, with ImageNet weights on request.

    Raises SpecError for an unknown name, and where weights are asked of a network of ours.
    """
    import timm
    from timm.models.hrnet import HighResolutionNet

    if name in HRNETS:
        if pretrained:
            raise SpecError(f"pretrained: there are no weights of {name}; use an HRNet of timm's")
        size = HRNETS[name]
        net = HighResolutionNet(_timm_cfg(size), in_chans=in_chans, head="")
        _narrow_stem(net, size)
        net.init_weights()
        return HRNet(net, stages)
    known = timm.list_models("hrnet_*")
    if name not in known:
        raise SpecError(f"backbone {name}: unknown{did_you_mean(name, [*HRNETS, *known])}")
    # The classification head is left behind.
    return HRNet(timm.create_model(name, pretrained=pretrained, in_chans=in_chans), stages)


def _modules_of(stage: int) -> tuple[str, str]:
    return f"transition{stage - 1}", f"stage{stage}"


def _exit_channels(net: HighResolutionNet) -> tuple[int, ...]:
    first = int(net.layer1[-1].conv3.out_channels)
    later = [getattr(net, f"stage{stage}_cfg")["num_channels"] for stage in range(2, STAGES + 1)]
    return (first, *map(sum, later))


def _timm_cfg(size: HRNetSize) -> dict[str, Any]:
    def stage(modules: int, block: str, blocks: int, widths: Sequence[int]) -> dict[str, Any]:
        return {
            "num_modules": modules,
            "num_branches": len(widths),
            "block_type": block,
            "num_blocks": (blocks,) * len(widths),
            "num_channels": tuple(widths),
            "fuse_method": "SUM",
        }

    cfg: dict[str, Any] = {"stem_width": size.stem}
    cfg["stage1"] = stage(1, "BOTTLENECK", size.stage1_blocks, [size.bottleneck])
    for index, modules in enumerate(size.modules, start=2):
        cfg[f"stage{index}"] = stage(modules, "BASIC", size.blocks, size.widths[:index])
    return cfg


def _narrow_stem(net: HighResolutionNet, size: HRNetSize) -> None:
    """timm's stem ends in 64 channels whatever its configuration says."""
    from timm.models.resnet import Bottleneck

    net.conv2 = nn.Conv2d(size.stem, size.stem, 3, stride=2, padding=1, bias=False)
    net.bn2 = nn.BatchNorm2d(size.stem)
    net.layer1 = net._make_layer(Bottleneck, size.stem, size.bottleneck, size.stage1_blocks)
