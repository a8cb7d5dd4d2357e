"""The cost of each exit of an anytime network on the images that it is evaluated on."""

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
    """A task for an `AnytimeNet`; its ``costs`` are those of the dense network, and the part that
    was computed is measured on every validation image: see `exit_metrics`."""

    @cached_property
    def _layers(self) -> dict[tuple[int, int, int], list[list[LayerCost]]]:
        """By image size."""
        return {}

    def observed(self, model: nn.Module, images: Tensor) -> tuple[Sequence[Tensor], Evidence]:
        """Logits of every exit; ``macs`` and ``computed`` per image, (n, exits)."""
        net = anytime_net(model)
        outputs = list(net.run(images))
        masks = [output.computed for output in outputs]
        everywhere = torch.ones(len(images), device=images.device)
        shares = [
            everywhere if m is None else resized(m, grid=net.spec.grid).float().mean((1, 2, 3))
            for m in masks
        ]
        return [output.logits for output in outputs], {
            "macs": torch.tensor(self._macs(net, images, masks)),
            "computed": torch.stack(shares, 1),
        }

    def first_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first ``count`` validation images, preprocessed, and their labels, without those that
        differ in size from the first."""
        batches = islice(val_batches(self.data, self.recipe, 1, self._reading), count)
        first, *rest = (self._prepare(batch) for batch in batches)
        same_size = [first, *(pair for pair in rest if pair[0].shape == first[0].shape)]
        images, labels = zip(*same_size, strict=True)
        return torch.cat(images), torch.cat(labels)

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
            exit_macs(layers, [None if mask is None else mask[i : i + 1] for mask in masks], grid)
            for i in range(len(images))
        ]


def exit_metrics(evidence: Evidence) -> Mapping[str, Metric]:
    """From the evidence of `ExitCosts.observed`:

    - ``macs_exit1`` and so on: multiply-accumulates per image up to each exit, by the authors'
      rule (`layer_cost`), and ``macs``, their mean over the exits;
    - ``computed_exit2`` and so on: the share of positions that were computed, where masks skip any.
    """
    macs, computed = evidence["macs"], evidence["computed"]
    metrics = {"macs": _macs_metric(macs.double().mean(1), "MACs, mean of exits")}
    for exit, (cost, share) in enumerate(zip(macs.T, computed.T, strict=True), 1):
        metrics[f"macs_exit{exit}"] = _macs_metric(cost, f"MACs, exit {exit}")
        if bool((share < 1).any()):
            metrics[f"computed_exit{exit}"] = Metric(
                value=100 * float(share.double().mean()),
                label=f"computed, exit {exit}",
                higher_is_better=False,
                samples=Samples.of_values(100 * share.numpy()),
            )
    return metrics


def anytime_net(model: nn.Module) -> AnytimeNet:
    """The network itself, or the one inside a moving average."""
    net = getattr(model, "module", model)
    assert isinstance(net, AnytimeNet)  # noqa: S101  the study builds no others
    return net


def _macs_metric(macs: Tensor, label: str) -> Metric:
    """The mean over images of their multiply-accumulates."""
    constant = bool((macs == macs[0]).all())
    return Metric(
        value=float(macs.double().mean()),
        label=label,
        unit="",
        higher_is_better=False,
        samples=None if constant else Samples.of_values(macs.numpy()),
    )
