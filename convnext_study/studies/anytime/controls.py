"""The tasks of two controls: exits for training alone, and masks by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from convnext_study.imports import TaskError
from convnext_study.runs.metrics import NETWORK, Cost, Metric
from convnext_study.runs.records import ModelRef
from convnext_study.studies.anytime.masks.cost import LayerCost
from convnext_study.studies.anytime.networks.network import AnytimeNet
from convnext_study.studies.anytime.segmentation import AnytimeSegmentation, anytime_net
from convnext_study.training.task import Parent
from convnext_study.training.tasks.exits import Evidence


class DeepSupervision(AnytimeSegmentation):
    """Only the last exit answers: the heads before it help in training and are then left out."""

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Those of the last exit."""
        # What has one number an image is no exit's own.
        last = {name: one if one.ndim == 1 else one[:, -1:] for name, one in evidence.items()}
        return super().metrics(last)

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """Of the network without the heads that are not used."""
        whole, net = super().costs(model)[NETWORK], anytime_net(model)
        unused = unused_heads(net.layer_costs(self.image_shape))
        heads = [head for exit, head in net.heads.items() if int(exit) != net.exits[-1]]
        sizes = [weight.numel() for head in heads for weight in head.parameters()]
        outputs = [one.channels * one.size[0] * one.size[1] for one in unused]
        macs = whole.macs - sum(one.macs for one in unused)
        activations = whole.activations - sum(outputs)
        return {NETWORK: Cost(macs=macs, params=whole.params - sum(sizes), activations=activations)}

    def _macs(
        self, net: AnytimeNet, images: Tensor, masks: Sequence[Tensor | None]
    ) -> list[list[int]]:
        found = super()._macs(net, images, masks)
        layers = self._layers[3, images.shape[2], images.shape[3]]
        heads = sum(one.macs for one in unused_heads(layers))
        return [[*exits[:-1], exits[-1] - heads] for exits in found]


class RandomMasks(AnytimeSegmentation):
    """Masks drawn by chance at the shares that the run it starts from computed, the same seed's.

    Nothing else is taken of that run.
    """

    _built: ModelRef | None = None

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The network, untrained. Raises TaskError where the parent has no shares to take."""
        net = super().build(None)
        if parent is not None:
            assert isinstance(net, AnytimeNet)  # noqa: S101  the study builds no others
            net.random_shares = shares_of(parent, len(net.exits))
            spec = net.spec.replace(random_shares=list(net.random_shares))
            self._built = ModelRef(builder=self.run.model.builder, args=spec.to_dict())
        return net

    def built(self) -> ModelRef | None:
        """The network with its shares; None where the run's own say it."""
        return self._built


def last_exit_alone(net: AnytimeNet) -> AnytimeNet:
    """The same network, in evaluation mode, without the heads before its last exit."""
    spec = net.spec.replace(exits=[net.exits[-1]])
    alone = AnytimeNet(spec, num_classes=net.num_classes, in_chans=net.in_chans)
    weights = net.state_dict()
    alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
    return alone.eval()


def unused_heads(layers: Sequence[Sequence[LayerCost]]) -> list[LayerCost]:
    """The layers of all heads but the last, of those that each exit adds."""
    return [one for added in layers[:-1] for one in added if one.name.startswith("heads.")]


def shares_of(parent: Parent, exits: int) -> tuple[float, ...]:
    """What another run computed, by chance or not, at each exit but the first, from 0 to 1."""
    result = parent.record.result
    if result is None or f"macs_exit{exits}" not in result.metrics:
        raise TaskError(f"{parent.record.folder}: has no shares of {exits} exits to take over")
    whole = 100.0  # of what is computed everywhere no metric is kept
    found = [result.metrics.get(f"computed_exit{number}") for number in range(2, exits + 1)]
    return tuple((one.value if one else whole) / 100 for one in found)
