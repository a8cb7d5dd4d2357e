"""Answers while they come: a prediction at each exit, until told to stop or out of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from convnext_study.studies.anytime.masks.confidence import confidence


class Output(Protocol):
    """What a network gives at an exit: see `network.ExitOutput`."""

    @property
    def exit(self) -> int:
        """Its number."""

    @property
    def logits(self) -> Tensor:
        """(N, classes, h, w)."""

    @property
    def computed(self) -> Tensor | None:
        """(N, 1, h, w), None for everywhere."""


class Net(Protocol):
    """What is asked of a network: see `network.AnytimeNet`."""

    training: bool
    exit_ms: dict[int, float]

    @property
    def exits(self) -> tuple[int, ...]:
        """Numbers of its exits."""

    def run(self, x: Tensor) -> Iterator[Output]:
        """Its exits one by one."""


@dataclass(frozen=True)
class Prediction:
    """What is known after one exit.

    Args:
        exit: its number, from 1.
        logits: (N, classes, h, w), at the size of the backbone's largest map; `heads.upsample`
            brings them to the image's.
        labels: (N, h, w), the likeliest class of each position.
        confidence: (N, h, w), its probability.
        computed: (N, h, w), what this exit computed; the rest is the exit's before.
        milliseconds: since the image was given, up to this answer.
    """

    exit: int
    logits: Tensor
    labels: Tensor
    confidence: Tensor
    computed: Tensor
    milliseconds: float

    @property
    def is_final(self) -> bool:
        """Whether nothing was left to compute: all later answers would be this one."""
        return not bool(self.computed.any())


def predict(
    net: Net,
    images: Tensor,
    budget_ms: float | None = None,
    *,
    stop: Callable[[], bool] | None = None,
    expected_ms: list[float] | None = None,
) -> Iterator[Prediction]:
    """A prediction from each exit, each from more computation than the one before.

    Stops when the caller does (nothing of the next exit is computed before it is asked for), when
    ``stop`` says so, and before an exit that would come after the budget. The first exit is always
    given, late or not.

    Args:
        net: in evaluation mode; `skipping.accelerate.accelerated` makes a fast one.
        images: (N, in_chans, H, W), or one image (in_chans, H, W).
        budget_ms: milliseconds from now; None for no limit.
        stop: asked before each exit but the first.
        expected_ms: how long each exit takes after the one before, as measured on this machine;
            without it the net's own record of its last calls is used, and an exit that was never
            timed counts as long as the one before it.

    Raises:
        ValueError: a network in training mode.
    """
    if net.training:
        raise ValueError("the network is in training mode; call eval() first")
    x = images if images.ndim == 4 else images[None]
    known = dict(zip(net.exits, expected_ms, strict=True)) if expected_ms else net.exit_ms
    began = before = time.perf_counter()
    outputs = net.run(x)
    last = 0.0
    for exit in net.exits:
        if exit != net.exits[0]:
            if stop is not None and stop():
                return
            elapsed = 1000 * (time.perf_counter() - began)
            if budget_ms is not None and elapsed + known.get(exit, last) > budget_ms:
                return
        before = time.perf_counter()
        with torch.no_grad():
            output = next(outputs)
            prediction = _prediction(output.exit, output.logits, output.computed)
        if x.device.type != "cpu":
            torch.accelerator.synchronize()
        now = time.perf_counter()
        last = 1000 * (now - before)
        net.exit_ms[exit] = last
        yield Prediction(*prediction, milliseconds=1000 * (now - began))


def _prediction(
    exit: int, logits: Tensor, computed: Tensor | None
) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
    labels = logits.argmax(dim=1)
    everywhere = torch.ones_like(labels, dtype=torch.bool)
    done = everywhere if computed is None else computed[:, 0]
    return exit, logits, labels, confidence(logits)[:, 0], done
