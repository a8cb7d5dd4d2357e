"""One optimizer step: shared out over processes and micro-batches, guarded, repeatable.

A step moves its numbers between the processes once, in one packed sum, and back to the host once.
On a GPU they are read a step late, so that the host need not wait for the device.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_

from convnext_study.data.rng import fold_in, seed_everything
from convnext_study.training import distributed
from convnext_study.training.guard import Buffers, gradients_of, norm_of
from convnext_study.training.lr_schedule import learning_rate
from convnext_study.training.progress import Report
from convnext_study.training.state import autocast_of

if TYPE_CHECKING:
    from convnext_study.training.state import TrainState


def batched(batches: Iterator[Any], size: int) -> Iterator[Sequence[Any]]:
    """The micro-batches of one optimizer step after the other."""
    while group := list(islice(batches, size)):
        yield group


class Stepper:
    """Takes a run's optimizer steps, and tells how they went.

    Args:
        training: what is moved.
        delay: how many steps later a step's numbers are read.
    """

    def __init__(self, training: TrainState, delay: int | None = None) -> None:
        self._training = training
        self._buffers = Buffers(training.model)
        self._delay = delay_of(training.runtime.device) if delay is None else delay
        self._parameters = [p for p in training.model.parameters() if p.requires_grad]
        self._bad_images = training.task.corrupt_images
        self._waiting: deque[tuple[int, Tensor]] = deque()
        self._warm = not distributed.several()

    def begin_epoch(self) -> None:
        """Count the bad images of training from here on: evaluation met some of its own."""
        self._bad_images = self._training.task.corrupt_images

    def take(self, batches: Sequence[Any], *, due: bool) -> None:
        """Move the weights by one global batch, of which ``batches`` is this process's share.

        A step whose loss, gradient or buffers are not finite leaves weights and buffers alone.
        """
        training, state = self._training, self._training.progress
        optimizer: Any = training.optimizer
        rate = learning_rate(training.recipe, state.step, training.task.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        self._buffers.remember()
        if not self._warm:
            self._settle_buckets(batches)
        loss, images = self._gradients(batches)
        report = self._report(loss, images, due=due)
        bad = ~torch.isfinite(report[0]) | (report[1] + report[2] > 0)
        # As a gradient scaler tells it: the fused step then changes nothing, on the device.
        optimizer.found_inf = bad.to(dtype=torch.float32, device=training.runtime.device)
        optimizer.step()
        optimizer.found_inf = None
        if training.scaler.is_enabled():
            training.scaler.update()
        self._buffers.restore(bad)
        training.task.after_step(training.model, state.step, bad)
        if training.ema is not None:
            training.ema.update_parameters(training.model)
        optimizer.zero_grad(set_to_none=True)
        self._waiting.append((state.step, report))
        state.step += 1

    def reports(self, *, all_of_them: bool = False) -> Iterator[Report]:
        """The steps whose numbers can be read without waiting, or all, each once."""
        while len(self._waiting) > (0 if all_of_them else self._delay):
            step, report = self._waiting.popleft()
            yield Report(step, *report.tolist())

    def _settle_buckets(self, batches: Sequence[Any]) -> None:
        """One backward pass that changes nothing.

        DistributedDataParallel lays its buckets out anew after the first one, and sums over three
        processes and more round by place: a resumed run would differ in the last bit.
        """
        self._gradients(batches)
        self._training.optimizer.zero_grad(set_to_none=True)
        self._buffers.restore()
        self._warm = True

    def _gradients(self, batches: Sequence[Any]) -> tuple[Tensor, int]:
        """Gradients of the mean loss over the global batch; the mean over this process's share of
        it, and the images there."""
        training = self._training
        device = training.runtime.device
        total, images = torch.zeros((), device=device), 0
        for place, batch in enumerate(batches):
            # A draw depends on which part of the global batch it is for, and on nothing else.
            part = training.runtime.rank * len(batches) + place
            seed_everything(fold_in(training.seed, "step", training.progress.step, part), device)
            with maybe_no_sync(training, last=place == len(batches) - 1):
                with autocast_of(training.recipe.precision, device):
                    loss, count = training.task.loss(training.forward, batch)
                loss = loss.float() / len(batches)
                training.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            images += count
        return total, images

    def _report(self, loss: Tensor, images: int, *, due: bool) -> Tensor:
        """The fields of a `Report` after ``step``, summed over the processes."""
        training = self._training
        if training.scaler.is_enabled():
            training.scaler.unscale_(training.optimizer)
        training.task.before_step(training.model, training.progress.step)
        norm = norm_of(gradients_of(self._parameters))
        if training.recipe.clip_grad:
            clip_grads_with_norm_(self._parameters, training.recipe.clip_grad, norm)
        kind = torch.float32 if loss.device.type == "mps" else torch.float64
        finite = (torch.isfinite(norm), self._buffers.are_finite())
        corrupt_images, before = training.task.corrupt_images, self._bad_images
        self._bad_images = corrupt_images
        known = [images, corrupt_images - before, training.stop(), due]
        report = torch.cat(
            [
                (loss.to(kind) / training.runtime.world_size).view(1),
                *[(~value).to(loss.device, kind).view(1) for value in finite],
                torch.tensor(known, dtype=kind).to(loss.device, non_blocking=True),
            ]
        )
        return distributed.all_reduce_sum(report)


def delay_of(device: str) -> int:
    """Steps to wait before reading: a GPU works behind the host's back, a CPU does not."""
    return 1 if torch.device(device).type == "cuda" else 0


def maybe_no_sync(training: TrainState, *, last: bool) -> AbstractContextManager[Any]:
    """Gradients are shared with the other processes once a step, at its last micro-batch."""
    if last or not hasattr(training.forward, "no_sync"):
        return contextlib.nullcontext()
    context: AbstractContextManager[Any] = training.forward.no_sync()  # type: ignore[operator]
    return context
