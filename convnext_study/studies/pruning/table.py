"""The study's tables: every arm with its accuracy, size and computation; every statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import (
    digits,
    mean_std,
    p_value,
    signed,
    significant_digits,
)
from convnext_study.results.title import IMAGENET_IMAGES, short_data
from convnext_study.studies.pruning.arm_names import DENSE, LABELS
from convnext_study.studies.pruning.claims import MARGIN, Statement
from convnext_study.studies.pruning.latency import NOTE, Latency
from convnext_study.studies.pruning.published import networks, results
from convnext_study.studies.pruning.rows import Row

_WIDE = 150  # characters of a terminal that has room for every column


@dataclass(frozen=True)
class Line:
    """An arm's row, with the time that its network takes."""

    row: Row
    latency: Latency | None

    @property
    def paper(self) -> str:
        """The paper's accuracy of this arm of a published network, where a source states it."""
        network = self.row.run.metadata["published_network"]
        dense = self.row.arm == DENSE
        for result in _stated(network, dense=dense) if network else ():
            stated = result.get("unpruned" if dense else self.row.arm)
            if isinstance(stated, dict) and self._is_on(result["data"]):
                mean = stated["mean"] if "mean" in stated else stated["top1"]
                return mean_std(mean, stated.get("std"))
        return ""

    def _is_on(self, data: str) -> bool:
        """Whether the runs are on the published data."""
        if data == "imagenet":
            return self.row.first.val_images == IMAGENET_IMAGES
        return self.row.run.data.partition(":")[0] == data


def _stated(network: str, *, dense: bool) -> list[dict[str, Any]]:
    """What the paper prints of a network; of a whole one, beside those pruned from it."""
    names = [one.name for one in networks().values() if one.of == network] if dense else [network]
    return [result for name in names for result in results(name)]


def arms_table(rows: Mapping[str, Row], latencies: Mapping[str, Latency]) -> Table[Line]:
    """Every arm, in the study's order."""
    lines = [Line(row, latencies.get(name)) for name, row in rows.items()]
    first = lines[0].row
    several = len({row.network for row in rows.values()}) > 1
    columns: list[Column[Line]] = [
        Column("name", "name", lambda line: line.row.name, "text", screen=False),
        Column(
            "network",
            "network",
            lambda line: _about(line.row, "network_label"),
            "text",
            cell=lambda line: _new(lines, line, "network_label") if several else "",
        ),
        Column("target", "pruned", lambda line: _about(line.row, "target_label"), "text"),
        Column("arm", "arm", lambda line: LABELS[line.row.arm], "text"),
        Column(
            "mean",
            first.first.metric.heading,
            lambda line: line.row.mean,
            cell=lambda line: mean_std(line.row.mean, line.row.std),
        ),
        Column("std", "std", lambda line: line.row.std, screen=False),
        Column("n", "seeds", lambda line: len(line.row.values), format=str),
        Column("epochs", "epochs", lambda line: line.row.first.epochs, format=str),
        Column("params", "params, k", lambda line: line.row.params / 1e3, format=digits(1)),
        Column("macs", "MACs", lambda line: line.row.macs, prefixed=True),
        Column(
            "latency",
            "latency, ms",
            lambda line: line.latency and line.latency.median,
            format=digits(3),
        ),
        Column(
            "latency_range",
            "extremes, ms",
            lambda line: line.latency and (line.latency.low, line.latency.high),
            "interval",
            format=lambda ends: f"{ends[0]:.3f} to {ends[1]:.3f}",
            min_width=_WIDE,
        ),
        Column("flops", "FLOPs", lambda line: line.row.flops, format=significant_digits),
        Column(
            "flops_in_all",
            "with parents",
            lambda line: line.row.flops_in_all,
            format=significant_digits,
        ),
        Column(
            "budget",
            "of dense",
            lambda line: line.row.flops / _dense_of(rows, line.row),
            format=digits(2),
        ),
        Column("paper", "paper's, %", lambda line: line.paper, "text"),
    ]
    notes = (
        "FLOPs: of one seed's training, 3 x forward MACs x 2 x images x epochs; with parents: also "
        "those of the networks that it starts from; of dense: this arm's alone over the large "
        "network's. Params of masked networks (magnitude, soft filters) are those left; they "
        "compute all.",
        "Scratch-B is as long as the authors' rule says: int(epochs x budget of the large network "
        "over that of the pruned one), by their count of FLOPs. Scratch-T adds the whole schedule.",
        NOTE,
        *(
            ["paper's: as its sources print it, on their data, not measured here."]
            if any(line.paper for line in lines)
            else []
        ),
    )
    published = any(line.row.run.metadata["published_network"] for line in lines)
    what = "several networks" if several else _about(first, "network_label")
    whose = "" if published else "; networks and schedules reduced, ours"
    title = f"Pruning against training from scratch: {what}, {short_data(first.run.data)}{whose}"
    return Table("pruning", title, columns, lines, notes)


def statements_table(found: Sequence[Statement], noise: Sequence[str]) -> Table[Statement]:
    """A row for each pair of arms."""
    networks_of = [_about(one.first, "network_label") for one in found]
    columns: list[Column[Statement]] = [
        Column("question", "question", lambda one: one.question, "text", screen=False),
        Column(
            "network",
            "network",
            lambda one: _about(one.first, "network_label"),
            "text",
            screen=len(set(networks_of)) > 1,
        ),
        Column("first", "arm", lambda one: one.first.label, "text"),
        Column("second", "minus", lambda one: _other(one), "text"),
        Column("diff", "points", lambda one: one.comparison.difference.diff, format=signed),
        Column("ci", "95 % interval", lambda one: one.comparison.difference.interval, "interval"),
        Column(
            "p_adjusted", "differ, Holm p", lambda one: one.comparison.p_adjusted, format=p_value
        ),
        Column("p_equivalent", "alike, Holm p", lambda one: one.p_equivalent, format=p_value),
        Column(
            "verdict",
            "verdict",
            lambda one: one.verdict,
            "text",
            tone=lambda one: "faint" if one.verdict == "open" else "strong",
        ),
        Column("p", "p", lambda one: one.comparison.difference.p, format=p_value, screen=False),
    ]
    notes = (
        f"alike: two one-sided tests (TOST) that the difference is {MARGIN:g} point or more; the "
        "margin was set before any run. Both p are Holm's over the "
        f"{len(found)} statements; intervals are of each alone. open: neither is shown.",
        *noise,
    )
    return Table(
        "pruning_statements", "Which arms differ, and which are alike", columns, found, notes
    )


def _about(row: Row, name: str) -> str:
    return str(row.run.metadata[name])


def _new(lines: Sequence[Line], line: Line, name: str) -> str:
    """What tells a row from the one before it."""
    place = lines.index(line)
    said = _about(line.row, name)
    return "" if place and _about(lines[place - 1].row, name) == said else said


def _other(one: Statement) -> str:
    """The second row; of the same target only its arm."""
    same = one.first.target == one.second.target
    return LABELS[one.second.arm] if same else one.second.label


def _dense_of(rows: Mapping[str, Row], row: Row) -> float:
    dense: Any = next(
        (one for one in rows.values() if one.network == row.network and one.arm == DENSE), row
    )
    return float(dense.flops) or 1.0
