"""The network a spec describes, built from its plan: the one place where road-map layers are made.

It keeps the contract that users of timm expect of a model (`zoo.py` registers it), and imports
timm only inside the methods that need it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from convnext_study.head import Head
from convnext_study.layers import sequence
from convnext_study.plan import plan
from convnext_study.spec import NetSpec
from convnext_study.stage import Stage, unscripted

INIT_STD = 0.02  # Table 5 prints 0.2; the released code uses 0.02


class RoadmapNet(nn.Module):
    """Any network of the road map, its side branches and their subsets.

    Maps images (N, in_chans, H, W) to logits (N, num_classes).

    Args:
        spec: what to build.
        num_classes: 0 leaves the classifier out; the network then returns pooled features.
        in_chans: channels of the image.
        global_pool: avg, max, avgmax, or '' for a map of logits, one of them at each position.
        output_stride: 32, 16 or 8; a smaller one turns the last strides into dilation.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.

    Raises:
        ValueError: an argument that no network can have, in one line that names it.
    """

    def __init__(
        self,
        spec: NetSpec,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: {output_stride}; use 8, 16 or 32")
        layers = plan(spec, in_chans=in_chans, num_classes=num_classes, output_stride=output_stride)
        self.spec = spec
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.output_stride = output_stride
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = spec.widths()[-1]
        self.stem = sequence(layers.stem, spec)
        rates = iter(_linear(drop_path_rate, sum(spec.depths)))
        self.stages = nn.Sequential(
            *(Stage(stage, spec, [next(rates) for _ in stage.blocks]) for stage in layers.stages)
        )
        self.head = Head(layers.head, spec, global_pool, drop_rate)
        self.feature_info = _feature_info(spec, output_stride)
        self.init_weights()

    @unscripted
    def init_weights(self, scheme: str = "trunc_normal") -> None:
        """Truncated normal (Table 5, used for every row of the enhanced recipe) or ``kaiming``,
        as torchvision starts its ResNets, which the classic recipe uses."""
        for module in self.modules():
            if isinstance(module, nn.Linear) and scheme == "kaiming":
                module.reset_parameters()  # torchvision leaves torch's default here
                continue
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            if scheme == "kaiming":
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, in_chans, H, W) to the last stage's map (N, num_features, h, w)."""
        return self.stages(self.stem(x))  # type: ignore[no-any-return]

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """A map to logits, or to pooled and normed features where ``pre_logits``."""
        return self.head(x, pre_logits)  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))

    @unscripted
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    @unscripted
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier (none for 0), and another pooling where one is named."""
        weight = next(self.parameters())
        self.num_classes = num_classes
        self.head.reset(self.num_features, num_classes, global_pool)
        self.head.fc.to(weight.device, weight.dtype).train(self.training)

    @unscripted
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: blocks are run again in the backward pass."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    @unscripted
    def no_weight_decay(self) -> set[str]:
        """Nothing by name: norms, biases and layer scale are 1-D, which timm never decays."""
        return set()

    @unscripted
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by depth, for layer-wise learning rates.

        What matches none, the head, comes last.
        """
        if coarse:
            return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
        downsample = (r"^stages\.(\d+)\.downsample", (0,))  # with the stage's first block
        return {"stem": r"^stem", "blocks": [downsample, (r"^stages\.(\d+)\.blocks\.(\d+)", None)]}

    @unscripted
    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps after the chosen stages: ``(final, maps)``, or only ``maps``.

        ``norm`` is accepted for timm's sake: no road-map network norms its last map.
        """
        from timm.models._features import feature_take_indices

        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt: {output_fmt!r}; only NCHW is supported")
        take, last = feature_take_indices(len(self.stages), indices)
        maps: list[torch.Tensor] = []
        x = self.stem(x)
        stages = self.stages[: last + 1] if stop_early else self.stages
        for index, stage in enumerate(stages):
            x = stage(x)
            if index in take:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    @unscripted
    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the stages after the last chosen one; returns the chosen indices.

        The head goes too, if asked, or where it no longer fits. ``prune_norm`` is accepted for
        timm's sake: no road-map network norms its last map.
        """
        from timm.models._features import feature_take_indices

        take, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_head or shortened:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.head.norm = nn.Identity()
            self.reset_classifier(0, "")
        return list(take)


def _linear(last: float, count: int) -> list[float]:
    return [last * index / max(count - 1, 1) for index in range(count)]


def _feature_info(spec: NetSpec, output_stride: int) -> list[dict[str, Any]]:
    return [
        {
            "num_chs": channels,
            "reduction": _reduction(spec, index, output_stride),
            "module": f"stages.{index}",
        }
        for index, channels in enumerate(spec.widths())
    ]


def _reduction(spec: NetSpec, stage: int, output_stride: int) -> int:
    stem = spec.stem_reduction()
    if spec.layout == "isotropic":
        return stem
    return min(stem << stage, max(output_stride, stem))
