"""What all tasks on image data share: reading, training steps, and one pass of evaluation."""

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
from convnext_study.data.device import ToDevice, prefetcher
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
PLACES = "places"  # evidence: each image's index in the validation part, (n,) int64


class ImageTask(Task):
    """A task on a data set with a training and a validation part.

    Args:
        run: what is trained.
        runtime: the machine's resources.
        data: the two parts.
        eval_batch: validation images per batch.
    """

    def __init__(self, run: Run, runtime: Runtime, data: DatasetPair, *, eval_batch: int) -> None:
        self.run, self.runtime = run, runtime
        self.recipe = make_recipe(run.recipe).for_images(len(data.train))
        self.data, self._eval_batch = data, eval_batch
        micro_batch = images_at_a_time(self.recipe, runtime.micro_batch_size)
        self._sharding = BatchSharding(runtime.rank, runtime.world_size, micro_batch)
        self._masks: Masks | None = None
        self._prepare = ToDevice(data, runtime.device, runtime.memory_format)
        self._ahead = prefetcher(runtime.device)
        self._readers: Readers | None = None

    @abstractmethod
    def scores(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """The output of each exit, (n, outputs, ...). Raises TaskError for outputs that do not fit
        the task."""

    @abstractmethod
    def image_losses(self, exits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Each image's loss, (n,), summed over the exits."""

    @abstractmethod
    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """What the metrics are computed from: arrays by name, (n, ...), one entry per image."""

    @abstractmethod
    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Metrics by name, and the primary one's name, from all validation images' evidence."""

    @abstractmethod
    def transforms(self) -> tuple[Transform, Transform]:
        """The transforms of training images, which are random, and of validation images."""

    def early_transform(self) -> tuple[int, Transform] | None:
        """A number of first epochs, and the transform of training images in them, if it differs."""
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
        """How often this process met an unusable image."""
        return self.data.corrupt.replaced

    @property
    def corrupt_names(self) -> frozenset[str]:
        """The names of those images."""
        return frozenset(self.data.corrupt.names)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """JSON values that identify the data: names, sizes, digests."""
        return fingerprint(self.data)

    def check_data(self, recorded: dict[str, Any], where: str) -> None:
        """Raises UserError, one line that begins with ``where``, for data other than recorded."""
        check_same(recorded, self.fingerprint, where)

    def schedule(self, recipe: Recipe) -> Recipe:
        """The recipe, with a batch no larger than the data."""
        return recipe.for_images(len(self.data.train))

    def warnings(self) -> Sequence[str]:
        """The data set's notes, and a batch larger than the data."""
        data, batch = self.data, self.run.recipe["global_batch_size"]
        if (count := len(data.train)) >= batch:
            return data.notes
        return [
            *data.notes,
            f"{data.uri}: has {count} training images, fewer than the batch of {batch}: each step "
            f"takes all {count}, at the learning rate for a batch of {count}",
        ]

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The run's network, with random weights from torch's global generator, or the parent's
        weights."""
        net = self.fresh(self.run.model)
        if parent is not None:
            load_weights(net, parent)
        return net

    def fresh(self, model: ModelRef) -> nn.Module:
        """A network with the recipe's initial weights, for this data; the last one is trained."""
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
        args = (self.data, self.recipe, self.run.seed, epoch, start)
        return train_batches(*args, self._reading, self._sharding, self._ahead)

    def val_batches(self) -> Iterator[Batch]:
        """This process's share of the validation images, each once and in order."""
        args = (self.data, self.recipe, self._eval_batch)
        return val_batches(*args, self._reading, self._sharding, self._ahead)

    def prepared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A training batch's images and labels on the device; draws their stochastic depth."""
        images, labels = self._prepare(batch)
        if self._masks is not None:
            self._masks.fill(batch.step, batch.positions, images.device)
        return images, labels

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """The mean of the images' losses, and the number of images."""
        images, labels = self.prepared(batch)
        return self.image_losses(self.scores(model, images), labels).mean(), len(labels)

    def observed(self, model: nn.Module, images: Tensor) -> tuple[Sequence[Tensor], Evidence]:
        """In evaluation: the output of each exit, and further evidence for a study's metrics."""
        return self.scores(model, images), {}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Metrics and loss over the whole validation part, the same in every process."""
        corrupt_before = self.corrupt_images
        parts: list[Evidence] = []
        finite: list[Tensor] = []
        for batch in self.val_batches():
            images, labels = self._prepare(batch)
            # Networks with random masks draw the same ones after a resume.
            position = int(batch.positions[0])
            seed_everything(fold_in(self.run.seed, "evaluate", position), self.runtime.device)
            exits, observed = self.observed(model, images)
            finite.append(torch.stack([finite_rows(scores) for scores in exits]).all(0))
            if not finite[-1].all():  # there will be no result, but metrics need numbers
                exits = [scores.nan_to_num() for scores in exits]
            common = {LOSS: self.image_losses(exits, labels), PLACES: batch.positions}
            measured = {**common, **observed, **self.measure(exits, labels)}
            parts.append({name: values.cpu() for name, values in measured.items()})
            check()
        # Every process must check equally often, and shares may differ by a batch.
        count = len(self.data.val)
        for _ in range(len(parts), most_batches(count, self._eval_batch, self._sharding)):
            check()
        check_scores(finite, model)
        return self._joined(parts, self.corrupt_images - corrupt_before)

    def evaluates_after(self, epoch: int) -> bool:
        """False if the validation part may be looked at only once."""
        return not self.data.val_once

    def groups_of(self, evidence: Evidence) -> Tensor | None:
        """Which of the measured images belong together; None if they are independent."""
        groups = self.data.val_groups
        return None if groups is None else groups[evidence[PLACES]]

    def _joined(self, parts: list[Evidence], corrupt: int) -> Evaluation:
        """Gathers the evidence of all processes' batches and computes the evaluation."""
        by_rank = all_gather((_concatenated(parts), corrupt))
        nonempty = [part for part, _ in by_rank if part]
        check_readable(self.data, len(nonempty))
        evidence = _concatenated(nonempty)  # by rank, which is the data set's order
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
            corrupt_images=sum(count for _, count in by_rank),
        )

    def _reading(self) -> Readers:
        """The reader processes, kept across epochs."""
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


def network_output(net: nn.Module, images: Tensor, name: str) -> Any:
    """The network's output. Raises TaskError, one line, for images that it cannot process."""
    try:
        return net(images)
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # user networks may raise anything
        size = "x".join(map(str, images.shape[-2:]))
        raise TaskError(
            f"{name}: its network does not accept {size} images ({first_line(error):.200}); use "
            "another --image-size, or fix the network"
        ) from error


def _concatenated(parts: Sequence[Evidence]) -> Evidence:
    names = parts[0] if parts else ()
    return {name: torch.cat([part[name] for part in parts]) for name in names}


Args = TypeVar("Args", bound=BaseModel)


def _weights(weights: tuple[float, ...]) -> tuple[float, ...]:
    if not weights or min(weights) < 0 or max(weights) == 0:
        raise ValueError("no number may be below 0, and at least one must be above 0")
    return weights


# Weights of terms in a loss: if all were 0, nothing would be trained.
Weights = Annotated[tuple[float, ...], AfterValidator(_weights)]


def parse(kind: type[Args], task: TaskRef) -> Args:
    """A task's arguments, validated. Raises TaskError, one line that names the wrong one."""
    try:
        return kind.model_validate(task.args)
    except ValidationError as error:
        raise TaskError(f"task {task.name}: {first_fault(error, kind.model_fields)}") from None
