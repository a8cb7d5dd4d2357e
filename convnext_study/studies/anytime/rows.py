"""The published networks as rows of costs: each exit counted, beside what the authors print."""

from __future__ import annotations

from typing import Any

from convnext_study.studies.anytime.published import (
    GIBI,
    GIGA,
    CountedNetwork,
    counted_networks,
    published,
)
from convnext_study.studies.anytime.spec import AnytimeSpec

CLASSES = 19  # of Cityscapes, for which all counts hold


def spec_of(network: CountedNetwork) -> AnytimeSpec:
    """The network of a published count."""
    return AnytimeSpec(
        backbone=network.backbone,
        heads=network.heads,
        flex_width=network.flex_width,
        exits=network.exits,
    )


def cost_rows() -> list[dict[str, Any]]:
    """A row of plain values for each exit of each published network, for one 1024x2048 image.

    Keys as those of `cost.table`, and: ``exit``; ``head_macs`` (1e9) and ``head_params`` of the
    exit's own head; ``gimac``, the MACs in 1024^3, which the authors print as "GFLOPs" and
    ``paper_gflops`` holds; ``paper_miou`` in percent. ``macs`` (1e9), ``params`` and
    ``activations`` (1e6) are cumulative to the exit. ``matches_paper`` says whether the count, to
    the one decimal that is printed, is the printed figure, and is None where none is printed.
    """
    return [row for network in counted_networks() for row in _rows(network)]


def _rows(network: CountedNetwork) -> list[dict[str, Any]]:
    import torch

    from convnext_study.studies.anytime.masks.cost import exit_macs
    from convnext_study.studies.anytime.networks.network import AnytimeNet

    with torch.device("meta"):
        net = AnytimeNet(spec_of(network), num_classes=CLASSES)
    layers = net.layer_costs((3, *network.input_size))
    macs, params = exit_macs(layers), net.params_to_exits()
    printed = _result_of(network)
    rows, activations = [], 0
    for index, exit in enumerate(network.exits):
        activations += sum(
            layer.channels * layer.size[0] * layer.size[1] for layer in layers[index]
        )
        gflops = _at(printed.get("gimac_printed"), index)
        matches = None if gflops is None else round(macs[index] / GIBI, 1) == gflops
        head = net.heads[str(exit)]
        rows.append(
            {
                "regime": "anytime",
                "step": f"{network.name}-exit{exit}",
                "label": f"{network.label}, exit {exit}",
                "exit": exit,
                "macs": macs[index] / GIGA,
                "gimac": macs[index] / GIBI,
                "params": params[index],
                "activations": activations / 1e6,
                "head_macs": sum(
                    layer.macs for layer in layers[index] if layer.name.startswith("heads.")
                )
                / GIGA,
                "head_params": sum(weight.numel() for weight in head.parameters()),
                "paper_gflops": gflops,
                "paper_miou": _at(printed.get("miou"), index),
                "paper_top1": None,
                "matches_paper": matches,
                "erratum": printed.get("erratum") if matches is False else None,
                "model": f"anytime_{network.backbone}",
            }
        )
    return rows


def _result_of(network: CountedNetwork) -> dict[str, Any]:
    """What the authors print of a network, empty where they print nothing."""
    rows = (row for row in published()["result"] if row.get("count") == network.name)
    return next(rows, {})


def _at(values: list[float] | None, index: int) -> float | None:
    return values[index] if values else None
