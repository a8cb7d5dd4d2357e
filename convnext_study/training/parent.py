"""The run that another starts from: found by its key, among the records beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convnext_study.errors import Busy
from convnext_study.runs.parents import (
    KEPT_WEIGHTS,
    ParentError,
    finished_parent,
    kept_parent,
    lost_weights,
)
from convnext_study.runs.records import CHECKPOINT, Record, Run
from convnext_study.training import checkpoint_file

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Parent:
    """A finished run that another one starts from: its record, and where its weights are."""

    record: Record
    checkpoint: Path

    @property
    def run(self) -> Run:
        """What was asked of it."""
        return self.record.run

    @cached_property
    def weights(self) -> dict[str, Any]:
        """Its last state dict, on the CPU: the moving average where it is judged by that.

        Raises CheckpointError where the checkpoint cannot be read.
        """
        saved = checkpoint_file.read(self.checkpoint)
        averaged = self.run.recipe.get("eval_weights") == "ema"
        weights: dict[str, Any] = saved["model_ema" if averaged else "model"]
        return weights

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights: the same for a run that was trained again to the same bits,
        whatever time that took. Raises as ``weights`` does."""
        found = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()


def find_parent(run: Run, folder: Path) -> Parent | None:
    """The run that ``run``, in ``folder``, starts from; None where it starts from none.

    Where it is gone, what ``run`` has kept of it since it began. Raises ParentError, one line.
    """
    try:
        if (record := finished_parent(run, folder)) is None:
            return None
        return _readable(Parent(record, record.folder / CHECKPOINT), folder)
    except (ParentError, Busy):
        if (record := kept_parent(run, folder)) is None:
            raise
        return _readable(Parent(record, folder / KEPT_WEIGHTS), folder)


def _readable(parent: Parent, folder: Path) -> Parent:
    try:
        parent.digest  # noqa: B018  reads the weights
    except (OSError, checkpoint_file.CheckpointError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise lost_weights(parent.record, folder, f"cannot be read ({said or error})") from error
    return parent


def load_weights(model: nn.Module, parent: Parent) -> None:
    """Give a network its parent's weights. Raises ParentError where they are of another one."""
    try:
        model.load_state_dict(parent.weights)
    except RuntimeError as error:
        raise ParentError(
            f"{parent.record.folder}: its weights do not fit the network that starts from them "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
