"""What the loop needs to be told: how to build, what to read, what to minimise, how to judge."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convnext_study.errors import BadRequest
from convnext_study.records import Run


class TaskError(BadRequest):
    """A task or builder that a run names cannot be used."""


@dataclass(frozen=True)
class Evaluation:
    """What a network is worth on the validation set.

    ``correct`` holds one bool an image, in order; ``top1`` is in percent.
    """

    top1: float
    val_loss: float
    correct: Tensor


class Task(Protocol):
    """One kind of study. The engine seeds the generators before each call that draws.

    A batch is whatever the task yields and takes back; the engine only moves and counts it.
    """

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input, for counting."""
        ...

    def build(self) -> nn.Module:
        """A fresh network, with random weights from torch's global generator."""
        ...

    def train_batches(self, epoch: int, start: int) -> Iterator[Any]:
        """The batches of an epoch (from 0), from its step ``start`` on."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The mean loss over the batch, to be differentiated, and the images it holds."""
        ...

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Judge the network, which is in evaluation mode, on every validation image once."""
        ...


@dataclass(frozen=True)
class Machine:
    """What a run may use of the machine. None of it changes a result beyond rounding.

    ``channels_last`` keeps the channels of a pixel together in memory, which convolutions and
    LayerNorm like better: 1.3 to 2 times the training speed on the nano road.
    """

    device: str = "cpu"
    threads: int = 1
    workers: int = 0
    download: bool = False
    channels_last: bool = True

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


def make_task(run: Run, machine: Machine) -> Task:
    """The task that a run names: ``classification``, or ``module:Class`` for a study of its own.

    Raises TaskError where there is none.
    """
    if run.task == "classification":
        from convnext_study.training.classification import Classification

        return Classification(run, machine)
    task: Task = resolve(run.task)(run, machine)
    return task


def resolve(reference: str) -> Any:
    """The object that ``module:name`` names. Raises TaskError where there is none."""
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TaskError(f"{reference}: cannot be imported ({error}); use module:name") from error
