"""The cost of each exit of the published networks, for ``convnext-study cost --study anytime``."""

from __future__ import annotations

from typing import Any, NamedTuple

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits
from convnext_study.studies.anytime.arms import POSE_BACKBONE
from convnext_study.studies.anytime.spec import AnytimeSpec, published

GIBI = 2**30  # the unit that the authors print as "GFLOPs"
CLASSES, JOINTS = 19, 16  # of Cityscapes and MPII
TITLE = "Anytime: every exit of the published networks and of our pose networks"
NOTES = (
    "MACs and parameters up to the exit, including earlier heads; the authors print MACs in "
    '1024^3 as "GFLOPs". mIoU: the authors\', on Cityscapes.',
    "= all counts equal those derived by hand from the sources. Joints: our networks on the "
    "backbone that HRNet's authors use for MPII; none is published.",
)
# One exit, EE and RH for joints: ours, without published figures.
POSE = [
    {"name": f"w32-pose-{name}", "label": f"HRNet-W32, joints, {words}", "input": [256, 256]} | more
    for name, words, more in (
        ("plain", "one exit", {}),
        ("ee", "EE", {"heads": "original"}),
        ("rh", "EE + RH", {"heads": "flex"}),
    )
]


class CountedExit(NamedTuple):
    """An exit's counts, for one image, beside the authors' printed figures, if any.

    ``network`` is the row of ``published.toml``; ``macs`` and ``params`` are up to the exit, with
    the heads of the exits before; ``as_counted`` is whether all equal the file's exactly; None
    where it has none.
    """

    network: dict[str, Any]
    as_counted: bool | None
    exit: int
    macs: int
    params: int
    head_macs: int
    head_params: int
    printed_gflops: float | None
    printed_miou: float | None

    @property
    def gimac(self) -> float:
        """MACs in the authors' unit."""
        return self.macs / GIBI

    @property
    def erratum(self) -> str | None:
        """An explanation, if known, of a printed figure that differs, to its one decimal, from the
        count of the authors' own code."""
        differs = self.printed_gflops is not None and round(self.gimac, 1) != self.printed_gflops
        return _printed(self.network).get("erratum") if differs else None


def counted_networks() -> list[dict[str, Any]]:
    """Every network that the authors' code builds, those with four exits first, then the plain
    ones; and those for joints."""
    return [*published()["count"], *published()["baseline"], *POSE]


def spec_of(network: dict[str, Any]) -> AnytimeSpec:
    """The spec of a row of ``published.toml`` or `POSE`."""
    return AnytimeSpec(
        backbone=published()["backbone"][network["backbone"]]["timm"]
        if "backbone" in network
        else POSE_BACKBONE,
        heads=network.get("heads", "original"),
        flex_width=network.get("inter"),
        exits=(1, 2, 3, 4) if "heads" in network else (4,),
    )


def counted(network: dict[str, Any]) -> list[CountedExit]:
    """Every exit of a network, counted on a network without weights."""
    import torch

    from convnext_study.studies.anytime.network import AnytimeNet

    with torch.device("meta"):
        net = AnytimeNet(spec_of(network), num_classes=CLASSES if "macs" in network else JOINTS)
    image = (3, *network["input"])
    exits = net.exit_costs(image)
    counts = {
        "macs": [cost.macs for cost in exits],
        "params_to_exit": [cost.params for cost in exits],
        "head_macs": [
            sum(layer.macs for layer in added if layer.name.startswith("heads."))
            for added in net.layer_costs(image)
        ],
        "head_params": [
            sum(weight.numel() for weight in head.parameters()) for head in net.heads.values()
        ],
    }
    matches = None
    if "macs" in network:
        expected_plain = {"macs": [network["macs"]], "params_to_exit": [network["params"]]}
        expected = network if "heads" in network else expected_plain
        matches = all(values == expected.get(name, values) for name, values in counts.items())
    printed = [_printed(network).get(name, [None] * 4) for name in ("gimac_printed", "miou")]
    rows = zip(net.exits, *counts.values(), *printed, strict=False)
    return [CountedExit(network, matches, *row) for row in rows]


def cost_tables() -> list[Table[Any]]:
    """One table of all exits, with notes on printed figures that differ from the counts."""
    rows = [row for network in counted_networks() for row in counted(network)]
    columns: list[Column[CountedExit]] = [
        Column("network", "network", lambda row: row.network["label"], "text"),
        Column("image", "image", lambda row: "x".join(map(str, row.network["input"])), "text"),
        Column("exit", "exit", lambda row: row.exit, format=count),
        Column("params", "params", lambda row: row.params, format=digits(3), prefixed=True),
        Column("macs", "MACs", lambda row: row.macs, format=digits(4), prefixed=True),
        Column("gimac", "MACs, 1024^3", lambda row: row.gimac, format=digits(2)),
        Column("printed_gflops", "printed", lambda row: row.printed_gflops, format=digits(1)),
        Column("head_params", "head params", lambda row: row.head_params, screen=False),
        Column("head_macs", "head MACs", lambda row: row.head_macs, screen=False),
        Column("as_counted", "", _match_mark, "text"),
        Column("printed_miou", "mIoU %", lambda row: row.printed_miou, format=digits(2)),
        Column("name", "name", lambda row: row.network["name"], "text", screen=False),
        Column(
            "model",
            "model",
            lambda row: f"anytime_{spec_of(row.network).backbone}",
            "text",
            screen=False,
        ),
    ]
    errata = dict.fromkeys(
        f"† {row.network['label']}: {row.erratum}" for row in rows if row.erratum is not None
    )
    return [Table("anytime_cost", TITLE, columns, rows, (*NOTES, *errata))]


def _match_mark(row: CountedExit) -> str:
    mark = {True: "=", False: "not as counted", None: "ours"}[row.as_counted]
    return mark + (" †" if row.erratum else "")


def _printed(network: dict[str, Any]) -> dict[str, Any]:
    rows = (row for row in published()["result"] if row.get("count") == network["name"])
    return next(rows, {})
