"""Sparse structure selection (Huang and Wang, ECCV 2018), which removes whole residual branches.

A factor multiplies each branch; the penalised loss is minimised by an accelerated proximal step,
which sets factors to exactly zero. Those branches are then removed; a block that changes the stream
keeps its shortcut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.families import refilled
from convnext_study.studies.pruning.removal import network_of
from convnext_study.studies.pruning.spec import PreActSpec

FACTORED = "pruning-factored"  # the builder in records, as in the `Study`
MOMENTUM = 0.9


class Factor(nn.Module):
    """A learned factor of a residual branch, initially 1. Maps any shape to the same.

    `proximal_step` updates it, not the optimizer.
    """

    velocity: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("velocity", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The branch times the factor."""
        return x * self.weight


def add_factors(net: nn.Module) -> dict[str, Factor]:
    """Add a factor to each residual branch, in place; returns them by the names of the blocks.

    A block is any module with a ``drop_path``, which ends the branch, as in this package's networks
    and in timm's. Raises UserError for a network without one.
    """
    blocks: dict[str, Any] = {
        name: module for name, module in net.named_modules() if hasattr(module, "drop_path")
    }
    if not blocks:
        raise UserError("structure selection: the network has no residual branches to select")
    factors = {}
    for name, block in blocks.items():
        factors[name] = Factor().to(next(block.parameters()))
        block.drop_path = nn.Sequential(block.drop_path or nn.Identity(), factors[name])
    return factors


def factored_ref(model: ModelRef) -> ModelRef:
    """The record of the same network with a factor on each residual branch."""
    return ModelRef(builder=FACTORED, args={"network": model.model_dump(mode="json")})


def build_factored(args: dict[str, Any], *, num_classes: int, **options: Any) -> nn.Module:
    """The network of a record that `factored_ref` made."""
    net = network_of(ModelRef(**args["network"]), num_classes, **options)
    add_factors(net)
    return net


def proximal_step(factors: Mapping[str, Factor], lr: float, penalty: float) -> None:
    """One accelerated proximal step of ``loss + penalty * sum |factor|``, from the gradients.

        z = soft(factor - lr * gradient, lr * penalty)
        v = z - factor + momentum * v
        factor = max(0, z + momentum * v)

    Call it between the backward pass and the optimizer's step: it removes the gradients, so that
    the optimizer does not change the factors.
    """
    with torch.no_grad():
        for factor in factors.values():
            weight, gradient = factor.weight, factor.weight.grad
            if gradient is None:
                continue
            z = nn.functional.softshrink(weight - lr * gradient, lr * penalty)
            factor.velocity.copy_(z - weight + MOMENTUM * factor.velocity)
            weight.copy_((z + MOMENTUM * factor.velocity).clamp(min=0))
            factor.weight.grad = None


def factors_of(net: nn.Module) -> dict[str, Factor]:
    """The factors of a network by the names of their blocks."""
    return {
        name.partition(".drop_path")[0]: module
        for name, module in net.named_modules()
        if isinstance(module, Factor)
    }


def remove_branches(net: Any) -> nn.Module:
    """A network without the branches whose factor is zero; the other factors are in its weights.

    ``net`` is not changed. Raises UserError for a network that is not a `PreActSpec`'s.
    """
    if not isinstance(getattr(net, "spec", None), PreActSpec):
        raise UserError(f"structure selection: {type(net).__name__} has no spec of branches to go")
    spec, factors = net.spec, factors_of(net)
    state = {name: weight.clone() for name, weight in net.state_dict().items()}
    for block, factor in factors.items():
        state[f"{block}.conv3.weight"] *= factor.weight.detach()
    stages = []
    for stage, branches in enumerate(spec.branches()):
        blocks = [f"stages.{stage}.blocks.{block}." for block in range(len(branches))]
        keeps = [
            has and bool(factors[block.removesuffix(".")].weight > 0)
            for block, has in zip(blocks, branches, strict=True)
        ]
        # The first block always stays, for its shortcut; later blocks move forward.
        kept = [b for b, keep in zip(blocks, keeps, strict=True) if keep or b is blocks[0]]
        for new, old in zip(blocks, kept, strict=False):
            for name in [name for name in state if name.startswith(old)]:
                state[new + name.removeprefix(old)] = state[name]
        stages.append((sum(keeps), keeps[0]))
    return refilled(net, spec.replace(stages=tuple(stages)), state)
