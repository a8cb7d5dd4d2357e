"""Checks for values that are not finite: such steps are undone and counted, such scores raise.

A step is checked on the device: a flag there has the optimizer skip it (as a gradient scaler
does), and the numbers of a step are read back once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from convnext_study.errors import RunFailed
from convnext_study.training.distributed import all_gather


class Buffers:
    """A network's buffers, such as BatchNorm's statistics, as they were before a step."""

    def __init__(self, model: nn.Module) -> None:
        self._now = list(model.buffers())
        self._before = [torch.empty_like(buffer) for buffer in self._now]

    def remember(self) -> None:
        """Save a copy of the buffers for `restore`."""
        for before, now in zip(self._before, self._now, strict=True):
            before.copy_(now)

    def restore(self, where: Tensor | None = None) -> None:
        """Restore the copy, if the boolean scalar ``where`` is true or None."""
        for before, now in zip(self._before, self._now, strict=True):
            now.copy_(before if where is None else torch.where(where, before, now))

    @torch.no_grad()
    def are_finite(self) -> Tensor:
        """Whether all buffers are finite, a boolean scalar."""
        return torch.isfinite(norm_of(buffer for buffer in self._now if buffer.is_floating_point()))


@torch.no_grad()
def norm_of(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all values together, a scalar; not finite if any of them is not."""
    return get_total_norm(list(tensors))


@torch.no_grad()
def is_finite(module: nn.Module) -> bool:
    """Whether all weights and buffers are finite."""
    values = [*module.parameters(), *module.buffers()]
    return bool(torch.stack([torch.isfinite(value).all() for value in values]).all())


class ScoresError(RunFailed):
    """A network's outputs for validation images are not finite, so that it has no result."""


@torch.no_grad()
def finite_rows(scores: Tensor) -> Tensor:
    """Bools (n,): whether all scores of an image, (n, ...), are finite."""
    return scores.isfinite().flatten(1).all(1)


def check_scores(finite: Sequence[Tensor], model: nn.Module) -> None:
    """Raises ScoresError in every process if the scores of any image are not finite.

    ``finite`` are this process's `finite_rows`, batch by batch.
    """
    counts = (int(sum(rows.sum() for rows in finite)), sum(len(rows) for rows in finite))
    finite_images, images = (sum(part) for part in zip(*all_gather(counts), strict=True))
    if finite_images == images:
        return
    state = model.state_dict().items()
    bad = next((name for name, value in state if not value.isfinite().all()), None)
    raise ScoresError(
        f"the scores of {images - finite_images} of {images} validation images are not finite"
        + (f", nor are the weights ({bad})" if bad else "")
    )
