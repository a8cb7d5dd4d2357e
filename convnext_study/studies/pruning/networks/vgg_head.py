"""The four ends of a VGG."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from convnext_study.models.head import Head
from convnext_study.models.layer_specs import Layer
from convnext_study.roadmap.spec import NetSpec
from convnext_study.studies.pruning.specs import POOL, VggSpec


class VggHead(Head):
    """classifier(hidden(pool(x))); hidden layers read the mean of the map, or all of it.

    Maps (N, C, H, W) to logits (N, num_classes). Hidden layers cannot stand at every position:
    with them a head without pooling has no classifier either.

    Args:
        spec: of the network.
        channels: of the last map.
        num_classes: 0 leaves the classifier out.
        pool_type: avg, max, avgmax, or '' for none.
        drop_rate: of the features before the classifier.
    """

    def __init__(
        self, spec: VggSpec, channels: int, num_classes: int, pool_type: str, drop_rate: float
    ) -> None:
        features = spec.hidden[-1] if spec.hidden else channels
        fc = Layer("fc", "linear", features, num_classes, bias=True)
        super().__init__((fc,), NetSpec(), pool_type, drop_rate)
        self.flattens = spec.flattens
        self.shrink: nn.Module = nn.MaxPool2d(2) if spec.widths[-1] == POOL else nn.Identity()
        self.resize: nn.Module = nn.Identity()
        if spec.flattens:
            self.resize = nn.AdaptiveAvgPool2d(spec.side)
        self.hidden = _hidden(spec, channels)
        self._check(num_classes)

    def reset(self, features: int, num_classes: int, pool_type: str | None) -> None:
        """As for any head. Raises ValueError for a classifier that could not stand anywhere."""
        super().reset(features, num_classes, pool_type)
        self._check(num_classes)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def shorten(self) -> None:
        """Leave out the layers that fit the last stage's map alone."""
        super().shorten()
        self.flattens = False
        self.shrink = self.resize = self.hidden = nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map (N, C, H, W) to logits, or with ``pre_logits`` to what the classifier takes."""
        if self.pool_type == "":
            x = self.drop(x)
            return x if pre_logits else self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.shrink(x)
        x = self.resize(x) if self.flattens else self._pool(x)
        x = self.drop(self.hidden(x.flatten(1)))
        return x if pre_logits else self.fc(x)

    def _check(self, num_classes: int) -> None:
        if self.pool_type == "" and num_classes and not isinstance(self.hidden, nn.Identity):
            raise ValueError("global_pool: '' needs num_classes 0 in a VGG with hidden layers")


def _hidden(spec: VggSpec, channels: int) -> nn.Module:
    features = channels * spec.side**2 if spec.flattens else channels
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for place, width in enumerate(spec.hidden, start=1):
        layers[f"fc{place}"] = nn.Linear(features, width)
        if spec.head != "4096":
            layers[f"norm{place}"] = nn.BatchNorm1d(width)
        layers[f"act{place}"] = nn.ReLU(inplace=True)
        if spec.head == "4096":
            layers[f"drop{place}"] = nn.Dropout(0.5)
        features = width
    return nn.Sequential(layers) if layers else nn.Identity()
