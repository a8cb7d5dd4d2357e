"""A network on its way, and all that must be saved to go on from anywhere."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from convnext_study.data.rng import fold_in
from convnext_study.errors import RunFailed, UserError
from convnext_study.models.fast_conv import use_gemm_convs
from convnext_study.models.recompute import count_once
from convnext_study.recipes import Recipe, make_recipe
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.records import Run
from convnext_study.training import checkpoint_file, distributed
from convnext_study.training.guard import is_finite
from convnext_study.training.optimizer import align_state, make_optimizer
from convnext_study.training.rng import seed_everything
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Task
from convnext_study.training.tasks import make_task


class TrainingError(RunFailed):
    """Training cannot go on; the message says why and what to try. The last state is on disk."""


@dataclass
class TrainProgress:
    """Where a run is: plain numbers, all of which go into a checkpoint."""

    step: int = 0  # optimizer steps done, skipped ones included
    skipped: int = 0  # steps whose loss, gradient or buffers were not finite
    skipped_in_row: int = 0
    loss_sum: float = 0.0  # over the images of this epoch so far
    images: int = 0
    corrupt_images: int = 0  # how often one that could not be read was replaced
    corrupt_names: list[str] = field(default_factory=list)  # which ones
    train_seconds: float = 0.0  # of this epoch so far
    seconds: float = 0.0  # of the whole run so far, over all resumes
    evaluation_seconds: float = math.inf  # of the last epoch
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainState:
    """A network and what moves it.

    ``model`` holds the weights; ``forward`` is what is called in training: the model itself, or
    wrapped to be compiled or to share gradients with other processes.
    """

    task: Task
    recipe: Recipe
    runtime: Runtime
    model: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    ema: AveragedModel | None
    progress: TrainProgress
    folder: RunFolder
    stop: Callable[[], bool]
    seed: int
    fingerprint: dict[str, Any]  # of the data

    def save(self) -> None:
        """Write a checkpoint; every process calls it, the first one writes.

        Raises TrainingError for a full disk, and for weights that are not finite: the last good
        ones stay.
        """
        distributed.together(self._save)

    def _save(self) -> None:
        if not all(is_finite(module) for module in self._modules()):
            raise TrainingError(
                f"{self.folder.path}: the weights are not finite after step {self.progress.step}; "
                "the last finite ones are kept; try a lower learning rate (lr), gradient clipping "
                "(clip_grad), or precision float32"
            )
        if self.runtime.rank:
            return
        state = {
            "key": self.folder.run.key,
            "data": self.fingerprint,
            "model": self.model.state_dict(),
            **self._averaged(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "state": vars(self.progress),
        }
        try:
            checkpoint_file.save(self.folder.path, state)
        except OSError as error:
            raise TrainingError(
                f"{self.folder.path}: the state cannot be saved ({error.strerror}); make room, "
                "then give the same command again: it goes on from the checkpoint before"
            ) from error

    def share_buffers(self) -> None:
        """Give every process the first one's buffers, such as BatchNorm's running statistics.

        Those are what is saved: what is evaluated must be the same network in every process.
        """
        distributed.broadcast_tensors(
            buffer for module in self._modules() for buffer in module.buffers()
        )

    def _modules(self) -> list[nn.Module]:
        return [self.model] if self.ema is None else [self.model, self.ema.module]

    def _averaged(self) -> dict[str, Any]:
        """The moving average under the name that timm looks for first."""
        if self.ema is None:
            return {}
        return {
            "model_ema": self.ema.module.state_dict(),
            "averaged": int(self.ema.n_averaged),
        }

    def restore(self) -> bool:
        """Go back to the newest checkpoint that is not damaged. Returns whether there was one.

        The first process decides which one; the others read the same file.

        Raises:
            CheckpointError: there is one, and none can be read.
            UserError: it is another run's, or a process sees another file.
        """
        saved = distributed.together(self._first_state)
        which = distributed.broadcast_object(
            saved and (saved[0].name, checkpoint_file.digest(saved[0]))
        )
        if which is None:
            return False
        distributed.together(lambda: self._load(saved[1] if saved else self._same_state(*which)))
        return True

    def _first_state(self) -> Any:
        """In the first process, the checkpoint to go on from; in the others None."""
        if self.runtime.rank:
            return None
        return checkpoint_file.find(
            self.folder.path, lambda text: self.folder.event("warning", text=text)
        )

    def _same_state(self, name: str, digest: str) -> dict[str, Any]:
        path = self.folder.path / name
        try:
            if checkpoint_file.digest(path) == digest:
                return checkpoint_file.read(path)
            seen = "another file"
        except OSError as error:
            seen = error.strerror or str(error)
        raise UserError(
            f"{path}: the first process goes on from this checkpoint, and this one sees {seen}; "
            "all processes need the same folder: give the command again when its disk is in step"
        )

    def _load(self, saved: dict[str, Any]) -> None:
        if saved["key"] != self.folder.run.key:
            raise UserError(
                f"{self.folder.path}: its checkpoint is of another run (other network, recipe, "
                "data or seed); choose another --out, or move the checkpoint away"
            )
        self.model.load_state_dict(saved["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(saved["model_ema"])
            self.ema.n_averaged.fill_(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        align_state(self.optimizer)
        self.scaler.load_state_dict(saved["scaler"])
        vars(self.progress).update(saved["state"])


# A BatchNorm that sees fewer images than this normalises with noisy statistics.
SMALL_BATCH = 32


def build_train_state(
    run: Run, folder: RunFolder, runtime: Runtime, stop: Callable[[], bool]
) -> TrainState:
    """Everything a run needs, at its first step. Every process builds the same weights."""
    recipe = make_recipe(run.recipe)
    task = distributed.together(lambda: make_task(run, runtime))
    fingerprint = _agree_on_data(task, folder)
    model = distributed.together(lambda: _build(run, task, recipe, runtime))
    seen = recipe.global_batch_size // runtime.world_size // task.accum_steps
    if recipe.sync_bn:
        seen *= runtime.world_size
    if seen < SMALL_BATCH and _has_batch_norm(model):
        folder.event(
            "warning",
            text=f"BatchNorm sees {seen} images at a time, under {SMALL_BATCH}: networks with it "
            "are handicapped against those with LayerNorm; use a larger micro-batch or sync_bn",
        )
    return TrainState(
        task=task,
        recipe=recipe,
        runtime=runtime,
        model=model,
        forward=_wrap(model, runtime),
        optimizer=make_optimizer(model, recipe),
        scaler=GradScaler(torch.device(runtime.device).type, enabled=recipe.precision == "fp16"),
        ema=_average(model, recipe),
        progress=TrainProgress(),
        folder=folder,
        stop=stop,
        seed=run.seed,
        fingerprint=fingerprint,
    )


def _agree_on_data(task: Task, folder: RunFolder) -> dict[str, Any]:
    """The data's fingerprint: the same in every process, and at every start of the run."""
    fingerprint = distributed.together(lambda: task.fingerprint)
    firsts = distributed.broadcast_object(fingerprint)
    other = f"{folder.path}: this process sees other data than the first one"
    distributed.together(lambda: task.check_data(firsts, other))
    distributed.together(lambda: folder.keep_fingerprint(fingerprint, task.check_data))
    return fingerprint


def _build(run: Run, task: Task, recipe: Recipe, runtime: Runtime) -> nn.Module:
    seed_everything(fold_in(run.seed, "weights"))
    return _place(task.build(), recipe, runtime)


def _place(model: nn.Module, recipe: Recipe, runtime: Runtime) -> nn.Module:
    if runtime.grad_checkpointing:
        switch: Any = getattr(model, "set_grad_checkpointing", None)
        if switch is None:
            raise UserError(
                f"grad_checkpointing: {type(model).__name__} cannot; leave it out for this network"
            )
        switch(True)
    if recipe.sync_bn and runtime.world_size > 1:
        if torch.device(runtime.device).type != "cuda" and _has_batch_norm(model):
            raise UserError(
                f"sync_bn: torch synchronises BatchNorm on GPUs only, not on {runtime.device}; "
                "leave it out, or use one process with a larger micro batch"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if runtime.grad_checkpointing and not runtime.compile:
        count_once(model)  # timm's networks; this package's do so by themselves
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
    if runtime.compile:  # the wrapped one: gradients are then sent while others are computed
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
