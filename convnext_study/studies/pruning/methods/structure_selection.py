"""Sparse structure selection (Huang and Wang, ECCV 2018): whole residual branches go.

A factor multiplies each branch; its penalised loss is minimised by an accelerated proximal step,
which sets factors to exactly zero. Those branches then leave the network; a block that changes the
stream keeps its shortcut.

    factors = add_factors(net)                 # before the optimizer is made
    ... loss.backward(); proximal_step(factors, lr); optimizer.step() ...
    small = remove_branches(net, kept_branches(factors))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.groups import PruningError
from convnext_study.studies.pruning.networks.build import make_network
from convnext_study.studies.pruning.specs import PreActSpec

PENALTY, MOMENTUM = 0.01, 0.9


class Factor(nn.Module):
    """A learned factor of a residual branch, initially 1. Maps any shape to the same.

    It is not for the optimizer: `proximal_step` moves it.
    """

    velocity: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("velocity", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The branch, multiplied."""
        return x * self.weight


def add_factors(net: nn.Module) -> dict[str, Factor]:
    """A factor for each residual branch, in place, by the name of its block.

    A block is any module with a ``drop_path``, which stands where the branch ends: those of this
    package's networks and of timm's. Raises UserError for a network without one.
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


def proximal_step(
    factors: Mapping[str, Factor],
    lr: float,
    penalty: float = PENALTY,
    momentum: float = MOMENTUM,
) -> None:
    """One accelerated proximal step of ``loss + penalty * sum |factor|``, from the gradients.

        z = soft(factor - lr * gradient, lr * penalty)
        v = z - factor + momentum * v
        factor = max(0, z + momentum * v)

    Call it after the backward pass, before the optimizer's step: gradients are taken away, so that
    the optimizer leaves the factors alone.
    """
    with torch.no_grad():
        for factor in factors.values():
            weight, gradient = factor.weight, factor.weight.grad
            if gradient is None:
                continue
            z = nn.functional.softshrink(weight - lr * gradient, lr * penalty)
            factor.velocity.copy_(z - weight + momentum * factor.velocity)
            weight.copy_((z + momentum * factor.velocity).clamp(min=0))
            factor.weight.grad = None


def kept_branches(factors: Mapping[str, Factor]) -> dict[str, bool]:
    """Of each block, whether its branch stays: its factor is above zero."""
    return {name: bool(factor.weight > 0) for name, factor in factors.items()}


def branch_spec(spec: PreActSpec, kept: Mapping[str, bool]) -> PreActSpec:
    """The network that is left. Raises PruningError for a block it does not have."""
    left = _left(spec, kept)
    stages = tuple((sum(branches.values()), branches.get(0, False)) for branches in left)
    return spec.replace(stages=stages)


def remove_branches(net: Any, kept: Mapping[str, bool]) -> nn.Module:
    """The network without the other branches, with the weights that are left, factors included.

    ``net`` stays whole. Raises UserError for a network that is no pre-activation ResNet of whole
    branches (`PreActSpec`), PruningError for a block that it does not have.
    """
    if not isinstance(getattr(net, "spec", None), PreActSpec):
        raise UserError(f"structure selection: {type(net).__name__} has no spec of branches to go")
    spec, state = net.spec, _folded(net)
    for stage, (before, after) in enumerate(zip(spec.branches(), _left(spec, kept), strict=True)):
        _rename(state, stage, len(before), after)
    small = make_network(
        branch_spec(spec, kept), num_classes=net.num_classes, in_chans=net.in_chans
    )
    weight = next(net.parameters())
    small.to(weight.device, weight.dtype).train(net.training)
    small.load_state_dict({name: state[name] for name in small.state_dict()})
    return small


def _left(spec: PreActSpec, kept: Mapping[str, bool]) -> list[dict[int, bool]]:
    """Of each stage, the blocks whose branch there is, and whether it stays."""
    blocks = {
        f"stages.{stage}.blocks.{block}": (stage, block)
        for stage, branches in enumerate(spec.branches())
        for block, has_branch in enumerate(branches)
        if has_branch
    }
    for name in kept:
        if name not in blocks:
            raise PruningError(f"{name}: no such block with a branch")
    found: list[dict[int, bool]] = [{} for _ in spec.stages]
    for name, (stage, block) in blocks.items():
        found[stage][block] = kept.get(name, True)
    return found


def _folded(net: nn.Module) -> dict[str, Tensor]:
    """The weights, each factor multiplied into the last convolution of its branch."""
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for name, module in net.named_modules():
        if isinstance(module, Factor):
            block = name.partition(".drop_path")[0]
            state[f"{block}.conv3.weight"] *= module.weight.detach()
    return state


def _rename(state: dict[str, Tensor], stage: int, blocks: int, left: Mapping[int, bool]) -> None:
    """Give the blocks that stay their new places; the first always stays, for its shortcut."""
    stays = [block for block in range(blocks) if block == 0 or left.get(block, True)]
    for new, old in enumerate(stays):
        prefix = f"stages.{stage}.blocks.{old}."
        for name in [name for name in state if name.startswith(prefix)]:
            state[f"stages.{stage}.blocks.{new}." + name.removeprefix(prefix)] = state[name]
