"""Backbones that are run stage by stage, HRNet and any of timm, and the heads of the exits.

HRNet (Wang et al., 2019) uses timm's modules, which are the same authors' ImageNet networks, with
the same layers, names and parameters. Unlike the segmentation networks, their fusion upsamples by
nearest neighbour: here it is bilinear, and BatchNorm's momentum is 0.01.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.errors import UserError, did_you_mean, first_line
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.anytime.spec import BATCHNORM_MOMENTUM, HRNETS, AnytimeSpec, HRNetSize

if TYPE_CHECKING:
    from timm.models._features import FeatureListNet
    from timm.models.hrnet import HighResolutionNet

STAGES = 4  # of an HRNet
STRIDE = 32  # of its lowest branch
LEAST_STRIDE = 4  # maps with a smaller one, as after a ResNet's first convolution, get no exit
_STAGE_1 = ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "layer1")
# In the authors' released checkpoints.
_HEAD = re.compile(r"(?:exit(?P<exit>\d)|last_layer)\.(?P<layer>\d+)(?P<rest>\..+)")
LAST = "4"  # the exit that they name ``last_layer``
LAYERS_PER_STEP = 4  # in their flex heads: resizing, convolution, BatchNorm, ReLU


class HRNet(nn.Module):
    """A stem to 1/4 of the resolution, and up to four stages of parallel branches.

    Modules are those of timm's ``net``, with their names, so that its checkpoints load. Branches
    are lists of maps, at 1/4, 1/8, 1/16 and 1/32.
    """

    total_stages = STAGES

    def __init__(self, net: HighResolutionNet, stages: int = STAGES) -> None:
        super().__init__()
        if not 1 <= stages <= STAGES:
            raise SpecError(f"exits: there is no exit {stages}; an HRNet has {STAGES}")
        for stage in range(1, stages + 1):
            for name in _names_of(stage):
                self.add_module(name, getattr(net, name))
        for module in self.modules():
            if isinstance(module, nn.Upsample):
                module.mode, module.align_corners = "bilinear", False
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = BATCHNORM_MOMENTUM
        first = int(net.layer1[-1].conv3.out_channels)
        later = [sum(getattr(net, f"stage{stage}_cfg")["num_channels"]) for stage in (2, 3, 4)]
        self.exit_channels = (first, *later)[:stages]

    def run_stage(self, stage: int, maps: Sequence[Tensor]) -> list[Tensor]:
        """Stage 1, with the stem, maps images (N, in_chans, H, W) to one branch at 1/4; a later
        one, with the transition before it, adds a branch.

        Raises UserError for an image whose sides are not divisible by 32.
        """
        if stage == 1:
            (x,) = maps
            height, width = x.shape[-2:]
            if height % STRIDE or width % STRIDE:
                raise UserError(
                    f"image of {height}x{width}: HRNet needs sides divisible by {STRIDE}; resize "
                    "or pad it"
                )
            for module in self.modules_of(1):
                x = module(x)
            return [x]
        transition, modules = self.modules_of(stage)
        assert isinstance(transition, nn.ModuleList)  # noqa: S101
        inputs = [
            maps[branch] if isinstance(layer, nn.Identity) else layer(maps[-1])
            for branch, layer in enumerate(transition)
        ]
        outputs: list[Tensor] = modules(inputs)
        return outputs

    def modules_of(self, stage: int) -> list[nn.Module]:
        """The modules that `run_stage` runs for this stage."""
        return [self.get_submodule(name) for name in _names_of(stage)]

    def exit_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps that a head sees, the largest first: all branches."""
        return list(maps)


class StagedBackbone(nn.Module):
    """timm's ``features_only`` form of a model, run one stage at a time.

    As HRNet's exits see all of its branches, those of this backbone see the maps of all stages so
    far, the largest first. Masks apply to its convolutions; linear layers and attention, if any,
    are computed at all positions, and counted so. ``net`` contains the layers in the order in which
    they run; ``total_stages`` is the number of stages with an exit in the full model.
    """

    def __init__(self, net: FeatureListNet, total_stages: int) -> None:
        super().__init__()
        self.net = net
        self.total_stages = total_stages
        self._layers: list[list[str]] = [[]]
        for name in net:
            self._layers[-1].append(name)
            if name in net.return_layers:
                self._layers.append([])
        del self._layers[-1]  # timm ends at the last map that is requested
        channels = net.feature_info.channels()
        self.exit_channels = tuple(sum(channels[: exit + 1]) for exit in range(len(self._layers)))

    def run_stage(self, stage: int, maps: Sequence[Tensor]) -> list[Tensor]:
        """The first stage maps images (N, in_chans, H, W) to its map; later ones add theirs."""
        x = maps[-1]
        for layer in self.modules_of(stage):
            x = layer(x)
        return [x] if stage == 1 else [*maps, x]

    def modules_of(self, stage: int) -> list[nn.Module]:
        """The modules that `run_stage` runs for this stage."""
        return [self.net[name] for name in self._layers[stage - 1]]

    def exit_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps that a head sees, (N, channels, h, w), the largest first."""
        if self.net.output_fmt == "NHWC":
            return [x.permute(0, 3, 1, 2) for x in maps]
        return list(maps)


Backbone = HRNet | StagedBackbone


def make_backbone(spec: AnytimeSpec, in_chans: int = 3, drop_path_rate: float = 0.0) -> Backbone:
    """The backbone of a spec, with the stages that its exits need.

    Raises SpecError for an unknown name, weights of a network of ours, a model whose features
    cannot be computed stage by stage, and more stages than it has.
    """
    name, stages = spec.backbone, spec.exits[-1]
    if not name.startswith("hrnet_"):
        return _staged(spec, in_chans, drop_path_rate)
    if drop_path_rate:
        raise SpecError(f"drop_path: {drop_path_rate}; not supported by HRNet, use 0")
    if name in HRNETS:
        if spec.pretrained:
            raise SpecError(f"pretrained: there are no weights of {name}; use one of timm's HRNets")
        return HRNet(_our_hrnet(HRNETS[name], in_chans), stages)
    import timm

    models = timm.list_models("hrnet_*")
    if name not in models:
        raise SpecError(f"backbone {name}: unknown{did_you_mean(name, [*HRNETS, *models])}")
    # `HRNet` leaves out the classification head.
    return HRNet(timm.create_model(name, pretrained=spec.pretrained, in_chans=in_chans), stages)


def _names_of(stage: int) -> tuple[str, ...]:
    return _STAGE_1 if stage == 1 else (f"transition{stage - 1}", f"stage{stage}")


def _our_hrnet(size: HRNetSize, in_chans: int) -> HighResolutionNet:
    from timm.models.hrnet import HighResolutionNet
    from timm.models.resnet import Bottleneck

    cfg: dict[str, Any] = {"stem_width": size.stem}
    for stage, modules in enumerate((1, *size.modules), start=1):
        first = stage == 1
        cfg[f"stage{stage}"] = {
            "num_modules": modules,
            "num_branches": stage,
            "block_type": "BOTTLENECK" if first else "BASIC",
            "num_blocks": (size.stage1_blocks if first else size.blocks,) * stage,
            "num_channels": (size.bottleneck,) if first else size.widths[:stage],
            "fuse_method": "SUM",
        }
    net = HighResolutionNet(cfg, in_chans=in_chans, head="")
    # timm's stem ends in 64 channels, whatever its configuration.
    net.conv2 = nn.Conv2d(size.stem, size.stem, 3, stride=2, padding=1, bias=False)
    net.bn2 = nn.BatchNorm2d(size.stem)
    net.layer1 = net._make_layer(Bottleneck, size.stem, size.bottleneck, size.stage1_blocks)
    net.init_weights()
    return net


def _staged(spec: AnytimeSpec, in_chans: int, drop_path_rate: float) -> StagedBackbone:
    """The first stages of a timm model."""
    import timm
    import torch

    name, stages = spec.backbone, spec.exits[-1]
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1) or ["convnext_atto"]
        raise SpecError(f"backbone {name}: timm has no such model; did you mean {close[0]}?")
    keywords: dict[str, Any] = {"features_only": True, "in_chans": in_chans}
    if name.startswith("convnext"):
        keywords["conv_mlp"] = True  # the same network, in convolutions that can be masked
    with torch.device("meta"):
        strides = _features(name, keywords).feature_info.reduction()
    min_stride = min(LEAST_STRIDE, strides[-1] // 4)  # networks for small images have small strides
    indices = [index for index, stride in enumerate(strides) if stride >= min_stride]
    if stages > len(indices):
        raise SpecError(f"exits: there is no exit {stages}; {name} has {len(indices)} stages")
    if drop_path_rate:
        keywords["drop_path_rate"] = drop_path_rate
    keywords |= {"pretrained": spec.pretrained, "out_indices": indices[:stages]}
    return StagedBackbone(_features(name, keywords), len(indices))


def _features(name: str, keywords: dict[str, Any]) -> FeatureListNet:
    import timm
    from timm.models._features import FeatureListNet

    try:
        net = timm.create_model(name, **keywords)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = first_line(error)
        raise SpecError(
            f"backbone {name}: timm cannot extract features from it ({reason})"
        ) from error
    if not isinstance(net, FeatureListNet):
        raise SpecError(
            f"backbone {name}: returns all features at once; use a model with sequential stages, "
            "such as convnext_atto or resnet18"
        )
    return net


def original_head(channels: int, classes: int) -> nn.Sequential:
    """The authors' first heads (EE), whose convolutions have a bias.

    Maps (N, channels, h, w) to logits (N, classes, h, w).
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, classes, 1),
    )


class FlexHead(nn.Module):
    """A redesigned head (RH) that sees context cheaply: pooled down step by step, and back up.

    Before every 1x1 convolution (with bias) the map is halved by 2x2 average pooling, or doubled
    bilinearly; BatchNorm and ReLU follow each but the last. Maps (N, channels, h, w) to logits
    (N, classes, h, w). ``poolings`` is how often the map is halved, ``width`` the hidden channels.
    Pooling rounds odd sides up, and upsampling restores them; the authors' form needs sides that
    are divisible by ``2 ** poolings``.
    """

    def __init__(self, channels: int, width: int, classes: int, poolings: int) -> None:
        super().__init__()
        self.poolings = poolings
        hidden = [width] * (2 * poolings - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 1) for c_in, c_out in pairwise([channels, *hidden, classes])
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c_out) for c_out in hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to logits of the same size."""
        first = self.convs[0](F.avg_pool2d(x, 2, ceil_mode=True))
        return self.after_convolution(first, (x.shape[-2], x.shape[-1]))

    def after_convolution(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits from the first convolution's output, for a map of height and width ``size``."""
        sizes = [size]
        for step, conv in enumerate(self.convs):
            if 0 < step < self.poolings:
                sizes.append((x.shape[-2], x.shape[-1]))
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            elif step >= self.poolings:
                x = upsample(x, sizes.pop())
            if step > 0:
                x = conv(x)
            if step < len(self.norms):
                x = F.relu(self.norms[step](x), inplace=True)
        return x


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly, without aligned corners, as the authors do everywhere."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    if x.is_meta:  # only the size is needed, and torch takes 45 ms to compute it
        return x.new_empty((*x.shape[:2], *size))
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def rename_released(net: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the weights of the authors' checkpoints to those of an `AnytimeNet`, in place.

    A hook before `load_state_dict`, which ignores other checkpoints. The authors store a network
    under ``model.``, beside its loss; each of their masked convolutions also stores the fill's
    distances, which are constants.
    """
    if not any("last_layer." in name for name in state):
        return
    weights = dict(state)
    state.clear()
    for name, weight in weights.items():
        if not name.startswith("loss.") and not name.endswith("square_dis"):
            name = name.removeprefix("model.")
            if name.endswith(".Lambda"):
                name, weight = name.removesuffix("Lambda") + "fill_lambda", weight.reshape(1)
            state[prefix + _renamed(net, name)] = weight


def _renamed(net: nn.Module, name: str) -> str:
    if not (match := _HEAD.fullmatch(name)):
        return f"backbone.{name}"
    head = f"heads.{match['exit'] or LAST}"
    layer, rest = int(match["layer"]), match["rest"]
    if isinstance(net.get_submodule(head), FlexHead):
        step, kind = divmod(layer, LAYERS_PER_STEP)
        return f"{head}.{('', 'convs', 'norms')[kind]}.{step}{rest}"
    return f"{head}.{layer}{rest}"
