"""A network on its way, and all that must be saved to go on from anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from convnext_study.errors import BadRequest, Failed
from convnext_study.training import checkpoint, processes
from convnext_study.training.guard import is_finite
from convnext_study.training.optimizer import align_state
from convnext_study.training.recipe import Recipe
from convnext_study.training.run import RunFolder
from convnext_study.training.task import Machine, Task


class TrainingError(Failed):
    """Training cannot go on; the message says why and what to try. The last state is on disk."""


@dataclass
class State:
    """Where a run is: plain numbers, all of which go into a checkpoint."""

    step: int = 0  # optimizer steps done, skipped ones included
    skipped: int = 0  # steps whose loss, gradient or buffers were not finite
    skipped_in_row: int = 0
    loss_sum: float = 0.0  # over the images of this epoch so far
    images: int = 0
    bad_images: int = 0  # how often one that could not be read was replaced
    bad_names: list[str] = field(default_factory=list)  # which ones
    train_seconds: float = 0.0  # of this epoch so far
    seconds: float = 0.0  # of the whole run so far, over all resumes
    evaluation_seconds: float = math.inf  # of the last epoch
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
    fingerprint: dict[str, Any]  # of the data

    def save(self) -> None:
        """Write a checkpoint; every process calls it, the first one writes.

        Raises TrainingError for a full disk, and for weights that are not finite: the last good
        ones stay.
        """
        processes.together(self._save)

    def _save(self) -> None:
        if not all(is_finite(module) for module in self._modules()):
            raise TrainingError(
                f"{self.folder.path}: the weights are not finite after step {self.state.step}; "
                "the last finite ones are kept; try a lower learning rate (lr), gradient clipping "
                "(clip_grad), or precision float32"
            )
        if self.machine.rank:
            return
        state = {
            "key": self.folder.run.key,
            "data": self.fingerprint,
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

    def share_buffers(self) -> None:
        """Give every process the first one's buffers, such as BatchNorm's running statistics.

        Those are what is saved: what is evaluated must be the same network in every process.
        """
        processes.take_firsts(buffer for module in self._modules() for buffer in module.buffers())

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
            BadRequest: it is another run's, or a process sees another file.
        """
        saved = processes.together(self._first_state)
        which = processes.from_first(saved and (saved[0].name, checkpoint.digest(saved[0])))
        if which is None:
            return False
        processes.together(lambda: self._load(saved[1] if saved else self._same_state(*which)))
        return True

    def _first_state(self) -> Any:
        """In the first process, the checkpoint to go on from; in the others None."""
        if self.machine.rank:
            return None
        return checkpoint.find(
            self.folder.path, lambda text: self.folder.event("warning", text=text)
        )

    def _same_state(self, name: str, digest: str) -> dict[str, Any]:
        path = self.folder.path / name
        try:
            if checkpoint.digest(path) == digest:
                return checkpoint.read(path)
            seen = "another file"
        except OSError as error:
            seen = error.strerror or str(error)
        raise BadRequest(
            f"{path}: the first process goes on from this checkpoint, and this one sees {seen}; "
            "all processes need the same folder: give the command again when its disk is in step"
        )

    def _load(self, saved: dict[str, Any]) -> None:
        if saved["key"] != self.folder.run.key:
            raise BadRequest(
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
        vars(self.state).update(saved["state"])
