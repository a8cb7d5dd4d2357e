"""Segmentation with what an anytime network shows beside its answers: what each exit cost on the
very images, where it was computed, and how far its confidence can be trusted.

Also the tasks of two controls: exits for training alone, and masks by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from convnext_study.data.dataset import IGNORE
from convnext_study.data.loader import val_batches
from convnext_study.imports import TaskError
from convnext_study.runs.metrics import NETWORK, Cost, Metric, Samples
from convnext_study.runs.records import ModelRef, Run
from convnext_study.studies.anytime.layer_cost import LayerCost, exit_macs
from convnext_study.studies.anytime.masks import resized
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Parent
from convnext_study.training.tasks.base import Evidence
from convnext_study.training.tasks.exits import enlarged
from convnext_study.training.tasks.segmentation import Segmentation

BINS = 15  # of confidence, as in Guo et al., 2017


class AnytimeSegmentation(Segmentation):
    """As `Segmentation`, for an `AnytimeNet`; its ``costs`` are those of the dense network, and
    what was computed of them is measured on every validation image:

    - ``macs_exit1`` and so on: multiply-accumulates of an image up to each exit, by the authors'
      rule (`layer_cost`), and ``macs``, their mean over the exits;
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
        everywhere = torch.ones(len(images), device=images.device)
        shares = [everywhere if one is None else share_of(one, net.spec.grid) for one in masks]
        return [output.logits for output in outputs], {
            "macs": torch.tensor(self._macs(net, images, masks)),
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
        metrics["macs"] = _macs_metric(macs.double().mean(1), "MACs, mean of exits")
        for exit in range(macs.shape[1]):
            number = exit + 1
            metrics[f"macs_exit{number}"] = _macs_metric(macs[:, exit], f"MACs, exit {number}")
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
        for batch in val_batches(self.data, self.recipe, 1, self._reading):
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
        grid = net.spec.grid
        return [
            exit_macs(layers, [None if one is None else one[i : i + 1] for one in masks], grid)
            for i in range(len(images))
        ]


class DeepSupervision(AnytimeSegmentation):
    """Only the last exit answers: the heads before it help in training and are then left out."""

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Those of the last exit."""
        # What has one number an image is no exit's own.
        last = {name: one if one.ndim == 1 else one[:, -1:] for name, one in evidence.items()}
        return super().metrics(last)

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """Of the network without the heads that are not used."""
        with torch.device("meta"):
            alone = _without_early_heads(anytime_net(model))
        return {NETWORK: super().costs(alone)[NETWORK]}

    def _macs(
        self, net: AnytimeNet, images: Tensor, masks: Sequence[Tensor | None]
    ) -> list[list[int]]:
        found = super()._macs(net, images, masks)
        early = self._layers[3, images.shape[2], images.shape[3]][:-1]
        unused = [one.macs for added in early for one in added if one.name.startswith("heads.")]
        return [[*exits[:-1], exits[-1] - sum(unused)] for exits in found]


class RandomMasks(AnytimeSegmentation):
    """Masks drawn by chance at the shares that the run it starts from computed, the same seed's.

    Nothing else is taken of that run.
    """

    _built: ModelRef | None = None

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The network, untrained. Raises TaskError where the parent has no shares to take."""
        net = super().build(None)
        if parent is not None:
            net = anytime_net(net)
            net.random_shares = shares_of(parent, len(net.exits))
            spec = net.spec.replace(random_shares=list(net.random_shares))
            self._built = ModelRef(builder=self.run.model.builder, args=spec.to_dict())
        return net

    def built(self) -> ModelRef | None:
        """The network with its shares; None where they are the run's own."""
        return self._built


def share_of(computed: Tensor, grid: int) -> Tensor:
    """The share of each image's positions that an exit computed, (n,); ``grid`` as in the spec."""
    size = (computed.shape[-2], computed.shape[-1])
    return resized(computed, size, grid).float().mean((1, 2, 3))


def shares_of(parent: Parent, exits: int) -> tuple[float, ...]:
    """What another run computed, by chance or not, at each exit but the first, from 0 to 1."""
    result = parent.record.result
    if result is None or f"macs_exit{exits}" not in result.metrics:
        raise TaskError(f"{parent.record.folder}: has no shares of {exits} exits to take over")
    whole = 100.0  # of what is computed everywhere no metric is kept
    found = [result.metrics.get(f"computed_exit{number}") for number in range(2, exits + 1)]
    return tuple((one.value if one else whole) / 100 for one in found)


def last_exit_alone(net: AnytimeNet) -> AnytimeNet:
    """The same network, in evaluation mode, without the heads before its last exit."""
    alone, weights = _without_early_heads(net), net.state_dict()
    alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
    return alone.eval()


def anytime_net(model: nn.Module) -> AnytimeNet:
    """The network itself, or what a moving average of it wraps."""
    net = getattr(model, "module", model)
    assert isinstance(net, AnytimeNet)  # noqa: S101  the study builds no others
    return net


def confidence_bins(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Per image, (n, bins, 3) float64: pixels of a confidence in a bin, the sum of their
    confidences, and how many of them are right.

    Of ``probabilities`` (n, classes, H, W) and ``labels`` (n, H, W), which may be ignored.
    """
    confidence, answer = probabilities.max(1)
    known = labels != IGNORE
    image = torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
    place = (confidence * BINS).long().clamp_max(BINS - 1) + image * BINS
    found = torch.zeros(len(labels) * BINS, 3, dtype=torch.float64, device=labels.device)
    values = torch.stack([torch.ones_like(confidence), confidence, (answer == labels).float()], -1)
    found.index_add_(0, place[known], values[known].double())
    return found.view(len(labels), BINS, 3)


def calibration_error(bins: Tensor) -> float:
    """The expected calibration error (Guo et al., 2017): the mean over pixels of how far their
    bin's confidence is from its accuracy, from 0 to 1.

    ``bins`` (bins, 3), summed over images; NaN without a pixel.
    """
    pixels, confidence, right = bins.unbind(-1)
    return float((confidence - right).abs().sum() / pixels.sum())


def _without_early_heads(net: AnytimeNet) -> AnytimeNet:
    spec = net.spec.replace(exits=[net.exits[-1]])
    return AnytimeNet(spec, num_classes=net.num_classes, in_chans=net.in_chans)


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
