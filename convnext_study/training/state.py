"""A network in training, and everything that must be saved to resume anywhere."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from convnext_study.errors import RunFailed, UserError
from convnext_study.recipes import Recipe
from convnext_study.runs.folder import RunFolder
from convnext_study.training import checkpoint_file, distributed
from convnext_study.training.guard import is_finite
from convnext_study.training.optimizer import align_state
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Task


class TrainingError(RunFailed):
    """Training cannot go on; the message says why and what to try. The last state is on disk."""


# What to try if numbers are not finite.
LR_ADVICE = "try a lower learning rate (lr), gradient clipping (clip_grad), or precision float32"


@dataclass
class TrainProgress:
    """How far a run has come: plain values, all of which are saved in a checkpoint."""

    step: int = 0  # optimizer steps done, skipped ones included
    skipped: int = 0  # steps whose loss, gradient or buffers were not finite
    skipped_in_row: int = 0
    loss_sum: float = 0.0  # over the images of this epoch so far
    images: int = 0
    corrupt_images: int = 0  # how often an unreadable one was replaced
    corrupt_names: list[str] = field(default_factory=list)
    train_seconds: float = 0.0  # of this epoch so far
    seconds: float = 0.0  # of the whole run so far, over all resumes
    evaluation_seconds: float = math.inf  # of the last epoch
    hooked: int = 0  # epochs whose hooks are done
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The current epoch, from 0. An epoch ends when it is logged, after its evaluation."""
        return len(self.history)


@dataclass(frozen=True)
class TrainState:
    """A network and everything that trains it.

    ``model`` has the weights; ``forward`` is what training calls: the model itself, or a wrapper
    that compiles it or shares gradients with other processes.
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
    fingerprint: dict[str, Any]  # of the data, and of the run it starts from

    def save(self) -> None:
        """Write a checkpoint; every process calls it, the first one writes.

        Raises RunFailed for a full disk or a lost lock, TrainingError for weights that are not
        finite: the last checkpoint stays.
        """
        self._log_corrupt_images()
        distributed.all_or_raise(self._save)

    def _log_corrupt_images(self) -> None:
        """Log the names of unreadable images, each once per run."""
        names = frozenset[str]().union(*distributed.all_gather(self.task.corrupt_names))
        new = sorted(names.difference(self.progress.corrupt_names))
        if new:
            self.folder.event("corrupt_images", names=new)
            self.progress.corrupt_names += new

    def _save(self) -> None:
        if not all(is_finite(module) for module in self._modules()):
            raise TrainingError(
                f"{self.folder.path}: the weights are not finite after step {self.progress.step}; "
                f"the last finite ones are kept; {LR_ADVICE}"
            )
        if self.runtime.rank:
            return
        state = {
            "key": self.folder.run.key,
            "data": self.fingerprint,
            "model": self.model.state_dict(),
            # The name that timm looks for first.
            **({} if self.ema is None else {"model_ema": self.ema.module.state_dict()}),
            **({} if self.ema is None else {"averaged": int(self.ema.n_averaged)}),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "task": self.task.state(),
            "num_classes": self.task.num_classes,
            "state": vars(self.progress),
        }
        with self.folder.writing():
            checkpoint_file.save(self.folder.path, state, self.folder.check_lock)

    def share_buffers(self) -> None:
        """Give every process the first one's buffers, such as BatchNorm's running statistics.

        Those are saved, so what is evaluated must be the same network in every process.
        """
        distributed.broadcast_tensors(
            buffer for module in self._modules() for buffer in module.buffers()
        )

    def _modules(self) -> list[nn.Module]:
        return [self.model] if self.ema is None else [self.model, self.ema.module]

    def restore(self) -> bool:
        """Load the newest intact checkpoint. Returns whether there was one.

        The first process decides which one; the others read the same file.

        Raises:
            CheckpointError: there are checkpoints, but none can be read.
            UserError: it is another run's, or a process sees another file.
        """
        saved = distributed.all_or_raise(lambda: None if self.runtime.rank else self._find())
        identity = distributed.broadcast_object(
            saved and (saved[0].name, checkpoint_file.digest(saved[0]))
        )
        if identity is None:
            return False
        distributed.all_or_raise(lambda: self._load(saved[1] if saved else self._read(*identity)))
        return True

    def _find(self) -> tuple[Path, dict[str, Any]] | None:
        def warn(text: str) -> None:
            self.folder.event("warning", text=text)

        return checkpoint_file.find(self.folder.path, warn)

    def _read(self, name: str, digest: str) -> dict[str, Any]:
        path = self.folder.path / name
        try:
            if checkpoint_file.digest(path) == digest:
                return checkpoint_file.read(path)
            reason = "another file"
        except OSError as error:
            reason = error.strerror or str(error)
        raise UserError(
            f"{path}: the first process resumes from this checkpoint, but this one sees {reason}; "
            "all processes need the same folder: run the command again once its disk is in sync"
        )

    def _load(self, saved: dict[str, Any]) -> None:
        if saved["key"] != self.folder.run.key:
            raise UserError(
                f"{self.folder.path}: its checkpoint belongs to another run (other network, "
                "recipe, data or seed); choose another --out, or move the checkpoint away"
            )
        self.model.load_state_dict(saved["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(saved["model_ema"])
            self.ema.n_averaged.fill_(saved["averaged"])
        if "optimizer" in saved:  # `runs clean` drops both from finished runs
            self.optimizer.load_state_dict(saved["optimizer"])
            align_state(self.optimizer)
            self.scaler.load_state_dict(saved["scaler"])
        self.task.load_state(saved["task"])
        vars(self.progress).update(saved["state"])


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_of(precision: str, device: str) -> AbstractContextManager[Any]:
    """Autocast for ``float32`` (none), ``bf16`` or ``fp16`` on a device."""
    dtype = DTYPES.get(precision)
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype)
