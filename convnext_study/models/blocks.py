"""Residual blocks, stages of blocks, and the head: pooling, norm and classifier."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from convnext_study.models.layer_specs import BlockLayers, StageLayers
from convnext_study.models.layers import DropPath, sequence
from convnext_study.models.recompute import checkpointed
from convnext_study.roadmap.spec import NetSpec

Method = TypeVar("Method", bound=Callable[..., Any])
# For methods that a scripted network runs in Python. torch's decorator is untyped.
jit_ignore: Callable[[Method], Method] = torch.jit.ignore


def drop_path_rates(last: float, count: int) -> list[float]:
    """Stochastic depth of each of ``count`` blocks: linear, from 0 at the first to ``last``.

    Not timm's function for this, whose tensors round differently.
    """
    return [last * index / max(count - 1, 1) for index in range(count)]


class Block(nn.Module):
    """tail(drop_path(branch(x)) + shortcut(x))"""

    def __init__(self, block: BlockLayers, spec: NetSpec, drop_path_rate: float) -> None:
        super().__init__()
        self.branch = sequence(block.branch, spec)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.shortcut = sequence(block.shortcut, spec)
        self.post_act = sequence(block.post_act, spec)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        return self.post_act(self.drop_path(self.branch(x)) + self.shortcut(x))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """tail(blocks(downsample(x))), optionally with gradient checkpointing of the blocks."""

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        downsample: nn.Module | None = None,
        tail: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.Sequential(*blocks)
        self.tail = tail or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self.tail(checkpointed(self.blocks, x))  # type: ignore[no-any-return]
        return self.tail(self.blocks(x))  # type: ignore[no-any-return]


def roadmap_stage(stage: StageLayers, spec: NetSpec, rates: Iterator[float]) -> Stage:
    """Blocks of one width, after a downsampling layer if the spec has one.

    Each block takes its stochastic depth from ``rates``.
    """
    downsample = sequence(stage.downsample, spec)
    return Stage([Block(block, spec, next(rates)) for block in stage.blocks], downsample)


POOLS = ("avg", "max", "avgmax", "")


class Head(nn.Module):
    """Global pooling, the norm that separate downsampling adds, dropout, classifier.

    Maps (N, C, H, W) to logits (N, num_classes), or to features (N, C) without a classifier.
    Without pooling, logits and features are maps, as in timm's ConvNeXt: the same classifier is
    applied at every position.

    Args:
        features: channels of the map, which are the classifier's inputs.
        num_classes: 0 for no classifier.
        pool_type: avg, max, avgmax, or '' for none. timm reads this attribute.
        drop_rate: dropout of the features before the classifier.
        norm: after the pooling, if any.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        pool_type: str,
        drop_rate: float,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.pool_type = _checked(pool_type)
        self.norm = norm or nn.Identity()
        self.drop = nn.Dropout(drop_rate)
        self.fc = _classifier(features, num_classes)

    def reset(self, features: int, num_classes: int, pool_type: str | None) -> None:
        """Replace the classifier by a new one with torch's default init, or none for 0 classes."""
        if pool_type is not None:
            self.pool_type = _checked(pool_type)
        self.fc = _classifier(features, num_classes)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def shorten(self) -> None:
        """Remove the layers that only fit the last stage's map (not the classifier)."""
        self.norm = nn.Identity()

    def forward(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Map (N, C, H, W) to logits, or with ``pre_logits`` to the classifier's inputs."""
        x = self.drop(self.norm(self._pool(x)))
        if self.pool_type != "":
            x = x.flatten(1)
            return x if pre_logits else self.fc(x)
        return x if pre_logits else self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool_type == "avg":
            return x.mean((2, 3), keepdim=True)
        if self.pool_type == "max":
            return x.amax((2, 3), keepdim=True)
        if self.pool_type == "avgmax":
            return 0.5 * (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True))
        return x


def _checked(pool_type: str) -> str:
    if pool_type not in POOLS:
        raise ValueError(f"global_pool: {pool_type!r} is unknown; use avg, max, avgmax or ''")
    return pool_type


def _classifier(features: int, num_classes: int) -> nn.Module:
    return nn.Linear(features, num_classes) if num_classes > 0 else nn.Identity()
