"""The run that another starts from: found by its key, among the records beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.runs.parents import ParentError, finished_parent
from convnext_study.runs.records import CHECKPOINT, Record, Run
from convnext_study.training import checkpoint_file

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Parent:
    """A finished run that another one starts from.

    ``record`` is its record; ``digest`` the checksum of the checkpoint that is read.
    """

    record: Record
    digest: str

    @property
    def run(self) -> Run:
        """What was asked of it."""
        return self.record.run

    @cached_property
    def weights(self) -> dict[str, Any]:
        """Its last state dict, on the CPU: the moving average where it is judged by that.

        Raises CheckpointError where the checkpoint cannot be read.
        """
        saved = checkpoint_file.read(self.record.folder / CHECKPOINT)
        averaged = self.run.recipe.get("eval_weights") == "ema"
        weights: dict[str, Any] = saved["model_ema" if averaged else "model"]
        return weights


def find_parent(run: Run, folder: Path) -> Parent | None:
    """The run that ``run``, in ``folder``, starts from; None where it starts from none.

    Raises ParentError, one line.
    """
    if (record := finished_parent(run, folder)) is None:
        return None
    try:
        digest = checkpoint_file.digest(record.folder / CHECKPOINT)
    except OSError as error:
        raise ParentError(
            f"{record.folder / CHECKPOINT}: cannot be read ({error.strerror or error}), and "
            f"{folder.name} starts from it; train that run again"
        ) from error
    return Parent(record, digest)


def load_weights(model: nn.Module, parent: Parent) -> None:
    """Give a network its parent's weights. Raises ParentError where they are of another one."""
    try:
        model.load_state_dict(parent.weights)
    except RuntimeError as error:
        raise ParentError(
            f"{parent.record.folder}: its weights do not fit the network that starts from them "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
