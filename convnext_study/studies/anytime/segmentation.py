"""Segmentation with what an anytime network tells beside its answers: what each exit cost on the
very images, where it was computed, and how far its confidence can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from convnext_study.data.dense.loader import val_batches
from convnext_study.runs.metrics import Cost, Metric, Samples
from convnext_study.runs.records import Run
from convnext_study.studies.anytime.calibration import calibration_error, confidence_bins
from convnext_study.studies.anytime.masks.cost import LayerCost, exit_macs
from convnext_study.studies.anytime.networks.network import AnytimeNet
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.exits import Evidence, enlarged
from convnext_study.training.tasks.segmentation import Segmentation


class AnytimeSegmentation(Segmentation):
    """As `Segmentation`, for an `AnytimeNet`; its ``costs`` are those of the dense network, and
    what was computed of them is measured on every validation image:

    - ``macs_exit1`` and so on: multiply-accumulates of an image up to each exit, by the authors'
      rule (`masks.cost`), and ``macs``, their mean over the exits;
    - ``computed_exit2`` and so on: the share of positions that were computed, where masks rule;
    - ``ece_exit1`` and so on: the expected calibration error.
    """

    def __init__(self, run: Run, runtime: Runtime) -> None:
        super().__init__(run, runtime)
        self._layers: dict[tuple[int, int, int], list[list[LayerCost]]] = {}  # by size of image

    def observed(self, model: nn.Module, images: Tensor) -> tuple[Sequence[Tensor], Evidence]:
        """Logits of every exit; ``macs`` and ``computed``, (n, exits), of each image."""
        net = anytime_net(model)
        outputs = list(net.run(images))
        masks = [output.computed for output in outputs]
        macs = torch.tensor(self._macs(net, images, masks))
        count = len(images)
        everywhere = torch.ones(count, device=images.device)
        shares = [everywhere if one is None else one.float().mean((1, 2, 3)) for one in masks]
        return [output.logits for output in outputs], {
            "macs": macs,
            "computed": torch.stack(shares, 1),
        }

    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """Also ``bins``, (n, exits, bins, 3): see `confidence_bins`."""
        bins = [
            confidence_bins(enlarged(logits, *labels.shape[1:]).softmax(1), labels)
            for logits in exits
        ]
        return {**super().measure(exits, labels), "bins": torch.stack(bins, 1)}

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Those of `Segmentation`, and the study's."""
        found, primary = super().metrics(evidence)
        metrics = dict(found)
        macs, computed = evidence["macs"], evidence["computed"]
        metrics["macs"] = _cost(macs.double().mean(1), "MACs, mean of exits")
        for exit in range(macs.shape[1]):
            number = exit + 1
            metrics[f"macs_exit{number}"] = _cost(macs[:, exit], f"MACs, exit {number}")
            metrics[f"ece_exit{number}"] = Metric(
                value=100 * calibration_error(evidence["bins"][:, exit].sum(0)),
                label=f"calibration error, exit {number}",
                higher_is_better=False,
            )
            share = computed[:, exit]
            if bool((share < 1).any()):
                metrics[f"computed_exit{number}"] = Metric(
                    value=100 * float(share.double().mean()),
                    label=f"computed, exit {number}",
                    higher_is_better=False,
                    samples=Samples.of_values(100 * share.numpy()),
                )
        return metrics, primary

    def first_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first validation images, as the network gets them, and their labels; those of one
        size with the first."""
        found: list[tuple[Tensor, Tensor]] = []
        for batch in val_batches(self._parts, 1, self._reading()):
            pair = self._prepare(batch)
            if not found or pair[0].shape == found[0][0].shape:
                found.append(pair)
            if len(found) == count:
                break
        return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])

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
        return [
            exit_macs(layers, [None if one is None else one[i : i + 1] for one in masks])
            for i in range(len(images))
        ]

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """Of the network, and up to each exit, where nothing is skipped."""
        net = anytime_net(model)
        found, activations = super().costs(model), 0
        layers, params = net.layer_costs(self.image_shape), net.params_to_exits()
        for number, (macs, added) in enumerate(zip(exit_macs(layers), layers, strict=True), 1):
            activations += sum(one.channels * one.size[0] * one.size[1] for one in added)
            found[f"exit{number}"] = Cost(
                macs=macs, params=params[number - 1], activations=activations
            )
        return found


def anytime_net(model: nn.Module) -> AnytimeNet:
    """The network itself, or what a moving average of it wraps."""
    net = getattr(model, "module", model)
    assert isinstance(net, AnytimeNet)  # noqa: S101  the study builds no others
    return net


def _cost(macs: Tensor, label: str) -> Metric:
    """The mean over images of their multiply-accumulates."""
    same = bool((macs == macs[0]).all())
    return Metric(
        value=float(macs.double().mean()),
        label=label,
        unit="",
        higher_is_better=False,
        samples=None if same else Samples.of_values(macs.numpy()),
    )
