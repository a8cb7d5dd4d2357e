"""A network with a factor on each residual branch, as a run's record names it."""

from __future__ import annotations

from typing import Any

from torch import nn

from convnext_study.models.builders import get_builder
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.methods.structure_selection import Factor, add_factors

FACTORED = "pruning-factored"  # builder


def factored_ref(model: ModelRef) -> ModelRef:
    """The record of the same network with factors."""
    return ModelRef(builder=FACTORED, args={"network": model.model_dump(mode="json")})


def build_factored(
    args: dict[str, Any], *, num_classes: int, drop_path: float, init: str
) -> nn.Module:
    """The network of a record that `factored_ref` made."""
    model = ModelRef(**args["network"])
    net: nn.Module = get_builder(model.builder)(
        model.args, num_classes=num_classes, drop_path=drop_path, init=init
    )
    add_factors(net)
    return net


def factors_of(net: nn.Module) -> dict[str, Factor]:
    """Its factors, by the names of their blocks."""
    return {
        name.partition(".drop_path")[0]: module
        for name, module in net.named_modules()
        if isinstance(module, Factor)
    }
