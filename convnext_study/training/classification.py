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
    image_size,
    steps_per_epoch,
    train_batches,
    val_batches,
)
from convnext_study.training.data.fingerprint import check_same, fingerprint
from convnext_study.training.data.share import Share, micro_batches, part_of
from convnext_study.training.processes import gather
from convnext_study.training.recipe import make_recipe
from convnext_study.training.task import Evaluation, Machine, resolve

EVAL_BATCH = 256


class Classification:
    """Cross entropy with label smoothing, Mixup and CutMix as the recipe says; top-1 accuracy."""

    def __init__(self, run: Run, machine: Machine) -> None:
        self.run = run
        self.machine = machine
        self.recipe = make_recipe(run.recipe)
        self.data = open_data(run.data, download=machine.download, bad_images=machine.bad_images)
        self._mixup = self._make_mixup()

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.data.train), self.recipe.global_batch)

    @property
    def micro_batches(self) -> int:
        return micro_batches(self.recipe.global_batch, self._share)

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
        return net

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        return train_batches(
            self.data, self.recipe, self.run.seed, epoch, start, self.machine.workers, self._share
        )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        images, labels = self._move(batch)
        if self._mixup is not None:
            # Mixup's targets hold the label smoothing already.
            images, soft = self._mixup(images, labels)
            return F.cross_entropy(model(images), soft), len(labels)
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(model(images), labels, label_smoothing=smoothing), len(labels)

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        total = torch.zeros((), dtype=torch.float64)
        correct: list[Tensor] = []
        workers = self.machine.workers
        bad = self.bad_images
        for batch in val_batches(self.data, self.recipe, EVAL_BATCH, workers, self._share):
            images, labels = self._move(batch)
            logits = model(images).float()
            total += F.cross_entropy(logits, labels, reduction="sum").double().cpu()
            correct.append((logits.argmax(1) == labels).cpu())
        right = torch.zeros(len(self.data.val), dtype=torch.bool)
        loss = 0.0
        part = part_of(len(right), self._share)
        mine = (list(part), torch.cat(correct), float(total), self.bad_images - bad)
        parts = gather(mine)
        for indices, bits, part_loss, _ in parts:
            right[indices] = bits
            loss += part_loss
        return Evaluation(
            top1=100 * float(right.double().mean()),
            val_loss=loss / len(right),
            correct=right,
            bad_images=sum(one[-1] for one in parts),
        )

    @property
    def _share(self) -> Share:
        return Share(self.machine.rank, self.machine.world, self.machine.micro_batch)

    def _move(self, batch: Batch) -> Batch:
        images, labels = batch
        device = torch.device(self.machine.device)
        images = images.to(device, memory_format=self.machine.memory_format, non_blocking=True)
        return images, labels.to(device, non_blocking=True)

    def _make_mixup(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        recipe = self.recipe
        if not (recipe.mixup or recipe.cutmix):
            return None
        from timm.data import Mixup

        mixup: Any = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mixup_prob,
            switch_prob=recipe.mixup_switch_prob,
            label_smoothing=recipe.label_smoothing,
            num_classes=self.data.num_classes,
        )
        return mixup  # type: ignore[no-any-return]
