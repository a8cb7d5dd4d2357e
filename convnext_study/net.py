"""The network a spec describes, built from its plan: the one place where road-map layers are made.

It keeps the contract that users of timm expect of a model (`zoo.py` registers it), and imports
timm only inside the methods that need it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from convnext_study.layers import DropPath, LayerNorm2d, LayerScale
from convnext_study.plan import BlockPlan, Layer, StagePlan, plan
from convnext_study.spec import NetSpec

INIT_STD = 0.02  # Table 5 prints 0.2; the released code uses 0.02


def make_layer(layer: Layer, spec: NetSpec) -> nn.Module:
    """The module of one planned layer."""
    if layer.kind == "conv":
        reach = layer.dilation * (layer.kernel - 1)
        return nn.Conv2d(
            layer.c_in,
            layer.out,
            layer.kernel,
            layer.stride,
            # Patches do not overlap, so an even kernel has no padding but where size must stay.
            padding="same" if layer.same else (reach // 2 if layer.kernel % 2 else 0),
            dilation=layer.dilation,
            groups=layer.groups,
            bias=layer.bias,
        )
    if layer.kind == "norm":
        return (LayerNorm2d if layer.variant == "layer" else nn.BatchNorm2d)(layer.out)
    if layer.kind == "act":
        return nn.GELU() if layer.variant == "gelu" else nn.ReLU(inplace=True)
    if layer.kind == "maxpool":
        return nn.MaxPool2d(layer.kernel, layer.stride, padding=layer.kernel // 2)
    if layer.kind == "scale":
        return LayerScale(layer.out, spec.layer_scale or 1.0)
    raise AssertionError(f"no module for a layer of kind {layer.kind}")


def _sequence(layers: Iterable[Layer], spec: NetSpec) -> nn.Sequential:
    return nn.Sequential(OrderedDict((layer.name, make_layer(layer, spec)) for layer in layers))


class Block(nn.Module):
    """tail(drop_path(branch(x)) + shortcut(x))"""

    def __init__(self, block: BlockPlan, spec: NetSpec, drop_path_rate: float) -> None:
        super().__init__()
        self.branch = _sequence(block.branch, spec)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.shortcut = _sequence(block.shortcut, spec) if block.shortcut else nn.Identity()
        self.tail = _sequence(block.tail, spec) if block.tail else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.drop_path(self.branch(x)) + self.shortcut(x))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Blocks of one width, after a downsampling layer where the spec has one."""

    grad_checkpointing: bool

    def __init__(self, stage: StagePlan, spec: NetSpec, drop_path_rates: list[float]) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = _sequence(stage.downsample, spec) if stage.downsample else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                Block(block, spec, rate)
                for block, rate in zip(stage.blocks, drop_path_rates, strict=True)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)  # type: ignore[assignment]
            return x
        return self.blocks(x)  # type: ignore[no-any-return]


class Head(nn.Module):
    """Global pooling, the norm that separate downsampling adds, dropout, classifier."""

    def __init__(self, layers: tuple[Layer, ...], spec: NetSpec, pool: str, drop: float) -> None:
        super().__init__()
        self.spec = spec
        self.set_pool(pool)
        norms = [layer for layer in layers if layer.kind == "norm"]
        self.norm: nn.Module = make_layer(norms[0], spec) if norms else nn.Identity()
        self.drop = nn.Dropout(drop)
        self.fc: nn.Module = nn.Identity()
        if layers[-1].out > 0:
            self.fc = nn.Linear(layers[-1].c_in, layers[-1].out)

    def set_pool(self, pool: str) -> None:
        """Raises ValueError for a pooling that is neither avg, max, avgmax nor '' (none)."""
        if pool not in ("avg", "max", "avgmax", "", "fast"):
            raise ValueError(f"global_pool: {pool!r} is unknown; use avg, max, avgmax or ''")
        self.pool = pool

    def forward(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        if self.pool == "max":
            x = x.amax((2, 3), keepdim=True)
        elif self.pool == "avgmax":
            x = 0.5 * (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True))
        elif self.pool != "":
            x = x.mean((2, 3), keepdim=True)
        x = self.norm(x)
        if self.pool == "":
            return x  # an unpooled map has no logits: timm's networks return it as it is
        x = x.flatten(1)
        if pre_logits:
            return x
        return self.fc(self.drop(x))  # type: ignore[no-any-return]


class RoadmapNet(nn.Module):
    """Any network of the road map, its side branches and their subsets.

    Maps images (N, in_chans, H, W) to logits (N, num_classes).

    Args:
        spec: what to build.
        num_classes: 0 leaves the classifier out; the network then returns pooled features.
        in_chans: channels of the image.
        global_pool: avg, max, avgmax, or '' for the unpooled map.
        output_stride: 32, 16 or 8; a smaller one turns the last strides into dilation.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.
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
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = spec.widths()[-1]
        self.stem = _sequence(layers.stem, spec)
        rates = iter(_linear(drop_path_rate, sum(spec.depths)))
        self.stages = nn.Sequential(
            *(Stage(stage, spec, [next(rates) for _ in stage.blocks]) for stage in layers.stages)
        )
        self.head = Head(layers.head, spec, global_pool, drop_rate)
        self.feature_info = _feature_info(spec, output_stride)
        self.init_weights()

    def init_weights(self, scheme: str = "trunc_normal") -> None:
        """Truncated normal (Table 5, used for every row of the enhanced recipe) or ``kaiming``,
        as torchvision starts its ResNets, which the classic recipe uses."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                if scheme == "trunc_normal":
                    nn.init.trunc_normal_(module.weight, std=INIT_STD)
                elif isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                else:
                    continue  # torch's own default, as in torchvision
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

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier (none for 0), and another pooling where one is named."""
        if global_pool is not None:
            self.head.set_pool(global_pool)
        self.num_classes = num_classes
        self.head.fc = nn.Identity()
        if num_classes > 0:
            weight = next(self.parameters())
            fc = nn.Linear(self.num_features, num_classes, device=weight.device, dtype=weight.dtype)
            nn.init.trunc_normal_(fc.weight, std=INIT_STD)
            nn.init.zeros_(fc.bias)
            self.head.fc = fc

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: blocks are run again in the backward pass."""
        for stage in self.stages:
            assert isinstance(stage, Stage)  # noqa: S101
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Nothing by name: norms, biases and layer scale are 1-D, which timm never decays."""
        return set()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters by depth, for layer-wise learning rates."""
        if coarse:
            return {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None)]}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.downsample", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^head\.norm", (99999,)),
            ],
        }

    @torch.jit.ignore
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

    @torch.jit.ignore
    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the stages after the last chosen one, and the head; returns the chosen indices."""
        from timm.models._features import feature_take_indices

        take, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_norm:
            self.head.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return list(take)


def _linear(last: float, count: int) -> list[float]:
    return [last * index / max(count - 1, 1) for index in range(count)]


def _feature_info(spec: NetSpec, output_stride: int) -> list[dict[str, Any]]:
    return [
        {
            "num_chs": channels,
            "reduction": min(spec.stem_stride * 2**index, max(output_stride, spec.stem_stride)),
            "module": f"stages.{index}",
        }
        for index, channels in enumerate(spec.widths())
    ]
