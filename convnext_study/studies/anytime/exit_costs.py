"""What each exit of an anytime network costs on the very images that it is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor, nn

from convnext_study.data.loader import val_batches
from convnext_study.runs.metrics import Metric, Samples
from convnext_study.studies.anytime.layer_cost import LayerCost, exit_macs
from convnext_study.studies.anytime.masks import resized
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.training.tasks.base import Evidence
from convnext_study.training.tasks.exits import ExitsTask


class ExitCosts(ExitsTask):
    """A task for an `AnytimeNet`; its ``costs`` are those of the dense network, and what was
    computed of them is measured on every validation image: see `exit_metrics`."""

    @cached_property
    def _layers(self) -> dict[tuple[int, int, int], list[list[LayerCost]]]:
        """By size of image."""
        return {}

    def observed(self, model: nn.Module, images: Tensor) -> tuple[Sequence[Tensor], Evidence]:
        """Logits of every exit; ``macs`` and ``computed``, (n, exits), of each image."""
        net = anytime_net(model)
        outputs = list(net.run(images))
        masks = [output.computed for output in outputs]
        everywhere = torch.ones(len(images), device=images.device)
        shares = [
            everywhere if one is None else resized(one, grid=net.spec.grid).float().mean((1, 2, 3))
            for one in masks
        ]
        return [output.logits for output in outputs], {
            "macs": torch.tensor(self._macs(net, images, masks)),
            "computed": torch.stack(shares, 1),
        }

    def first_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first validation images, as the network gets them, and their labels: of ``count``
        those of one size with the first."""
        batches = islice(val_batches(self.data, self.recipe, 1, self._reading), count)
        first, *others = (self._prepare(batch) for batch in batches)
        same = [first, *(pair for pair in others if pair[0].shape == first[0].shape)]
        return torch.cat([one for one, _ in same]), torch.cat([one for _, one in same])

    def _macs(
        self, net: AnytimeNet, images: Tensor, masks: Sequence[Tensor | None]
    ) -> list[list[int]]:
        """Multiply-accumulates of each image up to each exit."""
        size = (3, images.shape[2], images.shape[3])
        if size not in self._layers:
            self._layers[size] = net.layer_costs(size)
        layers = self._layers[size]
        if all(mask is None for mask in masks):
            return [exit_macs(layers)] * len(images)
        grid = net.spec.grid
        return [
            exit_macs(layers, [None if one is None else one[i : i + 1] for one in masks], grid)
            for i in range(len(images))
        ]


def exit_metrics(evidence: Evidence) -> Mapping[str, Metric]:
    """Of what `ExitCosts.observed` saw:

    - ``macs_exit1`` and so on: multiply-accumulates of an image up to each exit, by the authors'
      rule (`layer_cost`), and ``macs``, their mean over the exits;
    - ``computed_exit2`` and so on: the share of positions that were computed, where masks rule.
    """
    macs, computed = evidence["macs"], evidence["computed"]
    metrics = {"macs": _macs_metric(macs.double().mean(1), "MACs, mean of exits")}
    for number, (cost, share) in enumerate(zip(macs.T, computed.T, strict=True), 1):
        metrics[f"macs_exit{number}"] = _macs_metric(cost, f"MACs, exit {number}")
        if bool((share < 1).any()):
            metrics[f"computed_exit{number}"] = Metric(
                value=100 * float(share.double().mean()),
                label=f"computed, exit {number}",
                higher_is_better=False,
                samples=Samples.of_values(100 * share.numpy()),
            )
    return metrics


def anytime_net(model: nn.Module) -> AnytimeNet:
    """The network itself, or what a moving average of it wraps."""
    net = getattr(model, "module", model)
    assert isinstance(net, AnytimeNet)  # noqa: S101  the study builds no others
    return net


def _macs_metric(macs: Tensor, label: str) -> Metric:
    """The mean over images of their multiply-accumulates."""
    same = bool((macs == macs[0]).all())
    return Metric(
        value=float(macs.double().mean()),
        label=label,
        unit="",
        higher_is_better=False,
        samples=None if same else Samples.of_values(macs.numpy()),
    )
