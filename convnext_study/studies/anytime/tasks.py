"""Segmentation by an anytime network: what its masks leave to compute, and its calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in
from convnext_study.imports import TaskError
from convnext_study.runs.metrics import NETWORK, Cost, Metric, Samples
from convnext_study.runs.records import ModelRef
from convnext_study.studies.anytime.calibration import calibration_error, reliability
from convnext_study.studies.anytime.masks.cost import LayerCost, exit_macs
from convnext_study.studies.anytime.networks.network import AnytimeNet
from convnext_study.studies.anytime.spec import AnytimeSpec
from convnext_study.training.parent import Parent
from convnext_study.training.rng import seed_everything
from convnext_study.training.task import Evaluation
from convnext_study.training.tasks.exits import LOSS, Evidence, enlarged
from convnext_study.training.tasks.overlap import PRIMARY
from convnext_study.training.tasks.segmentation import Segmentation, SegmentationArgs

TASKS = {"anytime-segmentation": f"{__name__}:AnytimeSegmentation"}

MACS, COMPUTED, ECE = "macs", "computed", "ece"  # metrics, followed by ``_exit1`` and so on


class AnytimeArgs(SegmentationArgs):
    """Arguments of ``anytime-segmentation``: those of ``segmentation``, and

    Args:
        uses: which exits answer: ``all``; ``last``: the others are for training alone, and their
            heads cost nothing afterwards.
    """

    uses: Literal["all", "last"] = "all"


class AnytimeSegmentation(Segmentation):
    """Segmentation whose metrics hold, for each exit and image, what the masks leave to compute.

    Beside mIoU, for each exit: ``macs`` at the masks of the validation images (10^6), ``computed``,
    the share of positions that were, and ``ece``, the expected calibration error at the labels'
    size. A run with random masks that starts from another takes that one's shares, and nothing
    else of it.
    """

    arguments: ClassVar[type[SegmentationArgs]] = AnytimeArgs
    _layers: dict[tuple[int, int], list[list[LayerCost]]]
    _built: ModelRef | None = None

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The run's network, untrained. Raises TaskError for one that is no anytime network."""
        self._layers = {}
        net = super().build(None)
        if not isinstance(net, AnytimeNet):
            raise TaskError(
                f"task {self.run.task.name}: needs an anytime network, and builder "
                f"{self.run.model.builder!r} makes a {type(net).__name__}"
            )
        if parent is not None:
            net.random_shares = shares_of(parent, net.spec)
            spec = net.spec.replace(random_shares=list(net.random_shares))
            self._built = ModelRef(builder=self.run.model.builder, args=spec.to_dict())
        return net

    def built(self) -> ModelRef | None:
        """The network with the shares that it took from another run, if it did."""
        return self._built

    def observed(self, model: nn.Module, images: Tensor) -> tuple[Sequence[Tensor], Evidence]:
        """The logits of every exit, and what each image took of the computation.

        ``macs``, (n, exits), up to each exit, and ``computed``, (n, exits), the share of positions.
        """
        outputs = list(anytime_net(model).run(images))
        everywhere = images.new_ones(len(images), 1, 1, 1, dtype=torch.bool)
        masks = [everywhere if one.computed is None else one.computed for one in outputs]
        layers = self._layers_at(anytime_net(model), (images.shape[2], images.shape[3]))
        macs = [exit_macs(layers, [mask[[n]] for mask in masks]) for n in range(len(images))]
        shares = torch.stack([mask.double().mean((1, 2, 3)) for mask in masks], 1)
        took = {MACS: torch.tensor(macs, dtype=torch.float64), COMPUTED: shares}
        return [one.logits for one in outputs], took

    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Metrics of every exit. Random masks are the same each time."""
        with torch.random.fork_rng():
            seed_everything(fold_in(self.run.seed, "evaluation"))
            return super().evaluate(model, check)

    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """Overlaps, and ``ece``, (n, exits, bins, 3): see `calibration.reliability`."""
        bins = [reliability(enlarged(one, *labels.shape[1:]), labels) for one in exits]
        return {**super().measure(exits, labels), ECE: torch.stack(bins, 1)}

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """mIoU of each exit, and their mean, which is primary; MACs, shares and calibration."""
        if self._last_only:
            evidence = {
                name: one if name == LOSS else one[:, -1:] for name, one in evidence.items()
            }
        found, primary = super().metrics(evidence)
        macs, computed, bins = (evidence[name] for name in (MACS, COMPUTED, ECE))
        exits, more = macs.shape[1], dict(found)
        for place in range(exits):
            name, words = named(place, exits)
            more[f"{MACS}{name}"] = _mean(macs[:, place] / 1e6, f"MACs{words}", "M")
            more[f"{COMPUTED}{name}"] = _mean(100 * computed[:, place], f"computed{words}", "%")
            more[f"{ECE}{name}"] = Metric(
                value=calibration_error(bins[:, place].sum(0)),
                label=f"calibration error{words}",
                higher_is_better=False,
            )
        return more, primary

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """Dense costs of the network, and up to each exit, with the heads of the earlier ones.

        Where the last exit alone is used, earlier heads are left out.
        """
        net = anytime_net(model)
        layers = self._layers_at(net, (self.image_shape[1], self.image_shape[2]))
        params = net.params_to_exits()
        heads = [f"heads.{exit}." for exit in net.exits[:-1]] if self._last_only else []
        if heads:
            unused = [
                one.numel() for name, one in net.named_parameters() if name.startswith(tuple(heads))
            ]
            layers = [
                [one for one in part if not one.name.startswith(tuple(heads))] for part in layers
            ]
            params = [params[-1] - sum(unused)]
        macs, activations, found = exit_macs(layers), 0, {}
        for place, part in enumerate(layers):
            activations += sum(one.channels * one.size[0] * one.size[1] for one in part)
            found[f"exit{place + 1}"] = Cost(
                macs=macs[place],
                params=params[min(place, len(params) - 1)],
                activations=activations,
            )
        last = found[f"exit{len(layers)}"]
        return {NETWORK: last} if len(layers) == 1 or heads else {NETWORK: last, **found}

    @property
    def _last_only(self) -> bool:
        return isinstance(self.args, AnytimeArgs) and self.args.uses == "last"

    def _layers_at(self, net: AnytimeNet, size: tuple[int, int]) -> list[list[LayerCost]]:
        if size not in self._layers:
            self._layers[size] = net.layer_costs((net.in_chans, *size))
        return self._layers[size]


def anytime_net(model: nn.Module) -> AnytimeNet:
    """The network itself, without what averages or wraps it."""
    inside = getattr(model, "module", model)
    assert isinstance(inside, AnytimeNet)  # noqa: S101  build gives no other
    return inside


def named(place: int, exits: int) -> tuple[str, str]:
    """How a metric's name and label end at an exit, from 0; an only one's do not."""
    return ("", "") if exits == 1 else (f"_exit{place + 1}", f", exit {place + 1}")


def miou_name(place: int, exits: int) -> str:
    """The name of mIoU at the exit of this place, from 0."""
    return f"{PRIMARY}{named(place, exits)[0]}"


def shares_of(parent: Parent, spec: AnytimeSpec) -> tuple[float, ...]:
    """The shares of positions that another run computed for each exit but the first.

    Raises TaskError where that run has other exits.
    """
    result, exits = parent.record.result, len(spec.exits)
    names = [f"{COMPUTED}{named(place, exits)[0]}" for place in range(1, exits)]
    if result is None or any(name not in result.metrics for name in names):
        raise TaskError(f"{parent.record.folder}: has no shares for {exits} exits to take over")
    return tuple(result.metrics[name].value / 100 for name in names)


def _mean(values: Tensor, label: str, unit: str) -> Metric:
    """A mean over images, of which less is better."""
    return Metric(
        value=float(values.mean()),
        label=label,
        unit=unit,
        higher_is_better=False,
        samples=Samples.of_values(values.numpy()),
    )
