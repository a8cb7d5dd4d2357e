"""Any backbone of timm or of this package whose features come stage after stage."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from convnext_study.roadmap.spec import SpecError

if TYPE_CHECKING:
    from timm.models._features import FeatureListNet

LEAST_STRIDE = 4  # larger maps, as after a ResNet's first convolution, get no exit


class StagedBackbone(nn.Module):
    """timm's ``features_only`` form of a model, run up to one stage at a time.

    As HRNet's exits see all of its branches, those of this backbone see the maps of all stages so
    far, the largest first. Masks rule its convolutions; linear layers and attention, if it has
    any, are computed whole, and counted so.

    Args:
        net: timm's wrapper, which holds the layers in the order in which they run.
        total_stages: stages with an exit that the whole model has.
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
        del self._layers[-1]  # timm ends at the last map that is asked for
        self.stages = len(self._layers)
        channels = net.feature_info.channels()
        self.exit_channels = tuple(sum(channels[: exit + 1]) for exit in range(self.stages))

    def begin(self, x: Tensor) -> list[Tensor]:
        """Images (N, in_chans, H, W) to the first stage's map."""
        return [self._run(1, x)]

    def advance(self, stage: int, maps: Sequence[Tensor]) -> list[Tensor]:
        """The next stage: maps so far, and its own."""
        return [*maps, self._run(stage, maps[-1])]

    def modules_of(self, stage: int) -> list[nn.Module]:
        """What `begin` or `advance` runs for this stage."""
        return [self.net[name] for name in self._layers[stage - 1]]

    def exit_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps that a head sees, (N, channels, h, w), the largest first."""
        if self.net.output_fmt == "NHWC":
            return [one.permute(0, 3, 1, 2) for one in maps]
        return list(maps)

    def _run(self, stage: int, x: Tensor) -> Tensor:
        for name in self._layers[stage - 1]:
            x = self.net[name](x)
        return x


def staged_backbone(
    name: str, stages: int, *, in_chans: int, drop_path_rate: float, pretrained: bool
) -> StagedBackbone:
    """The first ``stages`` stages of a model that timm knows.

    Raises SpecError for an unknown model, for one whose features cannot be had stage by stage, and
    for more stages than it has.
    """
    import timm
    import torch

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1) or ["convnext_atto"]
        raise SpecError(f"backbone {name}: timm has no such model; did you mean {near[0]}?")
    keywords: dict[str, Any] = {"features_only": True, "in_chans": in_chans}
    if name.startswith("convnext"):
        keywords["conv_mlp"] = True  # the same network, in convolutions that can be masked
    with torch.device("meta"):
        strides = _features(name, keywords).feature_info.reduction()
    least = min(LEAST_STRIDE, strides[-1] // 4)  # networks for small images have small strides
    chosen = [index for index, stride in enumerate(strides) if stride >= least]
    if stages > len(chosen):
        raise SpecError(f"exits: there is no exit {stages}; {name} has {len(chosen)} stages")
    if drop_path_rate:
        keywords["drop_path_rate"] = drop_path_rate
    net = _features(name, {**keywords, "pretrained": pretrained, "out_indices": chosen[:stages]})
    return StagedBackbone(net, len(chosen))


def _features(name: str, keywords: dict[str, Any]) -> FeatureListNet:
    import timm
    from timm.models._features import FeatureListNet

    try:
        net = timm.create_model(name, **keywords)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        raise SpecError(f"backbone {name}: timm cannot make features of it ({reason})") from error
    if not isinstance(net, FeatureListNet):
        raise SpecError(
            f"backbone {name}: its features come all at once; use a model with stages that run one "
            "after the other, such as convnext_atto or resnet18"
        )
    return net
