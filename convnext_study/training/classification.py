"""Image classification: the task of the road map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.records import Run
from convnext_study.training.data import open_data
from convnext_study.training.data.batches import (
    Batch,
    Readers,
    check_split,
    image_size,
    make_readers,
    steps_per_epoch,
    train_batches,
    val_batches,
)
from convnext_study.training.data.device import Prepare, prefetcher
from convnext_study.training.data.fingerprint import check_same, fingerprint
from convnext_study.training.data.share import Share, micro_batches, most_batches, part_of
from convnext_study.training.mixing import Mixing
from convnext_study.training.processes import gather
from convnext_study.training.recipe import make_recipe
from convnext_study.training.stochastic_depth import Masks, share_masks
from convnext_study.training.task import Evaluation, Machine, resolve

EVAL_BATCH = 256


class Classification:
    """Cross entropy with label smoothing, Mixup and CutMix as the recipe says; top-1 accuracy."""

    def __init__(self, run: Run, machine: Machine) -> None:
        self.run = run
        self.machine = machine
        self.recipe = make_recipe(run.recipe)
        self.data = open_data(run.data, download=machine.download, bad_images=machine.bad_images)
        check_split(self.data, self.recipe, self._share)
        classes, mixes = self.data.num_classes, self.recipe.mixes
        self._mixing = Mixing(self.recipe, classes, run.seed) if mixes else None
        self._masks: Masks | None = None
        self._prepare = Prepare(self.data, machine.device, machine.memory_format)
        self._ahead = prefetcher(machine.device)
        self._readers: Readers | None = None

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.data.train), self.recipe.global_batch)

    @property
    def micro_batches(self) -> int:
        return micro_batches(self.recipe.global_batch, self._share, even=self.recipe.mixes)

    @property
    def bad_images(self) -> int:
        return self.data.bad.replaced

    @property
    def bad_names(self) -> frozenset[str]:
        return frozenset(self.data.bad.names)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.data)

    def check_data(self, recorded: dict[str, Any], where: str) -> None:
        check_same(recorded, self.fingerprint, where)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        size = image_size(self.data, self.recipe)
        return (3, size, size)

    def build(self) -> nn.Module:
        builder = resolve(self.run.model.builder)
        net: nn.Module = builder(
            self.run.model.args,
            num_classes=self.data.num_classes,
            drop_path=self.recipe.drop_path,
            init=self.recipe.init,
        )
        self._masks = share_masks(net, self.run.seed, self.recipe.global_batch)
        return net

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        return train_batches(
            self.data,
            self.recipe,
            self.run.seed,
            epoch,
            start,
            self._reading,
            self._share,
            self._ahead,
        )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        images, labels = self._prepare(batch)
        if self._masks is not None:
            self._masks.fill(batch.step, batch.places, images.device)
        if self._mixing is not None:
            # The mixed targets hold the label smoothing already.
            images, soft = self._mixing(images, labels, batch.places, batch.step)
            return F.cross_entropy(model(images), soft), len(labels)
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(model(images), labels, label_smoothing=smoothing), len(labels)

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        losses: list[Tensor] = []  # of a batch each, summed in float32: not every device has more
        correct: list[Tensor] = []
        bad = self.bad_images
        batches = val_batches(
            self.data, self.recipe, EVAL_BATCH, self._reading, self._share, self._ahead
        )
        for batch in batches:
            images, labels = self._prepare(batch)
            logits = model(images).float()
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            correct.append(logits.argmax(1) == labels)
            check()
        # Parts differ by an image, which can be a batch; a part can even be empty.
        count = len(self.data.val)
        for _ in range(len(losses), most_batches(count, EVAL_BATCH, self._share)):
            check()
        return self._joined(losses, correct, self.bad_images - bad)

    def _joined(self, losses: list[Tensor], correct: list[Tensor], bad: int) -> Evaluation:
        """The evaluation of all parts from that of this process's, batch by batch."""
        loss = sum(torch.stack(losses).tolist()) if losses else 0.0
        mine = torch.cat(correct).cpu() if correct else torch.zeros(0, dtype=torch.bool)
        right = torch.zeros(len(self.data.val), dtype=torch.bool)
        parts = gather((list(part_of(len(right), self._share)), mine, loss, bad))
        for indices, bits, _, _ in parts:
            right[indices] = bits
        return Evaluation(
            top1=100 * float(right.double().mean()),
            val_loss=sum(part_loss for _, _, part_loss, _ in parts) / len(right),
            correct=right,
            bad_images=sum(one[-1] for one in parts),
        )

    @property
    def _share(self) -> Share:
        return Share(self.machine.rank, self.machine.world, self.machine.micro_batch)

    def _reading(self) -> Readers:
        """The processes that read, kept from one epoch to the next."""
        if self._readers is None:
            mine = self.recipe.global_batch // self.machine.world // self.micro_batches
            self._readers = make_readers(
                self.data,
                self.recipe,
                self.run.seed,
                self.machine.workers,
                max(mine, EVAL_BATCH),
                pin=self._prepare.device.type == "cuda",
            )
        return self._readers
