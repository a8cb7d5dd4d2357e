"""What is not finite: steps, which are found, undone and counted, and scores, which are no result.

All of a step stays on the device: the optimizer is told on the device to leave the weights
alone (as a gradient scaler tells it), and the numbers of a step are read back once.
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
        """Copy the buffers, to which `restore` goes back."""
        for before, now in zip(self._before, self._now, strict=True):
            before.copy_(now)

    def restore(self, where: Tensor | None = None) -> None:
        """Go back, if the boolean scalar ``where`` is set or there is none."""
        for before, now in zip(self._before, self._now, strict=True):
            now.copy_(before if where is None else torch.where(where, before, now))

    @torch.no_grad()
    def are_finite(self) -> Tensor:
        """A boolean scalar."""
        return torch.isfinite(norm_of(buffer for buffer in self._now if buffer.is_floating_point()))


@torch.no_grad()
def norm_of(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all values together, a scalar; not finite where one of them is not."""
    return get_total_norm(list(tensors))


@torch.no_grad()
def is_finite(module: nn.Module) -> bool:
    """Whether every weight and buffer is a number."""
    values = [*module.parameters(), *module.buffers()]
    return bool(torch.stack([torch.isfinite(value).all() for value in values]).all())


class ScoresError(RunFailed):
    """What a network says of validation images is not finite, so that it has no result."""


@torch.no_grad()
def finite_rows(scores: Tensor) -> Tensor:
    """Bools (n,): whether all scores of an image, (n, ...), are finite."""
    return scores.isfinite().flatten(1).all(1)


def check_scores(finite: Sequence[Tensor], model: nn.Module) -> None:
    """Raises ScoresError in every process where the scores of an image are not finite.

    ``finite`` are this process's `finite_rows`, batch by batch.
    """
    mine = (int(sum(one.sum() for one in finite)), sum(len(one) for one in finite))
    right, images = (sum(part) for part in zip(*all_gather(mine), strict=True))
    if right == images:
        return
    bad = next((name for name, one in model.state_dict().items() if not one.isfinite().all()), None)
    raise ScoresError(
        f"the scores of {images - right} of {images} validation images are not finite"
        + (f", nor are the weights ({bad})" if bad else "")
    )
