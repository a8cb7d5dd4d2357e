"""A network on its way, and all that must be saved to go on from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from convnext_study.errors import Failed
from convnext_study.training import checkpoint
from convnext_study.training.recipe import Recipe
from convnext_study.training.run import RunFolder
from convnext_study.training.task import Machine, Task


class TrainingError(Failed):
    """Training cannot go on; the message says why and what to try. The last state is on disk."""


@dataclass
class State:
    """Where a run is: plain numbers, all of which go into a checkpoint."""

    step: int = 0  # optimizer steps done, skipped ones included
    skipped: int = 0  # steps whose loss was not finite
    skipped_in_row: int = 0
    loss_sum: float = 0.0  # over the images of this epoch so far
    images: int = 0
    bad_images: int = 0  # how often one that could not be read was replaced
    bad_names: list[str] = field(default_factory=list)  # which ones
    train_seconds: float = 0.0  # of this epoch so far
    seconds: float = 0.0  # of the whole run so far, over all resumes
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """A network and what moves it.

    ``model`` holds the weights; ``forward`` is what is called in training: the model itself, or
    wrapped to be compiled or to share gradients with other processes.
    """

    task: Task
    recipe: Recipe
    machine: Machine
    model: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    ema: AveragedModel | None
    state: State
    folder: RunFolder
    stop: Callable[[], bool]
    seed: int

    def save(self) -> None:
        """Write a checkpoint, in the first process only. Raises TrainingError for a full disk."""
        if self.machine.rank:
            return
        state = {
            "key": self.folder.run.key,
            "model": self.model.state_dict(),
            **self._averaged(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "state": vars(self.state),
        }
        try:
            checkpoint.save(self.folder.path, state)
        except OSError as error:
            raise TrainingError(
                f"{self.folder.path}: the state cannot be saved ({error.strerror}); make room, "
                "then give the same command again: it goes on from the checkpoint before"
            ) from error

    def _averaged(self) -> dict[str, Any]:
        """The moving average under the name that timm looks for first."""
        if self.ema is None:
            return {}
        return {
            "model_ema": self.ema.module.state_dict(),
            "averaged": int(self.ema.n_averaged),
        }

    def restore(self) -> bool:
        """Go back to the newest checkpoint that can be read. Returns whether there was one."""
        saved = checkpoint.load(
            self.folder.path, lambda text: self.folder.event("warning", text=text)
        )
        if saved is None:
            return False
        self.model.load_state_dict(saved["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(saved["model_ema"])
            self.ema.n_averaged.fill_(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        vars(self.state).update(saved["state"])
        return True
