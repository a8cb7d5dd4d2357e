"""Image classification: the task of the road map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.data import open_data
from convnext_study.data.dataset import check_readable
from convnext_study.data.device import Prepare, prefetcher
from convnext_study.data.fingerprint import check_same, fingerprint
from convnext_study.data.loader import (
    Batch,
    Readers,
    check_split,
    image_size,
    make_readers,
    steps_per_epoch,
    train_batches,
    val_batches,
)
from convnext_study.data.sharding import BatchSharding, accum_steps, most_batches
from convnext_study.imports import TaskError
from convnext_study.models.builders import describe_builder, get_builder
from convnext_study.recipes import Recipe, make_recipe
from convnext_study.runs.metrics import Metric, Samples
from convnext_study.runs.records import ModelRef, Run
from convnext_study.training.distributed import all_gather
from convnext_study.training.guard import check_scores, finite_rows
from convnext_study.training.mixing import Mixing
from convnext_study.training.runtime import Runtime
from convnext_study.training.stochastic_depth import Masks, share_masks
from convnext_study.training.task import Evaluation, Parent, Task, load_weights
from convnext_study.training.tasks.on_data import warnings_of

EVAL_BATCH = 256
PRIMARY = "top1"


def check_logits(logits: object, wanted: tuple[int, int], model: ModelRef) -> None:
    """Raises TaskError, one line with the builder's name, for what are no (n, classes) logits."""
    if isinstance(logits, Tensor) and logits.shape == wanted and logits.is_floating_point():
        return
    gives = f"an object of type {type(logits).__name__}"
    if isinstance(logits, Tensor):
        gives = f"{tuple(logits.shape)} of {logits.dtype}"
    words = describe_builder(model.builder, model.args)
    raise TaskError(f"{words}: its network gives {gives} for logits; give {wanted}, floating point")


class Classification(Task):
    """Cross entropy with label smoothing, Mixup and CutMix as the recipe says; top-1 accuracy."""

    def __init__(self, run: Run, runtime: Runtime) -> None:
        self.run = run
        self.runtime = runtime
        self.data = open_data(
            run.data, download=runtime.download, corrupt_images=runtime.corrupt_images
        )
        recipe = make_recipe(run.recipe)
        check_split(self.data, recipe, self._sharding)
        self.recipe = recipe.for_images(len(self.data.train))
        classes, mixes = self.data.num_classes, self.recipe.mixes
        self._mixing = Mixing(self.recipe, classes, run.seed) if mixes else None
        self._masks: Masks | None = None
        self._prepare = Prepare(self.data, runtime.device, runtime.memory_format)
        self._ahead = prefetcher(runtime.device)
        self._readers: Readers | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch, the same in every process."""
        return steps_per_epoch(len(self.data.train), self.recipe.global_batch_size)

    @property
    def accum_steps(self) -> int:
        """How many batches of this process make one optimizer step."""
        return accum_steps(self.recipe.global_batch_size, self._sharding, even=self.recipe.mixes)

    @property
    def corrupt_images(self) -> int:
        """How often an image that cannot be read was met, in this process."""
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
        return warnings_of(self.data, self.run.recipe)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input."""
        size = image_size(self.data, self.recipe)
        return (3, size, size)

    @property
    def num_classes(self) -> int:
        """Of the data."""
        return self.data.num_classes

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The run's network, with random weights from torch's global generator, or the parent's."""
        net = self.fresh(self.run.model)
        if parent is not None:
            load_weights(net, parent)
        return net

    def fresh(self, model: ModelRef) -> nn.Module:
        """A network as the recipe starts it, for this data's classes; the last one is trained."""
        net: nn.Module = get_builder(model.builder)(
            model.args,
            num_classes=self.data.num_classes,
            drop_path=self.recipe.drop_path,
            init=self.recipe.init,
        )
        self._masks = share_masks(net, self.run.seed, self.recipe.global_batch_size)
        return net

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """This process's batches of an epoch (from 0), from optimizer step ``start`` on."""
        return train_batches(
            self.data,
            self.recipe,
            self.run.seed,
            epoch,
            start,
            self._reading,
            self._sharding,
            self._ahead,
        )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy over the batch, after Mixup and CutMix, and its number of images."""
        images, labels = self._prepare(batch)
        if self._masks is not None:
            self._masks.fill(batch.step, batch.places, images.device)
        if self._mixing is not None:
            # The mixed targets hold the label smoothing already.
            images, soft = self._mixing(images, labels, batch.places, batch.step)
            return F.cross_entropy(self._logits(model, images), soft), len(labels)
        smoothing = self.recipe.label_smoothing
        logits = self._logits(model, images)
        return F.cross_entropy(logits, labels, label_smoothing=smoothing), len(labels)

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """(n, classes). Raises TaskError for other outputs."""
        logits, wanted = model(images), (len(images), self.data.num_classes)
        check_logits(logits, wanted, self.run.model)
        return cast(Tensor, logits)

    def evaluates_after(self, epoch: int) -> bool:
        """Not where the data are to be looked at once."""
        return not self.data.val_once

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Top-1 accuracy and cross entropy over the whole validation part, in every process."""
        losses: list[Tensor] = []  # of a batch each, summed in float32: not every device has more
        correct: list[Tensor] = []
        finite: list[Tensor] = []
        places: list[int] = []
        bad = self.corrupt_images
        batches = val_batches(
            self.data, self.recipe, EVAL_BATCH, self._reading, self._sharding, self._ahead
        )
        for batch in batches:
            images, labels = self._prepare(batch)
            logits = self._logits(model, images).float()
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            correct.append(logits.argmax(1) == labels)
            finite.append(finite_rows(logits))
            places += batch.places.tolist()
            check()
        # Parts differ by an image, which can be a batch; a part can even be empty.
        count = len(self.data.val)
        for _ in range(len(losses), most_batches(count, EVAL_BATCH, self._sharding)):
            check()
        check_scores(finite, model)
        return self._joined(losses, correct, places, self.corrupt_images - bad)

    def _joined(
        self, losses: list[Tensor], correct: list[Tensor], places: list[int], bad: int
    ) -> Evaluation:
        """The evaluation of all parts from that of this process's, batch by batch."""
        loss = sum(torch.stack(losses).tolist()) if losses else 0.0
        mine = torch.cat(correct).cpu() if correct else torch.zeros(0, dtype=torch.bool)
        parts = all_gather((places, mine, loss, bad))
        # In the order of the ranks, which is that of the data set.
        right = torch.cat([bits for _, bits, _, _ in parts])
        check_readable(self.data, len(right))
        groups = self.data.val_groups
        if groups is not None:
            groups = groups[[place for part, *_ in parts for place in part]]
        val_loss = sum(part_loss for _, _, part_loss, _ in parts) / len(right)
        return Evaluation(
            metrics={
                PRIMARY: Metric(
                    value=100 * float(right.double().mean()),
                    label="top-1",
                    samples=Samples.of_bits(right.numpy(), groups),
                ),
                "val_loss": Metric(
                    value=val_loss, label="validation loss", unit="", higher_is_better=False
                ),
            },
            primary=PRIMARY,
            images=len(right),
            corrupt_images=sum(one[-1] for one in parts),
        )

    @property
    def _sharding(self) -> BatchSharding:
        return BatchSharding(
            self.runtime.rank, self.runtime.world_size, self.runtime.micro_batch_size
        )

    def _reading(self) -> Readers:
        """The processes that read, kept from one epoch to the next."""
        if self._readers is None:
            mine = self.recipe.global_batch_size // self.runtime.world_size // self.accum_steps
            self._readers = make_readers(
                self.data,
                self.recipe,
                self.run.seed,
                self.runtime.workers,
                max(mine, EVAL_BATCH),
                pin=self._prepare.device.type == "cuda",
            )
        return self._readers
