"""Segmentation and pose with the metrics of anytime networks: what each exit costs, where it was
computed, and the calibration of its confidence.

Also the tasks of two controls: exits for training only, and random masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from convnext_study.data.dataset import IGNORE
from convnext_study.imports import TaskError
from convnext_study.runs.metrics import NETWORK, Cost, Metric
from convnext_study.runs.records import ModelRef
from convnext_study.studies.anytime.exit_costs import ExitCosts, anytime_net, exit_metrics
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.training.task import Evaluation, Parent
from convnext_study.training.tasks.base import Evidence
from convnext_study.training.tasks.exits import enlarged
from convnext_study.training.tasks.pose import Pose
from convnext_study.training.tasks.segmentation import Segmentation

BINS = 15  # of confidence, as in Guo et al., 2017


class AnytimeSegmentation(ExitCosts, Segmentation):
    """As `Segmentation`, with what each exit costs, and ``ece_exit1`` and so on: the expected
    calibration error."""

    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """Also ``bins``, (n, exits, bins, 3): see `confidence_bins`."""
        bins = [
            confidence_bins(enlarged(logits, *labels.shape[1:]).softmax(1), labels)
            for logits in exits
        ]
        return {**super().measure(exits, labels), "bins": torch.stack(bins, 1)}

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Those of `Segmentation`, and the study's."""
        metrics, primary = super().metrics(evidence)
        errors = {
            f"ece_exit{exit}": Metric(
                value=100 * calibration_error(bins),
                label=f"calibration error, exit {exit}",
                higher_is_better=False,
            )
            for exit, bins in enumerate(evidence["bins"].sum(0), 1)
        }
        return {**metrics, **exit_metrics(evidence), **errors}, primary


class AnytimePose(ExitCosts, Pose):
    """As `Pose`, with what each exit costs."""

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Those of `Pose`, and the study's."""
        metrics, primary = super().metrics(evidence)
        return {**metrics, **exit_metrics(evidence)}, primary


class DeepSupervision(AnytimeSegmentation):
    """Only the last exit predicts: the heads before it are for training and then left out."""

    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Of the network of `last_exit_alone`."""
        return super().evaluate(self.without_training_parts(model), check)

    def exit_weights(self, exits: int) -> Sequence[float]:
        """In evaluation only the last exit's."""
        return super().exit_weights(exits)[-exits:]

    def without_training_parts(self, model: nn.Module) -> nn.Module:
        """The network of `last_exit_alone`."""
        return last_exit_alone(anytime_net(model))

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """Of the network without the unused heads."""
        with torch.device("meta"):
            alone = _without_early_heads(anytime_net(model))
        return {NETWORK: super().costs(alone)[NETWORK]}


class RandomMasks(AnytimeSegmentation):
    """Random masks with the shares that the run it starts from, of the same seed, computed.

    Nothing else is taken from that run.
    """

    _built: ModelRef | None = None

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The network, untrained. Raises TaskError where the parent has no shares."""
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


def shares_of(parent: Parent, exits: int) -> tuple[float, ...]:
    """The share of positions, from 0 to 1, that a run computed at each exit but the first."""
    result = parent.record.result
    if result is None or f"macs_exit{exits}" not in result.metrics:
        raise TaskError(f"{parent.record.folder}: has no shares for {exits} exits to copy")
    computed = [result.metrics.get(f"computed_exit{exit}") for exit in range(2, exits + 1)]
    # Exits that are computed everywhere have no metric.
    return tuple(metric.value / 100 if metric else 1.0 for metric in computed)


def last_exit_alone(net: AnytimeNet) -> AnytimeNet:
    """The same network, in evaluation mode, without the heads before its last exit."""
    alone, weights = _without_early_heads(net), net.state_dict()
    alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
    return alone.to(next(net.parameters()).device).eval()


def confidence_bins(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Per image and confidence bin, (n, bins, 3) float64: the number of pixels, the sum of their
    confidences, and the number of correct ones.

    From ``probabilities`` (n, classes, H, W) and ``labels`` (n, H, W), some of which may be
    `IGNORE`.
    """
    confidence, predicted = probabilities.max(1)
    labelled = labels != IGNORE
    image = torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
    bin_index = (confidence * BINS).long().clamp_max(BINS - 1) + image * BINS
    bins = torch.zeros(len(labels) * BINS, 3, dtype=torch.float64, device=labels.device)
    right = (predicted == labels).float()
    values = torch.stack([torch.ones_like(confidence), confidence, right], -1)
    bins.index_add_(0, bin_index[labelled], values[labelled].double())
    return bins.view(len(labels), BINS, 3)


def calibration_error(bins: Tensor) -> float:
    """The expected calibration error (Guo et al., 2017), from 0 to 1: the mean over pixels of the
    difference between their bin's confidence and accuracy.

    ``bins`` (bins, 3), summed over images; NaN without a pixel.
    """
    pixels, confidence, right = bins.unbind(-1)
    return float((confidence - right).abs().sum() / pixels.sum())


def _without_early_heads(net: AnytimeNet) -> AnytimeNet:
    spec = net.spec.replace(exits=[net.exits[-1]])
    return AnytimeNet(spec, num_classes=net.num_classes, in_chans=net.in_chans)
