"""What the loop needs of a task: a network, batches, a loss, an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study import cost
from convnext_study.runs.metrics import NETWORK, Cost, Metric
from convnext_study.training.hooks import Hooks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convnext_study.training.parent import Parent


@dataclass(frozen=True)
class Evaluation:
    """A network measured on the validation part.

    Args:
        metrics: by name.
        primary: the name of the one that the run is judged by.
        images: of the validation part that were measured.
        corrupt_images: that could not be read and were left out.
    """

    metrics: Mapping[str, Metric]
    primary: str
    images: int
    corrupt_images: int = 0

    @property
    def value(self) -> float:
        """The primary metric's, in its unit."""
        return self.metrics[self.primary].value


class Task(Hooks, ABC):
    """One kind of study. The engine seeds the generators before each call that draws.

    A batch is whatever the task yields and takes back; the engine only moves and counts it.
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
        """Plain JSON values that tell this data from other or changed data, names and sizes."""

    @abstractmethod
    def check_data(self, recorded: dict[str, Any], where: str) -> None:
        """Raises UserError, one line that begins with ``where``, for other data than recorded."""

    @abstractmethod
    def build(self, parent: Parent | None = None) -> nn.Module:
        """A fresh network, with random weights from torch's global generator.

        Where the run starts from another, ``parent`` is that one: what is taken of it is the
        task's to say.
        """

    @abstractmethod
    def train_batches(self, epoch: int, start: int) -> Iterator[Any]:
        """This process's batches of an epoch (from 0), from its optimizer step ``start`` on."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        """The mean loss over the batch, to be differentiated, and the images it holds."""

    @abstractmethod
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Evaluate the network, which is in evaluation mode, on every validation image once,
        but for bad ones that are skipped.

        ``check`` is called after each batch, equally often in every process; where a stop was
        requested it raises in all of them. Every process returns the whole."""

    @property
    def corrupt_images(self) -> int:
        """How often an image that cannot be read was met, in this process."""
        return 0

    @property
    def corrupt_names(self) -> frozenset[str]:
        """Which images those were."""
        return frozenset()

    def evaluates_after(self, epoch: int) -> bool:
        """Whether the network is evaluated after this epoch (from 0). After the last it always is.

        A task may spare a test part that should be looked at once.
        """
        return True

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """What one image costs, ``network`` for the whole; others by name, such as exits."""
        counted = cost.count(model, self.image_shape)
        return {
            NETWORK: Cost(macs=counted.macs, params=counted.params, activations=counted.activations)
        }
