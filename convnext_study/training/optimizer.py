"""Learning rate, parameter groups and optimizer of a recipe.

The learning rate is a pure function of the step, so that resuming needs no scheduler state and a
plan can print the curve without a model.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from convnext_study.recipes import Recipe


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Two groups, decayed and not. 1-D parameters (norms, biases, layer scale) are not decayed,
    unless the recipe decays them, nor are those that ``no_weight_decay()`` of a model names."""
    undecayed_names = set(getattr(model, "no_weight_decay", set)())
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        undecayed = not recipe.weight_decay_1d and (parameter.ndim <= 1 or name in undecayed_names)
        (no_decay if undecayed else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": recipe.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum, in torch's fused version, the fastest on every device."""
    _skip_dynamo_import()
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "sgd":
        sgd = torch.optim.SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
        )
        _start_momentum(sgd)
        return sgd
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=True)


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Take the optimizer's step without torch's wrapper, which imports the compiler."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


def _skip_dynamo_import() -> None:
    """Keep torch's optimizers from importing ``torch._dynamo``, which takes two seconds.

    They import it at their first call, to exclude these functions from compilation, and cache the
    excluded function: where nothing is compiled, it is the function itself.
    """
    optimizer = torch.optim.Optimizer
    for wrapped in (
        optimizer.add_param_group,
        optimizer.zero_grad,
        optimizer.state_dict,
        optimizer.load_state_dict,
    ):
        function: Any = inspect.unwrap(wrapped)
        vars(function).setdefault("__dynamo_disable", function)


def _start_momentum(sgd: torch.optim.SGD) -> None:
    """Start momentum at zero, which gives the same first step as none.

    If that step is skipped, torch would leave the momentum that it had just allocated unset.
    """
    for group in sgd.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def align_state(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded state the memory layout of its parameters.

    torch's fused kernels ignore strides: moments that were saved in another memory format would be
    scrambled without an error.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            same_shape = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if same_shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate used at optimizer step ``step`` (from 0).

    As in the released ConvNeXt code: warm-up rises linearly from 0 and reaches the full rate on
    its last step; the cosine then falls towards ``min_lr`` over the remaining steps, or the
    polynomial ``(1 - progress)^power`` does, as in segmentation since DeepLab (Chen et al., 2018).
    """
    scale = recipe.global_batch_size / recipe.lr_base_size
    peak, floor = recipe.lr * scale, recipe.min_lr * scale
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total)
    if step < warmup:
        return peak * step / max(warmup - 1, 1)
    progress = (step - warmup) / max(total - warmup, 1)
    match recipe.schedule:
        case "step":
            return peak * _factor(recipe, step // steps_per_epoch)
        case "constant":
            return peak
        case "cosine":
            return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))
        case "poly":
            return floor + (peak - floor) * float((1 - progress) ** recipe.power)


def _factor(recipe: Recipe, epoch: int) -> float:
    """The factor of the step schedule in an epoch (from 0)."""
    milestones, gamma = recipe.milestones, recipe.gamma
    passed = (
        epoch // milestones
        if isinstance(milestones, int)
        else sum(epoch >= milestone for milestone in milestones)
    )
    return math.prod(gamma[:passed]) if isinstance(gamma, tuple) else float(gamma**passed)
