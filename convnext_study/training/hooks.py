"""Where a task may act between the loop's own steps: masks stay masks, penalties push gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from convnext_study.recipes import Recipe
    from convnext_study.runs.records import ModelRef


class Hooks:
    """Called by the loop in every process; each does nothing unless a task says otherwise.

    What they change must be a function of the weights, the step and `state`, so that a resumed run
    ends bit for bit like one that was not stopped.
    """

    def begin(self, model: nn.Module) -> None:
        """Called once at each start, on the placed network, before its state is restored."""

    def built(self) -> ModelRef | None:
        """The network that `build` made in plain values, where the run's own do not say it: it
        was decided by the parent, or in training. Kept in the result."""
        return None

    def schedule(self, recipe: Recipe) -> Recipe:
        """What to train by, asked at each start after `build`: the run's own recipe, unless its
        length follows from a network that the parent decided."""
        return recipe

    @property
    def num_classes(self) -> int | None:
        """What the network's builder was given, saved so that it can be built without the data."""
        return None

    def before_step(self, model: nn.Module, step: int) -> None:
        """May change the gradients of optimizer step ``step``, whole and shared by now."""

    def after_step(self, model: nn.Module, step: int, skipped: Tensor) -> None:
        """May change the weights after an optimizer step, such as to keep masked ones at zero.

        ``skipped`` is a bool on the device: the step's numbers were not finite, nothing moved.
        """

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """May change the weights after an epoch (from 0), before it is evaluated."""

    def state(self) -> dict[str, torch.Tensor]:
        """What the hooks need to go on, saved with each checkpoint."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` returned."""
