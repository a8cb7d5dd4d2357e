"""What the published networks cost, for ``convnext-study cost --study pruning``."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits
from convnext_study.studies.pruning.published import PublishedNetwork, get_network, networks

if TYPE_CHECKING:
    from torch import nn

TITLE = "Pruning: the published networks, counted"
NOTES = (
    "Pruned shares are those of the network that it was pruned from. Scratch-B: epochs that cost "
    "what that network's training cost, by the authors' count of FLOPs, which is no cost to show "
    "beside MACs.",
    "= all counts are those worked out by hand from the sources.",
)


@dataclass(frozen=True)
class Counted:
    """A network's counts, for one image; shares in percent, None for a whole network.

    ``weights`` are those of convolution and linear layers; ``bn_channels`` is the pool in which
    network slimming takes its threshold; ``budget_flops`` is as in `budget`.
    """

    network: PublishedNetwork
    params: int
    weights: int
    macs: int
    bn_channels: int
    budget_flops: int
    params_pruned_percent: float | None
    macs_pruned_percent: float | None
    scratch_b_epochs: int | None

    def differences(self) -> list[str]:
        """The counts that are not those of the file."""
        stated = self.network.stated
        return [name for name in COUNTS if name in stated and not self._agrees(name)]

    def _agrees(self, name: str) -> bool:
        found, stated = getattr(self, name), self.network.stated[name]
        return bool(round(found, 2) == stated if isinstance(found, float) else found == stated)


COUNTS = (
    "params",
    "weights",
    "macs",
    "bn_channels",
    "budget_flops",
    "params_pruned_percent",
    "macs_pruned_percent",
    "scratch_b_epochs",
)


@functools.cache
def counted(name: str) -> Counted:
    """The counts of a published network. Raises UnknownNetwork."""
    import torch

    from convnext_study.cost import count as count_cost
    from convnext_study.studies.pruning.budget import budget_flops, scratch_b_epochs
    from convnext_study.studies.pruning.networks.build import make_network

    network = get_network(name)
    with torch.device("meta"):
        net = make_network(network.spec, num_classes=network.classes)
    shape = (3, network.input, network.input)
    cost, budget = count_cost(net, shape), budget_flops(net, shape)
    of = counted(network.of) if network.of else None
    return Counted(
        network,
        params=cost.params,
        weights=count_weights(net),
        macs=cost.macs,
        bn_channels=count_bn_channels(net),
        budget_flops=budget,
        params_pruned_percent=_share(cost.params, of.params) if of else None,
        macs_pruned_percent=_share(cost.macs, of.macs) if of else None,
        scratch_b_epochs=scratch_b_epochs(
            of.budget_flops, budget, network.base_epochs, capped=network.is_capped
        )
        if of
        else None,
    )


def count_weights(net: nn.Module) -> int:
    """Weights of convolution and linear layers, without biases."""
    from torch import nn

    kinds = (nn.Conv2d, nn.Linear)
    return sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, kinds))


def count_bn_channels(net: nn.Module) -> int:
    """Channels of all BatchNorm2d."""
    from torch import nn

    return sum(norm.num_features for norm in net.modules() if isinstance(norm, nn.BatchNorm2d))


def cost_tables(names: Sequence[str] | None = None) -> list[Table[Any]]:
    """One table of the published networks, all of them or those named."""
    rows = [counted(name) for name in names or networks()]
    columns: list[Column[Counted]] = [
        Column("network", "network", lambda row: row.network.name, "text"),
        Column("label", "", lambda row: row.network.label, "text", min_width=160),
        Column("params", "params", lambda row: row.params, format=digits(3), prefixed=True),
        Column("macs", "MACs", lambda row: row.macs, format=digits(4), prefixed=True),
        Column(
            "budget_flops",
            "authors' FLOPs",
            lambda row: row.budget_flops,
            format=digits(4),
            prefixed=True,
        ),
        Column("params_pruned_percent", "params pruned, %", lambda row: row.params_pruned_percent),
        Column("macs_pruned_percent", "MACs pruned, %", lambda row: row.macs_pruned_percent),
        Column(
            "scratch_b_epochs", "Scratch-B, epochs", lambda row: row.scratch_b_epochs, format=count
        ),
        Column("as_stated", "", _mark, "text"),
        Column("weights", "weights", lambda row: row.weights, screen=False),
        Column("bn_channels", "BatchNorm channels", lambda row: row.bn_channels, screen=False),
        Column("model", "model", lambda row: row.network.model, "text", screen=False),
    ]
    return [Table("pruning_cost", TITLE, columns, rows, NOTES)]


def _mark(row: Counted) -> str:
    differing = row.differences()
    return f"not as stated: {', '.join(differing)}" if differing else "="


def _share(pruned: int, whole: int) -> float:
    return 100 * (1 - pruned / whole)
