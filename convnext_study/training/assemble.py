"""From a run's plain values to a network with all that moves it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from convnext_study.errors import BadRequest
from convnext_study.matrices import use_matrices
from convnext_study.recompute import count_once
from convnext_study.records import Run
from convnext_study.training import processes
from convnext_study.training.optimizer import make_optimizer
from convnext_study.training.recipe import Recipe, make_recipe
from convnext_study.training.run import RunFolder
from convnext_study.training.seeds import derive, seed_everything
from convnext_study.training.state import State, Training
from convnext_study.training.task import Machine, Task, make_task

# A BatchNorm that sees fewer images than this normalises with noisy statistics.
SMALL_BATCH = 32


def assemble(run: Run, folder: RunFolder, machine: Machine, stop: Callable[[], bool]) -> Training:
    """Everything a run needs, at its first step. Every process builds the same weights."""
    recipe = make_recipe(run.recipe)
    task = processes.together(lambda: make_task(run, machine))
    fingerprint = _agree_on_data(task, folder)
    model = processes.together(lambda: _build(run, task, recipe, machine))
    seen = recipe.global_batch // machine.world // task.micro_batches
    if recipe.sync_bn:
        seen *= machine.world
    if seen < SMALL_BATCH and _has_batch_norm(model):
        folder.event(
            "warning",
            text=f"BatchNorm sees {seen} images at a time, under {SMALL_BATCH}: networks with it "
            "are handicapped against those with LayerNorm; use a larger micro-batch or sync_bn",
        )
    return Training(
        task=task,
        recipe=recipe,
        machine=machine,
        model=model,
        forward=_wrap(model, machine),
        optimizer=make_optimizer(model, recipe),
        scaler=GradScaler(torch.device(machine.device).type, enabled=recipe.precision == "fp16"),
        ema=_average(model, recipe),
        state=State(),
        folder=folder,
        stop=stop,
        seed=run.seed,
        fingerprint=fingerprint,
    )


def _agree_on_data(task: Task, folder: RunFolder) -> dict[str, Any]:
    """The data's fingerprint: the same in every process, and at every start of the run."""
    fingerprint = processes.together(lambda: task.fingerprint)
    firsts = processes.from_first(fingerprint)
    other = f"{folder.path}: this process sees other data than the first one"
    processes.together(lambda: task.check_data(firsts, other))
    processes.together(lambda: folder.keep_fingerprint(fingerprint, task.check_data))
    return fingerprint


def _build(run: Run, task: Task, recipe: Recipe, machine: Machine) -> nn.Module:
    seed_everything(derive(run.seed, "weights"))
    return _place(task.build(), recipe, machine)


def _place(model: nn.Module, recipe: Recipe, machine: Machine) -> nn.Module:
    if machine.grad_checkpointing:
        switch: Any = getattr(model, "set_grad_checkpointing", None)
        if switch is None:
            raise BadRequest(
                f"grad_checkpointing: {type(model).__name__} cannot; leave it out for this network"
            )
        switch(True)
    if recipe.sync_bn and machine.world > 1:
        if torch.device(machine.device).type != "cuda" and _has_batch_norm(model):
            raise BadRequest(
                f"sync_bn: torch synchronises BatchNorm on GPUs only, not on {machine.device}; "
                "leave it out, or use one process with a larger micro batch"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if machine.grad_checkpointing and not machine.compile:
        count_once(model)  # timm's networks; this package's do so by themselves
    if torch.device(machine.device).type == "cpu" and not machine.compile:
        use_matrices(model)
    return model.to(machine.device, memory_format=machine.memory_format)  # type: ignore[call-overload,no-any-return]


def _wrap(model: nn.Module, machine: Machine) -> nn.Module:
    forward = model
    if machine.world > 1:
        from torch.nn.parallel import DistributedDataParallel

        device = torch.device(machine.device)
        forward = DistributedDataParallel(
            forward, device_ids=[device] if device.type == "cuda" else None
        )
    if machine.compile:  # the wrapped one: gradients are then sent while others are computed
        forward = torch.compile(forward)  # type: ignore[assignment]
    return forward


def _average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The moving average of the weights. BatchNorm's statistics are copied, not averaged."""
    if not recipe.ema:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        average = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
        return AveragedModel(model, multi_avg_fn=average)


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
