"""What the loop needs of a task: a network, batches, a loss, an evaluation; hooks between steps."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convnext_study import cost
from convnext_study.errors import Busy
from convnext_study.runs.files import CHECKPOINT, KEPT_WEIGHTS
from convnext_study.runs.metrics import NETWORK, Cost, Metric
from convnext_study.runs.parents import ParentError, finished_parent, kept_parent, lost_weights
from convnext_study.runs.records import Record, Run
from convnext_study.training import checkpoint_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from convnext_study.recipes import Recipe
    from convnext_study.runs.records import ModelRef


@dataclass(frozen=True)
class Parent:
    """A finished run that another one starts from: its record and the path of its weights."""

    record: Record
    checkpoint: Path

    @property
    def run(self) -> Run:
        """The parent's run."""
        return self.record.run

    @cached_property
    def weights(self) -> dict[str, Any]:
        """Its last state dict, on the CPU: the moving average if the run is evaluated by that.

        Raises CheckpointError if the checkpoint cannot be read.
        """
        saved = checkpoint_file.read(self.checkpoint)
        averaged = self.run.recipe.get("eval_weights") == "ema"
        weights: dict[str, Any] = saved["model_ema" if averaged else "model"]
        return weights

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights, and not of the file: a retrained run with the same weights has
        the same. Raises as ``weights`` does."""
        sha256 = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            sha256.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            sha256.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return sha256.hexdigest()


def find_parent(run: Run, folder: Path) -> Parent | None:
    """The run that ``run``, in ``folder``, starts from; None if it starts from none.

    If it is gone, the copy that ``run`` kept when it began. Raises ParentError, one line.
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
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise lost_weights(parent.record, folder, f"cannot be read ({reason or error})") from error
    return parent


def load_weights(model: nn.Module, parent: Parent) -> None:
    """Load the parent's weights into a network. Raises ParentError if they do not fit."""
    try:
        model.load_state_dict(parent.weights)
    except RuntimeError as error:
        raise ParentError(
            f"{parent.record.folder}: its weights do not fit the network that starts from them "
            f"({' '.join(str(error).split())[:200]})"
        ) from error


class Hooks:
    """Called by the loop in every process; each does nothing unless a task overrides it.

    What they change must be a function of the weights, the step and `state`, so that a resumed run
    ends with the same bits as one that was not stopped.
    """

    def begin(self, model: nn.Module) -> None:
        """Called once at each start, on the placed network, before its state is restored."""

    def built(self) -> ModelRef | None:
        """The network that `build` made, in plain values, if the run does not define it: the
        parent or the training decided it. Stored in the result."""
        return None

    def schedule(self, recipe: Recipe) -> Recipe:
        """The recipe to train by, called at each start after `build`: the run's own, unless its
        length depends on a network that the parent decided, or its batch on the data."""
        return recipe

    def warnings(self) -> Sequence[str]:
        """What a user should know of the run's data before training."""
        return ()

    @property
    def num_classes(self) -> int | None:
        """The builder's ``num_classes``, saved so that it can be built without the data."""
        return None

    def before_step(self, model: nn.Module, step: int) -> None:
        """May change the gradients of optimizer step ``step``, accumulated and reduced by now."""

    def after_step(self, model: nn.Module, step: int, skipped: Tensor) -> None:
        """May change the weights after an optimizer step, such as to keep masked ones at zero.

        ``skipped`` is a bool on the device: the step was not finite and changed no weights.
        """

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """May change the weights after an epoch (from 0), before it is evaluated."""

    def state(self) -> dict[str, torch.Tensor]:
        """What the hooks need to resume, saved with each checkpoint."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Resume from what `state` returned."""


@dataclass(frozen=True)
class Evaluation:
    """A network's measurements on the validation part.

    Args:
        metrics: by name.
        primary: the name of the primary one.
        images: the number of validation images measured.
        corrupt_images: the number left out, because they could not be read.
    """

    metrics: Mapping[str, Metric]
    primary: str
    images: int
    corrupt_images: int = 0

    @property
    def value(self) -> float:
        """The primary metric's value, in its unit."""
        return self.metrics[self.primary].value


class Task(Hooks, ABC):
    """One kind of study. The engine seeds the generators before each call that draws.

    A batch is whatever the task yields and takes back; the engine only passes it on.
    """

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch, the same in every process."""

    @property
    @abstractmethod
    def accum_steps(self) -> int:
        """How many batches of this process make one optimizer step."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input, for counting."""

    @property
    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """JSON values that distinguish this data from other or changed data: names and sizes."""

    @abstractmethod
    def check_data(self, recorded: dict[str, Any], where: str) -> None:
        """Raises UserError, one line that begins with ``where``, for data other than recorded."""

    @abstractmethod
    def build(self, parent: Parent | None = None) -> nn.Module:
        """A fresh network, with random weights from torch's global generator.

        ``parent`` is the run that this one starts from, if any; the task decides what to use of
        it.
        """

    @abstractmethod
    def train_batches(self, epoch: int, start: int) -> Iterator[Any]:
        """This process's batches of an epoch (from 0), from its optimizer step ``start`` on."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The mean loss over the batch, to be differentiated, and the number of its images."""

    @abstractmethod
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluate the network, which is in evaluation mode, on every validation image once,
        except corrupt ones that are skipped.

        ``check`` is called after each batch, equally often in every process; if a stop was
        requested it raises in all of them. Every process returns the same."""

    @property
    def corrupt_images(self) -> int:
        """How often this process met an unreadable image."""
        return 0

    @property
    def corrupt_names(self) -> frozenset[str]:
        """The names of those images."""
        return frozenset()

    def without_training_parts(self, model: nn.Module) -> nn.Module:
        """The trained network, in evaluation mode, without parts that only training uses."""
        return model

    def evaluates_after(self, epoch: int) -> bool:
        """Whether the network is evaluated after this epoch (from 0). After the last it always is.

        A task may return False for a test part that should be used only once.
        """
        return True

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """The cost per image: ``network`` for all of it; others by name, such as exits."""
        network = cost.count(model, self.image_shape)
        return {
            NETWORK: Cost(macs=network.macs, params=network.params, activations=network.activations)
        }
