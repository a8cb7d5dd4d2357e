"""What every task on a data set does alike: it reads, trains on images, and evaluates once each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, ValidationError
from torch import Tensor, nn

from convnext_study.data import check_same, fingerprint
from convnext_study.data.dataset import DatasetPair, check_readable
from convnext_study.data.device import Prepare, prefetcher
from convnext_study.data.loader import (
    Batch,
    make_readers,
    steps_per_epoch,
    train_batches,
    val_batches,
)
from convnext_study.data.pool import Readers
from convnext_study.data.rng import fold_in, seed_everything
from convnext_study.data.sharding import BatchSharding, accum_steps, most_batches
from convnext_study.data.workers import Transform
from convnext_study.errors import UserError, first_fault, first_line
from convnext_study.imports import TaskError
from convnext_study.models.builders import get_builder
from convnext_study.recipes import Recipe, images_at_a_time, make_recipe
from convnext_study.runs.metrics import Metric
from convnext_study.runs.records import ModelRef, Run, TaskRef
from convnext_study.training.distributed import all_gather
from convnext_study.training.guard import check_scores, finite_rows
from convnext_study.training.regularization import Masks, share_masks
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Evaluation, Parent, Task, load_weights

Evidence = Mapping[str, Tensor]
LOSS = "val_loss"
PLACES = "places"  # evidence: where each image stands in the validation part, (n,) int64


class ImageTask(Task):
    """A task on a data set with two parts, which takes images one optimizer's batch at a time.

    Args:
        run: what is trained.
        runtime: on what.
        data: what it is trained on.
        eval_batch: validation images that are taken at a time.
    """

    def __init__(self, run: Run, runtime: Runtime, data: DatasetPair, *, eval_batch: int) -> None:
        self.run, self.runtime = run, runtime
        self.recipe = make_recipe(run.recipe).for_images(len(data.train))
        self.data, self._eval_batch = data, eval_batch
        most = images_at_a_time(self.recipe, runtime.micro_batch_size)
        self._sharding = BatchSharding(runtime.rank, runtime.world_size, most)
        self._masks: Masks | None = None
        self._prepare = Prepare(data, runtime.device, runtime.memory_format)
        self._ahead = prefetcher(runtime.device)
        self._readers: Readers | None = None

    @abstractmethod
    def scores(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """What each exit of the network answers, (n, outputs, ...). Raises TaskError for other
        outputs."""

    @abstractmethod
    def image_losses(self, exits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The loss of each image, (n,), summed over the exits."""

    @abstractmethod
    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """What the metrics are computed from: of each name (n, ...) numbers for each image."""

    @abstractmethod
    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Metrics by name, and which is primary, from the evidence of all validation images."""

    @abstractmethod
    def transforms(self) -> tuple[Transform, Transform]:
        """What happens to training images, with draws, and to validation images, without."""

    def early_transform(self) -> tuple[int, Transform] | None:
        """For how many first epochs what else happens to training images; None: for none."""
        return None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch, the same in every process."""
        return steps_per_epoch(len(self.data.train), self.recipe.global_batch_size)

    @property
    def accum_steps(self) -> int:
        """How many batches of this process make one optimizer step."""
        return accum_steps(self.recipe.global_batch_size, self._sharding, even=self.recipe.mixes)

    @property
    def num_classes(self) -> int:
        """Classes or channels of the network's output."""
        return self.data.num_classes

    @property
    def corrupt_images(self) -> int:
        """How often an image that cannot be used was met, in this process."""
        return self.data.corrupt.replaced

    @property
    def corrupt_names(self) -> frozenset[str]:
        """Which images those were."""
        return frozenset(self.data.corrupt.names)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON values that identify the data: names, sizes, digests."""
        return fingerprint(self.data)

    def check_data(self, recorded: dict[str, Any], where: str) -> None:
        """Raise UserError, one line that begins with ``where``, for other data than recorded."""
        check_same(recorded, self.fingerprint, where)

    def schedule(self, recipe: Recipe) -> Recipe:
        """The recipe with a batch that the data can fill."""
        return recipe.for_images(len(self.data.train))

    def warnings(self) -> Sequence[str]:
        """What is left unread, and a batch that the data cannot fill."""
        data, batch = self.data, self.run.recipe["global_batch_size"]
        if (count := len(data.train)) >= batch:
            return data.notes
        return [
            *data.notes,
            f"{data.uri}: has {count} training images, and the batch is {batch}: each step takes "
            f"all {count}, at the learning rate for a batch of {count}",
        ]

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The run's network, with random weights from torch's global generator, or the parent's."""
        net = self.fresh(self.run.model)
        if parent is not None:
            load_weights(net, parent)
        return net

    def fresh(self, model: ModelRef) -> nn.Module:
        """A network as the recipe starts it, for this data; the last one is trained."""
        net: nn.Module = get_builder(model.builder)(
            model.args,
            num_classes=self.num_classes,
            drop_path=self.recipe.drop_path,
            init=self.recipe.init,
        )
        self._masks = share_masks(net, self.run.seed, self.recipe.global_batch_size)
        return net

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """This process's batches of an epoch (from 0), from optimizer step ``start`` on."""
        about = (self.data, self.recipe, self.run.seed, epoch, start)
        return train_batches(*about, self._reading, self._sharding, self._ahead)

    def val_batches(self) -> Iterator[Batch]:
        """This process's validation images, each once and in order."""
        about = (self.data, self.recipe, self._eval_batch)
        return val_batches(*about, self._reading, self._sharding, self._ahead)

    def prepared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images and labels of a training batch on the device, stochastic depth drawn for them."""
        images, labels = self._prepare(batch)
        if self._masks is not None:
            self._masks.fill(batch.step, batch.places, images.device)
        return images, labels

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """The mean of the images' losses, and the number of images."""
        images, labels = self.prepared(batch)
        return self.image_losses(self.scores(model, images), labels).mean(), len(labels)

    def observed(self, model: nn.Module, images: Tensor) -> tuple[Sequence[Tensor], Evidence]:
        """In evaluation: what every exit answers, and what else a study's metrics are of."""
        return self.scores(model, images), {}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """The metrics and the loss over the whole validation part, in every process."""
        bad = self.corrupt_images
        found: list[Evidence] = []
        finite: list[Tensor] = []
        for batch in self.val_batches():
            images, labels = self._prepare(batch)
            # For masks that are drawn by chance: the same after a resume.
            place = int(batch.places[0])
            seed_everything(fold_in(self.run.seed, "evaluate", place), self.runtime.device)
            exits, seen = self.observed(model, images)
            finite.append(torch.stack([finite_rows(one) for one in exits]).all(0))
            if not finite[-1].all():  # there will be no result, and counting goes by numbers
                exits = [one.nan_to_num() for one in exits]
            every = {LOSS: self.image_losses(exits, labels), PLACES: batch.places}
            measured = {**every, **seen, **self.measure(exits, labels)}
            found.append({name: one.cpu() for name, one in measured.items()})
            check()
        # Parts differ by an image, which can be a batch; a part can even be empty.
        count = len(self.data.val)
        for _ in range(len(found), most_batches(count, self._eval_batch, self._sharding)):
            check()
        check_scores(finite, model)
        return self._joined(found, self.corrupt_images - bad)

    def evaluates_after(self, epoch: int) -> bool:
        """Not where the data are to be looked at once."""
        return not self.data.val_once

    def groups_of(self, evidence: Evidence) -> Tensor | None:
        """Which of the measured images belong together; None where they are independent."""
        groups = self.data.val_groups
        return None if groups is None else groups[evidence[PLACES]]

    def _joined(self, found: list[Evidence], bad: int) -> Evaluation:
        """The evaluation of all parts from this process's, batch by batch."""
        parts = all_gather((_concatenated(found), bad))
        held = [part for part, _ in parts if part]
        check_readable(self.data, len(held))
        evidence = _concatenated(held)  # by rank, which is in the order of the data set
        metrics, primary = self.metrics(evidence)
        loss = Metric(
            value=float(evidence[LOSS].numpy().mean(dtype="float64")),
            label="validation loss",
            unit="",
            higher_is_better=False,
        )
        return Evaluation(
            metrics={**metrics, LOSS: loss},
            primary=primary,
            images=len(evidence[LOSS]),
            corrupt_images=sum(one for _, one in parts),
        )

    def _reading(self) -> Readers:
        """The processes that read, kept from one epoch to the next."""
        if self._readers is None:
            piece = self.recipe.global_batch_size // self.runtime.world_size // self.accum_steps
            self._readers = make_readers(
                self.data,
                *self.transforms(),
                self.run.seed,
                self.runtime.workers,
                max(piece, self._eval_batch),
                early=self.early_transform(),
                pin=self._prepare.device.type == "cuda",
            )
        return self._readers


def answer_of(net: nn.Module, images: Tensor, name: str) -> Any:
    """What a network answers. Raises TaskError, one line, for images that it cannot take."""
    try:
        return net(images)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a network may be anybody's
        size = "x".join(map(str, images.shape[-2:]))
        raise TaskError(
            f"{name}: its network takes no images of {size} ({first_line(error):.200}); give "
            "others with --image-size, or mend the network"
        ) from error


def _concatenated(parts: Sequence[Evidence]) -> Evidence:
    names = parts[0] if parts else ()
    return {name: torch.cat([part[name] for part in parts]) for name in names}


Args = TypeVar("Args", bound=BaseModel)


def _weights(given: tuple[float, ...]) -> tuple[float, ...]:
    if not given or min(given) < 0 or max(given) == 0:
        raise ValueError("no number may be below 0, and one has to be above it")
    return given


# Of terms in a sum that is minimised: a loss of nothing trains nothing.
Weights = Annotated[tuple[float, ...], AfterValidator(_weights)]


def parse(kind: type[Args], task: TaskRef) -> Args:
    """A task's arguments, checked. Raises TaskError, one line that names the one at fault."""
    try:
        return kind.model_validate(task.args)
    except ValidationError as error:
        raise TaskError(f"task {task.name}: {first_fault(error, kind.model_fields)}") from None
