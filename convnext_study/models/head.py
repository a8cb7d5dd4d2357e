"""The end of a network: from its last map to logits."""

import torch
from torch import nn

from convnext_study.models.layer_specs import Layer
from convnext_study.models.layers import make_layer
from convnext_study.roadmap.spec import NetSpec

POOLS = ("avg", "max", "avgmax", "")


class Head(nn.Module):
    """Global pooling, the norm that separate downsampling adds, dropout, classifier.

    Maps (N, C, H, W) to logits (N, num_classes). Where there is no classifier, and before it, the
    features are (N, C). Without pooling all of them are maps, as in timm's ConvNeXt: the same
    classifier then stands at every position.

    Args:
        layers: as planned; the last one is the classifier.
        spec: of the network.
        pool_type: avg, max, avgmax, or '' for none. The name is timm's, which reads it.
        drop_rate: of the features before the classifier.
    """

    def __init__(
        self, layers: tuple[Layer, ...], spec: NetSpec, pool_type: str, drop_rate: float
    ) -> None:
        super().__init__()
        *before, fc = layers
        norms = [layer for layer in before if layer.kind == "norm"]
        self.pool_type = _known(pool_type)
        self.norm: nn.Module = make_layer(norms[0], spec) if norms else nn.Identity()
        self.drop = nn.Dropout(drop_rate)
        self.fc = _classifier(fc.c_in, fc.out)

    def reset(self, features: int, num_classes: int, pool_type: str | None) -> None:
        """A fresh classifier with torch's initial weights, or none for 0 classes."""
        if pool_type is not None:
            self.pool_type = _known(pool_type)
        self.fc = _classifier(features, num_classes)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def shorten(self) -> None:
        """Leave out the layers that fit the last stage's map alone; the classifier is reset."""
        self.norm = nn.Identity()

    def forward(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Map (N, C, H, W) to logits, or with ``pre_logits`` to what the classifier takes."""
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


def _known(pool_type: str) -> str:
    if pool_type not in POOLS:
        raise ValueError(f"global_pool: {pool_type!r} is unknown; use avg, max, avgmax or ''")
    return pool_type


def _classifier(features: int, num_classes: int) -> nn.Module:
    return nn.Linear(features, num_classes) if num_classes > 0 else nn.Identity()
