"""What every exit of the published networks costs, for ``convnext-study cost --study anytime``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits
from convnext_study.studies.anytime.published import (
    GIBI,
    CountedNetwork,
    counted_networks,
    published,
)
from convnext_study.studies.anytime.spec import AnytimeSpec

CLASSES = 19  # of Cityscapes, for which all counts hold
TITLE = "Anytime: every exit of the published networks, for one image of 1024x2048"
NOTES = (
    "MACs and parameters up to the exit, with the heads before it; the authors print MACs in "
    '1024^3 as "GFLOPs". mIoU: the authors\', on Cityscapes.',
    "= all counts are those worked out by hand from the sources.",
)


@dataclass(frozen=True)
class CountedExit:
    """An exit's counts, for one image.

    Args:
        network: whose exit it is.
        exit: its number, from 1.
        macs: multiply-accumulates up to it, with the heads of the exits before.
        params: likewise.
        head_macs: of its own head.
        head_params: likewise.
        printed_gflops: what the authors print, in 1024^3; None where they print nothing.
        printed_miou: likewise, in percent.
        as_counted: whether all counts are those of the file, to the last digit.
    """

    network: CountedNetwork
    exit: int
    macs: int
    params: int
    head_macs: int
    head_params: int
    printed_gflops: float | None
    printed_miou: float | None
    as_counted: bool

    @property
    def gimac(self) -> float:
        """MACs in the authors' unit."""
        return self.macs / GIBI

    @property
    def is_as_printed(self) -> bool | None:
        """Whether the count is the printed figure, to its one decimal; None without one."""
        if self.printed_gflops is None:
            return None
        return round(self.gimac, 1) == self.printed_gflops

    @property
    def erratum(self) -> str | None:
        """What is known of a printed figure that the authors' own code does not give."""
        return _result_of(self.network).get("erratum") if self.is_as_printed is False else None


def spec_of(network: CountedNetwork) -> AnytimeSpec:
    """The network of a published count."""
    return AnytimeSpec(
        backbone=network.backbone,
        heads=network.heads,
        flex_width=network.flex_width,
        exits=network.exits,
    )


def counted(network: CountedNetwork) -> list[CountedExit]:
    """Every exit of a published network, counted on a network without weights."""
    import torch

    from convnext_study.studies.anytime.masks.cost import exit_macs
    from convnext_study.studies.anytime.networks.network import AnytimeNet

    with torch.device("meta"):
        net = AnytimeNet(spec_of(network), num_classes=CLASSES)
    layers = net.layer_costs((3, *network.input_size))
    macs, params = exit_macs(layers), net.params_to_exits()
    heads = [[layer.macs for layer in of if layer.name.startswith("heads.")] for of in layers]
    head_macs = [sum(of) for of in heads]
    head_params = [
        sum(weight.numel() for weight in net.heads[str(exit)].parameters())
        for exit in network.exits
    ]
    stated = [
        (macs, network.macs),
        (head_macs, network.head_macs),
        (head_params, network.head_params),
        (params, network.params_to_exit or (network.params,)),
    ]
    same = all(not those or tuple(ours) == those for ours, those in stated)
    printed = _result_of(network)
    return [
        CountedExit(
            network,
            exit,
            macs[index],
            params[index],
            head_macs[index],
            head_params[index],
            _at(printed.get("gimac_printed"), index),
            _at(printed.get("miou"), index),
            same,
        )
        for index, exit in enumerate(network.exits)
    ]


def cost_tables() -> list[Table[Any]]:
    """One table of all exits, and what is known of the figures that no code gives."""
    rows = [row for network in counted_networks() for row in counted(network)]
    columns: list[Column[CountedExit]] = [
        Column("network", "network", lambda row: row.network.label, "text"),
        Column("exit", "exit", lambda row: row.exit, format=count),
        Column("params", "params", lambda row: row.params, format=digits(3), prefixed=True),
        Column("macs", "MACs", lambda row: row.macs, format=digits(4), prefixed=True),
        Column("gimac", "MACs, 1024^3", lambda row: row.gimac, format=digits(2)),
        Column("printed_gflops", "printed", lambda row: row.printed_gflops, format=digits(1)),
        Column("head_params", "head params", lambda row: row.head_params, screen=False),
        Column("head_macs", "head MACs", lambda row: row.head_macs, screen=False),
        Column("as_counted", "", _mark, "text"),
        Column("printed_miou", "mIoU %", lambda row: row.printed_miou, format=digits(2)),
        Column("name", "name", lambda row: row.network.name, "text", screen=False),
        Column(
            "model", "model", lambda row: f"anytime_{row.network.backbone}", "text", screen=False
        ),
    ]
    errata = dict.fromkeys(
        f"† {row.network.label}: {row.erratum}" for row in rows if row.erratum is not None
    )
    return [Table("anytime_cost", TITLE, columns, rows, (*NOTES, *errata))]


def _mark(row: CountedExit) -> str:
    return ("=" if row.as_counted else "not as counted") + (" †" if row.erratum else "")


def _result_of(network: CountedNetwork) -> dict[str, Any]:
    """What the authors print of a network, empty where they print nothing."""
    rows = (row for row in published()["result"] if row.get("count") == network.name)
    return next(rows, {})


def _at(values: list[float] | None, index: int) -> float | None:
    return values[index] if values else None
