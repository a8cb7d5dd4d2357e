"""The study's findings: tables, the figure, and the claims in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from convnext_study.benchmarks.timing import Spread
from convnext_study.report.findings import Finding, StudyFigure
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import (
    digits,
    level_interval,
    mean_std,
    p_value,
    percent,
    significant_digits,
)
from convnext_study.results.rows import IMAGENET_IMAGES, short_data
from convnext_study.runs.records import Record
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.claims import (
    MARGIN,
    Test,
    contrast_columns,
    mean_column,
    statements,
    two_factor_tables,
)
from convnext_study.studies.pruning.costs import LATENCY_NOTE, measure_latency
from convnext_study.studies.pruning.figures import TITLE, pareto
from convnext_study.studies.pruning.published import networks, results
from convnext_study.studies.pruning.rows import Row, rows_of

_WIDE = 150  # characters of a terminal that has room for every column
HALF = "half"  # the target that every network has
# Of the halves of each network: differences, and their headings.
HALF_CONTRASTS = (
    (of.INHERITED, of.DENSE, "inherited, - dense"),
    (of.SCRATCH_B, of.DENSE, "Scratch-B, - dense"),
    (of.INHERITED, of.SCRATCH_E, "inherited, - Scratch-E"),
    (of.INHERITED, of.SCRATCH_T, "inherited, - Scratch-T"),
)


def findings(records: Iterable[Record]) -> list[Finding]:
    """The study's findings from its finished runs; empty without any. Measures latency."""
    rows = rows_of(records)
    if not rows:
        return []
    latencies = measure_latency(rows)
    parts: list[Finding] = [arms_table(rows, latencies)]
    tests = statements(rows)
    if tests:
        parts += [statements_table(tests), "\n".join(_in_words(tests))]
    parts += [*per_network_table(tests), *two_factor_tables(tests)]
    parts.append(StudyFigure("pruning_pareto", TITLE, pareto(rows, latencies)))
    return parts


def arms_table(rows: Mapping[str, Row], latencies: Mapping[str, Spread]) -> Table[Row]:
    """Every arm, in the study's order."""
    arms = list(rows.values())
    dense = {row.network: row.flops for row in arms if row.arm == of.DENSE}
    labels = {row.network: row.about("network_label") for row in arms}
    several = len(labels) > 1
    columns: list[Column[Row]] = [
        Column("name", "name", lambda row: row.name, "text", screen=False),
        Column("network", "network", lambda row: labels[row.network], "text", screen=several),
        Column("target", "pruned", lambda row: row.about("target_label"), "text"),
        Column("arm", "arm", lambda row: of.LABELS[row.arm], "text"),
        mean_column("mean", arms[0].result.metric.heading, lambda row: row),
        Column("std", "std", lambda row: row.std, screen=False),
        Column("n", "seeds", lambda row: len(row.values), format=str),
        Column("epochs", "epochs", lambda row: row.result.epochs, format=str),
        Column("params", "params, k", lambda row: row.params / 1e3, format=digits(1)),
        Column("macs", "MACs", lambda row: row.macs, prefixed=True),
        Column("latency", "latency, ms", lambda row: latencies[row.name].median, format=digits(3)),
        Column(
            "latency_range",
            "extremes, ms",
            lambda row: (latencies[row.name].low, latencies[row.name].high),
            "interval",
            partial(level_interval, digits=3),
            min_width=_WIDE,
        ),
        Column("flops", "FLOPs", lambda row: row.flops, format=significant_digits),
        Column(
            "flops_in_all", "with parents", lambda row: row.flops_in_all, format=significant_digits
        ),
        Column(
            "budget",
            "of dense",
            lambda row: row.flops / whole if (whole := dense.get(row.network)) else None,
            format=digits(2),
        ),
        Column("paper", "paper's, %", _paper, "text"),
    ]
    paper = "paper's: as printed in its sources, on their data, not measured here."
    notes = (
        "FLOPs: training of one seed, 3 x forward MACs x 2 x images x epochs; with parents: "
        "including the networks that it starts from; of dense: this arm alone relative to the "
        "large network. Params of masked networks (magnitude, soft filters) are the remaining "
        "ones; they compute all.",
        "The length of Scratch-B follows the authors' rule: int(epochs x budget of the large "
        "network over that of the pruned one), by their count of FLOPs. Scratch-T adds the whole "
        "schedule.",
        LATENCY_NOTE,
        *([paper] if any(map(_paper, arms)) else []),
    )
    published = any(row.about("published_network") for row in arms)
    what = "several networks" if several else labels[arms[0].network]
    whose = "" if published else "; networks and schedules reduced, ours"
    title = f"Pruning against training from scratch: {what}, {short_data(arms[0].run.data)}{whose}"
    return Table("pruning", title, columns, arms, notes)


def _paper(row: Row) -> str:
    """The paper's accuracy of this arm of a published network, if a source states it."""
    network, dense = row.about("published_network"), row.arm == of.DENSE
    # The paper prints that of an unpruned network with those pruned from it.
    names = [net.name for net in networks().values() if net.of == network] if dense else [network]
    for result in (result for name in names if network for result in results(name)):
        stated, data = result.get("unpruned" if dense else row.arm), result["data"]
        same = row.run.data.partition(":")[0] == data
        if data == "imagenet":
            same = row.result.val_images == IMAGENET_IMAGES
        if isinstance(stated, dict) and same and result["of_paper"]:
            mean = stated["mean"] if "mean" in stated else stated["top1"]
            return mean_std(mean, stated.get("std"))
    return ""


def statements_table(tests: Sequence[Test]) -> Table[Test]:
    """A row for each pair of arms."""
    labels = {test.first.network: test.first.about("network_label") for test in tests}
    columns: list[Column[Test]] = [
        Column("question", "question", lambda test: test.question, "text", screen=False),
        Column(
            "network",
            "network",
            lambda test: labels[test.first.network],
            "text",
            screen=len(labels) > 1,
        ),
        Column("first", "arm", lambda test: test.first.about("label"), "text"),
        Column("second", "minus", _second, "text"),
        *contrast_columns("diff", "points", lambda test: test),
        Column(
            "p_adjusted", "differ, Holm p", lambda test: test.comparison.p_adjusted, format=p_value
        ),
        Column("p_equivalent", "alike, Holm p", lambda test: test.p_equivalent, format=p_value),
        Column(
            "verdict",
            "verdict",
            lambda test: test.verdict,
            "text",
            tone=lambda test: "faint" if test.verdict == "open" else "strong",
        ),
        Column("p", "p", lambda test: test.comparison.difference.p, format=p_value, screen=False),
    ]
    several = any(test.comparison.significant is not None for test in tests)
    notes = (
        f"alike: two one-sided tests (TOST) against a difference of {MARGIN:g} point or more, a "
        f"margin set before any run. Both p are adjusted by Holm's method over the {len(tests)} "
        "tests; intervals are for single tests. open: neither is shown.",
        "differ: Welch's t test on seeds."
        if several
        else ("One seed: intervals cover only the choice of test images, and nothing is tested."),
    )
    title = "Which arms differ, and which are alike"
    return Table("pruning_statements", title, columns, tests, notes)


def _second(test: Test) -> str:
    """The second row's label; within one target only the arm's."""
    same = test.first.target == test.second.target
    return of.LABELS[test.second.arm] if same else test.second.about("label")


def _in_words(tests: Sequence[Test]) -> list[str]:
    """A line per question, with every pair's difference and verdict."""
    lines = []
    several = len({test.first.network for test in tests}) > 1
    for question in dict.fromkeys(test.question for test in tests):
        parts = []
        for test in (test for test in tests if test.question == question):
            network = f"{test.first.about('network_label')}, " if several else ""
            diff = f"{test.comparison.difference.diff:+.2f} ({test.verdict})"
            parts.append(f"{network}{test.first.about('target_label')}: {diff}")
        lines.append(f"{question}: {'; '.join(parts)}.")
    return lines


def per_network_table(tests: Sequence[Test]) -> list[Table[Test]]:
    """Which network prunes best: what half of its channels costs each network.

    One row per network whose half was trained; no table for fewer than two.
    """
    own = {
        (test.first.network, test.first.arm, test.second.arm): test
        for test in tests
        if test.first.target == HALF and test.second.target in (HALF, "")
    }
    halved = [test for (_, *arms), test in own.items() if arms == [of.INHERITED, of.DENSE]]
    if len(halved) < 2:
        return []

    def test_of(first: str, second: str) -> Callable[[Test], Test | None]:
        return lambda test: own.get((test.first.network, first, second))

    metric = halved[0].second.result.metric.heading
    columns: list[Column[Test]] = [
        Column("network", "network", lambda test: test.second.about("network_label"), "text"),
        mean_column("dense", f"dense, {metric}", lambda test: test.second),
        Column("macs", "MACs", lambda test: test.second.macs, prefixed=True),
        Column(
            "macs_left", "left", lambda test: test.first.macs / test.second.macs, format=percent
        ),
        *(
            column
            for first, second, heading in HALF_CONTRASTS
            for column in contrast_columns(
                f"{first}_{second}", heading, test_of(first, second), min_width=_WIDE
            )
        ),
    ]
    notes = (
        "Half of each prunable layer, by the L1-norm. inherited: the remaining weights, with the "
        "whole schedule; Scratch-E is as long as that, Scratch-T as long as the whole pipeline. "
        "Points; intervals and tests are those of the table of tests, which defines the family; "
        "strong: different, or within the margin, after Holm's correction.",
    )
    return [Table("pruning_networks", "Which network prunes best", columns, halved, notes)]
