"""Builds a run's training state at its first step, the same in every process."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from convnext_study.data.rng import fold_in, seed_everything
from convnext_study.errors import UserError
from convnext_study.models.fast_conv import use_gemm_convs
from convnext_study.models.recompute import count_once
from convnext_study.recipes import Recipe, images_at_a_time, make_recipe
from convnext_study.runs.fingerprints import PARENT, digest_of_data
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.parents import keep_parent
from convnext_study.runs.records import Run
from convnext_study.training import distributed
from convnext_study.training.optimizer import make_optimizer
from convnext_study.training.runtime import Runtime, batch_norm_warning
from convnext_study.training.state import TrainProgress, TrainState
from convnext_study.training.task import Parent, Task, find_parent
from convnext_study.training.tasks import make_task


def build_train_state(
    run: Run, folder: RunFolder, runtime: Runtime, stop: Callable[[], bool]
) -> TrainState:
    """The state of a run at its first step, with the same weights in every process."""
    recipe = make_recipe(run.recipe)
    parent = distributed.all_or_raise(lambda: find_parent(run, folder.path))
    task = distributed.all_or_raise(lambda: make_task(run, runtime))
    fingerprint = _agree_on_data(run, task, parent, folder)
    if parent is not None and folder.writes:
        with folder.writing():
            keep_parent(parent.record, folder.path)
    model = distributed.all_or_raise(lambda: _build(run, task, recipe, runtime, parent))
    recipe = task.schedule(recipe)
    for text in task.warnings():
        folder.event("warning", text=text)
    bn_images = recipe.global_batch_size // runtime.world_size // task.accum_steps
    if recipe.sync_bn:
        bn_images *= runtime.world_size
    if _has_batch_norm(model) and (text := batch_norm_warning(bn_images, images_at_a_time(recipe))):
        folder.event("warning", text=text)
    return TrainState(
        task=task,
        recipe=recipe,
        runtime=runtime,
        model=model,
        forward=_wrap(model, runtime),
        optimizer=make_optimizer(model, recipe),
        scaler=GradScaler(torch.device(runtime.device).type, enabled=recipe.precision == "fp16"),
        ema=_make_ema(model, recipe),
        progress=TrainProgress(),
        folder=folder,
        stop=stop,
        seed=run.seed,
        fingerprint=fingerprint,
    )


def _agree_on_data(
    run: Run, task: Task, parent: Parent | None, folder: RunFolder
) -> dict[str, Any]:
    """The fingerprint of data and parent; checks that every process and every start has it."""
    fingerprint = distributed.all_or_raise(lambda: task.fingerprint)
    if parent is not None:
        fingerprint = {**fingerprint, PARENT: parent.digest}

    def check(recorded: dict[str, Any], where: str) -> None:
        recorded = dict(recorded)
        if recorded.pop(PARENT, None) != fingerprint.get(PARENT):
            raise UserError(
                f"{where}: its parent run ({parent and parent.record.folder.name}) has other "
                "weights than when this run began; move this run's folder away to start over"
            )
        task.check_data(recorded, where)

    def check_planned() -> None:
        if run.data_id and run.data_id.rpartition("#")[2] != digest_of_data(fingerprint):
            raise UserError(
                f"{folder.path}: {run.data} has changed since this run was created; run the "
                "command again"
            )

    expected = distributed.broadcast_object(fingerprint)
    where_differs = f"{folder.path}: this process sees other data than the first process"
    distributed.all_or_raise(lambda: check(expected, where_differs))
    distributed.all_or_raise(check_planned)
    distributed.all_or_raise(lambda: folder.record_fingerprint(fingerprint, check))
    return fingerprint


def _build(
    run: Run, task: Task, recipe: Recipe, runtime: Runtime, parent: Parent | None
) -> nn.Module:
    seed_everything(fold_in(run.seed, "weights"))
    model = _place(task.build(parent), recipe, runtime)
    task.begin(model)
    return model


def _place(model: nn.Module, recipe: Recipe, runtime: Runtime) -> nn.Module:
    if runtime.grad_checkpointing:
        set_checkpointing: Any = getattr(model, "set_grad_checkpointing", None)
        if set_checkpointing is None:
            raise UserError(
                f"grad_checkpointing: {type(model).__name__} does not support it; leave it out "
                "for this network"
            )
        set_checkpointing(True)
    if recipe.sync_bn and runtime.world_size > 1:
        if torch.device(runtime.device).type != "cuda" and _has_batch_norm(model):
            raise UserError(
                f"sync_bn: torch synchronises BatchNorm only on GPUs, not on {runtime.device}; "
                "leave it out, or use one process with a larger micro batch"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if runtime.grad_checkpointing and not runtime.compile:
        count_once(model)  # for timm's networks; this package's do it themselves
    if torch.device(runtime.device).type == "cpu" and not runtime.compile:
        use_gemm_convs(model)
    return model.to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload,no-any-return]


def _wrap(model: nn.Module, runtime: Runtime) -> nn.Module:
    forward = model
    if runtime.world_size > 1:
        from torch.nn.parallel import DistributedDataParallel

        device = torch.device(runtime.device)
        forward = DistributedDataParallel(
            forward, device_ids=[device] if device.type == "cuda" else None
        )
    if runtime.compile:  # after wrapping, so that gradients are sent while others are computed
        forward = torch.compile(forward)  # type: ignore[assignment]
    return forward


def _make_ema(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The moving average of the weights, if any. BatchNorm's statistics are not averaged."""
    if not recipe.ema:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        average_fn = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
        return AveragedModel(model, multi_avg_fn=average_fn)


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
