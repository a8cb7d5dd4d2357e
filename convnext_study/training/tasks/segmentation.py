"""A class for every pixel, by a network with one output or with several exits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.cost import Cost as Counted
from convnext_study.data.batch import Batch
from convnext_study.data.dense import open_dense
from convnext_study.data.dense.dataset import IGNORE
from convnext_study.data.dense.loader import (
    make_readers,
    train_batches,
    val_batch,
    val_batches,
)
from convnext_study.data.dense.transforms import Crop, TrainTransform
from convnext_study.data.device import Prepare, prefetcher
from convnext_study.data.pool import Readers
from convnext_study.data.sharding import most_batches, val_indices
from convnext_study.imports import TaskError
from convnext_study.models.builders import get_builder
from convnext_study.runs.metrics import NETWORK, Cost
from convnext_study.runs.records import Run
from convnext_study.training.distributed import all_gather
from convnext_study.training.parent import Parent, load_weights
from convnext_study.training.runtime import Runtime
from convnext_study.training.stochastic_depth import Masks, share_masks
from convnext_study.training.task import Evaluation
from convnext_study.training.tasks.dense_args import segmentation_args
from convnext_study.training.tasks.on_data import OnData
from convnext_study.training.tasks.overlap import Overlap, miou_metrics


class Segmentation(OnData):
    """Cross entropy summed over a network's exits; mean intersection over union (mIoU) of each.

    A network gives logits (n, classes, h, w) of any size, which are interpolated to the labels',
    or a sequence of them, from the first exit to the last. What an exit costs it may tell by
    ``exit_costs(image_shape)``: a `cost.Cost` for each, with all that is computed before it.

    Raises TaskError where the run's arguments do not fit.
    """

    def __init__(self, run: Run, runtime: Runtime) -> None:
        self.args = segmentation_args(run.task.args)
        self.data = open_dense(run.data, corrupt_images=runtime.corrupt_images)
        super().__init__(run, runtime, self.data)
        self._check_split()
        self._weights = self._class_weights()
        self._masks: Masks | None = None
        self._prepare = Prepare(self.data, runtime.device, runtime.memory_format)
        self._ahead = prefetcher(runtime.device)
        self._readers: Readers | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one validation image, with its margin."""
        divisor = self.args.divisor
        height, width = (-(-side // divisor) * divisor for side in self.data.size)
        return (3, height, width)

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The run's network, with random weights from torch's global generator, or the parent's."""
        builder = get_builder(self.run.model.builder)
        net: nn.Module = builder(
            self.run.model.args,
            num_classes=self.data.num_classes,
            drop_path=self.recipe.drop_path,
            init=self.recipe.init,
        )
        if parent is not None:
            load_weights(net, parent)
        self._masks = share_masks(net, self.run.seed, self.recipe.global_batch_size)
        return net

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """This process's batches of an epoch (from 0), from optimizer step ``start`` on."""
        order, readers = self._order(epoch), self._reading()
        return train_batches(self.data, order, readers, start, self._sharding, self._ahead)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """The mean over images of the exits' summed losses, and the number of images."""
        images, labels = self._prepare(batch)
        if self._masks is not None:
            self._masks.fill(batch.step, batch.places, images.device)
        return self.image_losses(self.exits(model, images), labels).mean(), len(labels)

    def exits(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """The logits of every exit, (n, classes, h, w) each. Raises TaskError for other outputs."""
        output = model(images)
        exits = [output] if isinstance(output, Tensor) else list(output)
        given = self.args.exit_weights
        if given is not None and len(given) != len(exits):
            raise TaskError(f"exit_weights: {len(given)} numbers, and {len(exits)} exits")
        for logits in exits:
            if logits.ndim != 4 or logits.shape[1] != self.data.num_classes:
                raise TaskError(
                    f"builder {self.run.model.builder!r}: gives {tuple(logits.shape)}, and "
                    f"segmentation needs (n, {self.data.num_classes}, h, w)"
                )
        return exits

    def image_losses(self, exits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The loss of each image, (n,): over its exits the weighted sum of cross entropies, which
        are means over the pixels that have a class, by the weights of their classes.

        A mean over a whole batch's pixels, as is common, would depend on how the batch is split.
        """
        wanted = labels.long()
        weights = self._weights.to(labels.device)
        # A table of 256, so that what is ignored finds its weight of 0 there.
        total = weights[wanted].sum((1, 2)).clamp_min(1e-6)
        losses = torch.zeros(len(labels), device=labels.device)
        for weight, logits in zip(self._exit_weights(len(exits)), exits, strict=True):
            each = F.cross_entropy(
                enlarged(logits, labels),
                wanted,
                weights[: self.data.num_classes],
                ignore_index=IGNORE,
                label_smoothing=self.recipe.label_smoothing,
                reduction="none",
            )
            losses = losses + weight * each.sum((1, 2)) / total
        return losses

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """mIoU of every exit on whole images, and the loss, in every process."""
        bad, overlap = self.corrupt_images, Overlap(self.data.num_classes)
        losses: list[Tensor] = []
        most = self.args.eval_batch
        batches = val_batches(self.data, most, self._reading(), self._sharding, self._ahead)
        for batch in batches:
            images, labels = self._prepare(batch)
            exits = self.exits(model, images)
            overlap.add([enlarged(logits, labels).argmax(1) for logits in exits], labels)
            losses.append(self.image_losses(exits, labels).cpu())
            check()
        # Parts differ by an image, which can be a batch; a part can even be empty.
        count = len(self.data.val)
        for _ in range(
            len(losses), most_batches(count, val_batch(self.data, most), self._sharding)
        ):
            check()
        mine = list(val_indices(count, self._sharding))
        found = (mine, overlap.counts, torch.cat(losses) if losses else None)
        parts = [one for one in all_gather((*found, self.corrupt_images - bad)) if one[0]]
        return Evaluation(
            **miou_metrics(
                torch.cat([counts for _, counts, _, _ in parts]),
                torch.cat([one for _, _, one, _ in parts]),
            ),
            images=count,
            corrupt_images=sum(one[-1] for one in parts),
        )

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """Of the network, and up to each exit, ``exit1`` and so on, where the network tells."""
        found = super().costs(model)
        tell: Callable[[tuple[int, int, int]], Sequence[Counted]] | None
        tell = getattr(model, "exit_costs", None)
        for number, one in enumerate(tell(self.image_shape) if tell else (), 1):
            found[f"exit{number}"] = Cost(
                macs=one.macs, params=one.params, activations=one.activations
            )
        return {NETWORK: found.pop(NETWORK), **found}

    def _class_weights(self) -> Tensor:
        """(256,): of each class, and 0 of what is none."""
        given, classes = self.args.class_weights, self.data.num_classes
        if given is not None and len(given) != classes:
            raise TaskError(
                f"class_weights: {len(given)} numbers, and {self.data.uri} has {classes} classes"
            )
        weights = torch.zeros(IGNORE + 1)
        weights[:classes] = torch.tensor(given) if given else 1.0
        return weights

    def _exit_weights(self, exits: int) -> Sequence[float]:
        return self.args.exit_weights or [1.0] * exits

    def _reading(self) -> Readers:
        """The processes that read, kept from one epoch to the next."""
        if self._readers is None:
            height, width = self.args.crop or self.data.size
            crop = Crop(height, width, self.args.scales, self.recipe.flip)
            self._readers = make_readers(
                self.data,
                TrainTransform(self.data, crop),
                self.run.seed,
                self.runtime.workers,
                max(self._piece, val_batch(self.data, self.args.eval_batch)),
                divisor=self.args.divisor,
                pin=self._prepare.device.type == "cuda",
            )
        return self._readers


def enlarged(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits in float32, interpolated to the size of (n, H, W) labels."""
    logits = logits.float()
    if logits.shape[2:] == labels.shape[1:]:
        return logits
    return F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
