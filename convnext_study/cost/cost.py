"""The value that every counter returns (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass

from convnext_study.errors import RunFailed, UserError


class ImageTooSmall(UserError):
    """The network would shrink the image to nothing."""


class CountersDisagree(RunFailed):
    """Two counters give one network different costs; the message has all of them."""


@dataclass(frozen=True)
class Cost:
    """Cost of one image, in raw units.

    Args:
        macs: multiply-accumulates of convolution and linear layers.
        params: parameters of all layers.
        activations: output elements of convolution and linear layers.
    """

    macs: int = 0
    params: int = 0
    activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.activations + other.activations,
        )

    def __mul__(self, times: int) -> Cost:
        return Cost(self.macs * times, self.params * times, self.activations * times)
