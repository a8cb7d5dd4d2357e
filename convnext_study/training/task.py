"""What the loop needs of a task: a network, batches, a loss, an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Evaluation:
    """A network's accuracy on the validation set.

    ``correct`` holds one bool per image, in order; ``top1`` is in percent; ``corrupt_images`` is
    how many could not be read and were replaced by another image.
    """

    top1: float
    val_loss: float
    correct: Tensor
    corrupt_images: int = 0


class Task(Protocol):
    """One kind of study. The engine seeds the generators before each call that draws.

    A batch is whatever the task yields and takes back; the engine only moves and counts it.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch, the same in every process."""
        ...

    @property
    def accum_steps(self) -> int:
        """How many batches of this process make one optimizer step."""
        ...

    @property
    def corrupt_images(self) -> int:
        """How often an image that cannot be read was replaced, in this process."""
        ...

    @property
    def corrupt_names(self) -> frozenset[str]:
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
        """Raises UserError, one line that begins with ``where``, for other data than recorded."""
        ...

    def evaluate(self, model: nn.Module, check: Callable[[], None]) -> Evaluation:
        """Evaluate the network, which is in evaluation mode, on every validation image once.

        ``check`` is called after each batch, equally often in every process; where a stop was
        requested it raises in all of them. Every process returns the whole."""
        ...
