"""What the loop needs to be told: how to build, what to read, what to minimise, how to judge."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from convnext_study.errors import BadRequest
from convnext_study.records import Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class TaskError(BadRequest):
    """A task or builder that a run names cannot be used."""


@dataclass(frozen=True)
class Evaluation:
    """What a network is worth on the validation set.

    ``correct`` holds one bool an image, in order; ``top1`` is in percent; ``bad_images`` is how
    many could not be read and were judged by another image.
    """

    top1: float
    val_loss: float
    correct: Tensor
    bad_images: int = 0


class Task(Protocol):
    """One kind of study. The engine seeds the generators before each call that draws.

    A batch is whatever the task yields and takes back; the engine only moves and counts it.
    """

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def micro_batches(self) -> int:
        """How many batches of this process make one optimizer step."""
        ...

    @property
    def bad_images(self) -> int:
        """How often an image that cannot be read was replaced, in this process."""
        ...

    @property
    def bad_names(self) -> frozenset[str]:
        """Which images those were."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input, for counting."""
        ...

    def build(self) -> nn.Module:
        """A fresh network, with random weights from torch's global generator."""
        ...

    def train_batches(self, epoch: int, start: int) -> Iterator[Any]:
        """This process's batches of an epoch (from 0), from its optimizer step ``start`` on."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The mean loss over the batch, to be differentiated, and the images it holds."""
        ...

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON values that tell this data from other or changed data, names and sizes."""
        ...

    def check_data(self, recorded: dict[str, Any], where: str) -> None:
        """Raises BadRequest, one line that begins with ``where``, for other data than recorded."""
        ...

    def evaluate(self, model: nn.Module, check: Callable[[], None]) -> Evaluation:
        """Evaluate the network, which is in evaluation mode, on every validation image once.

        ``check`` is called after each batch, equally often in every process; where a stop was
        requested it raises in all of them. Every process returns the whole."""
        ...


@dataclass(frozen=True)
class Machine:
    """What a run may use of the machine. None of it changes a result beyond rounding.

    Args:
        device: where the network is.
        threads: of this process.
        workers: processes that read images for this process.
        download: fetch a data set that is missing.
        channels_last: keep the channels of a pixel together in memory, which convolutions and
            LayerNorm like better: 1.3 to 2 times the training speed on the nano road.
        rank: which process this is, of those that share the run.
        world: how many those are.
        micro_batch: the most images that one process takes at a time; larger shares of the
            global batch are accumulated.
        compile: use ``torch.compile``.
        grad_checkpointing: run blocks again in the backward pass, to save memory.
        bad_images: ``stop`` at an image that cannot be read, or ``skip`` and count it.
        checkpoint_seconds: save within an epoch at least this often.
        deterministic: only algorithms that give the same bits every time, on GPUs too.
        tf32: let GPUs round the factors of float32 products to 10 bits, which is faster.
        cudnn_benchmark: let cuDNN try its algorithms for each shape and take the fastest.
    """

    device: str = "cpu"
    threads: int = 1
    workers: int = 0
    download: bool = False
    channels_last: bool = True
    rank: int = 0
    world: int = 1
    micro_batch: int | None = None
    compile: bool = False
    grad_checkpointing: bool = False
    bad_images: Literal["stop", "skip"] = "stop"
    checkpoint_seconds: float = 600.0
    deterministic: bool = False
    tf32: bool = False
    cudnn_benchmark: bool = False

    def settings(self) -> dict[str, Any]:
        """What a start's event tells of it: all but the process it is."""
        told = dataclasses.asdict(self)
        del told["rank"], told["world"]
        return told

    def apply(self) -> None:
        """Set torch's switches for this whole process; they outlast a run."""
        import torch

        torch.set_num_threads(self.threads)
        if self.deterministic:  # read when the device is first used
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if torch.are_deterministic_algorithms_enabled() != self.deterministic:  # takes 1.6 s
            torch.use_deterministic_algorithms(self.deterministic)
        torch.backends.cudnn.benchmark = self.cudnn_benchmark and not self.deterministic
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32

    @property
    def memory_format(self) -> torch.memory_format:
        import torch

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
