"""Claims: tests of pairs of arms, and of architecture by initialisation.

Pairs are tested for a difference and for equivalence, both corrected over all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import mean_std, p_equals, percent, signed
from convnext_study.report.tables.table import Tone
from convnext_study.results.claims import Pair, PairTest, compare_pairs
from convnext_study.results.compare import resolution_of
from convnext_study.results.statistics.intervals import two_way
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.rows import Row
from convnext_study.studies.pruning.targets import FROM, GUIDED, HALVES, TRANSFERRED

MARGIN = 1.0  # points: a difference that would matter
# Two arms of one target, and the question that their difference answers.
ARM_CONTRASTS = (
    (of.SCRATCH_B, of.FINE_TUNED, "claim 1: trained from scratch, or pruned and fine-tuned"),
    (of.SCRATCH_E, of.FINE_TUNED, "claim 1, equal epochs"),
    (of.SCRATCH_B, of.SCRATCH_E, "the large network's computation"),
    (of.SCRATCH_B, of.DENSE, "the large network's accuracy, at its computation"),
    (of.INHERITED, of.DENSE, "the same by pruning"),
    (of.INHERITED, of.FINE_TUNED, "the schedule, with inherited weights"),
    (of.INHERITED, of.SCRATCH_E, "the weights, with the whole schedule"),
    (of.INHERITED, of.SCRATCH_T, "the weights, at equal total computation"),
    (of.TICKET, of.CONTROL, "claim 4: the ticket's own start, usual rate"),
    (of.SLOW_TICKET, of.SLOW_CONTROL, "claim 4, a tenth of the rate"),
)
# Two targets of equal MACs or weights, for each arm, and the question that they answer.
TARGET_CONTRASTS = (
    *((name, "half", f"criterion: {label} or L1-norm") for name, label in HALVES.values()),
    ("lamp", "sparse", "criterion: LAMP or magnitude"),
    ("slimming", "half", "claim 3: slimmed widths or uniform ones"),
    ("random_widths", "half", "claim 3: random widths or uniform ones"),
    (GUIDED, "half", "claim 3: guided widths or uniform ones"),
    (GUIDED, "slimming", "claim 3: guided widths or slimmed ones"),
    (TRANSFERRED, "transferred_uniform", "claim 3: transferred widths or uniform ones"),
    ("rounds", "sparse", "tickets in rounds or at once"),
    ("rounds_on", "rounds", "rounds trained on or rewound"),
    ("patterns", "sparse", "guided patterns or magnitude's own"),
)
TARGET_CONTRAST_ARMS = (of.FINE_TUNED, of.INHERITED, of.SCRATCH_E, of.SCRATCH_B, of.TICKET)
ARCHITECTURES = {
    "half": "uniform: half of each layer",
    "slimming": "network slimming's",
    "random_widths": "random widths",
}

Test: TypeAlias = PairTest[Row]


def statements(rows: Mapping[str, Row]) -> list[Test]:
    """Every pair that the runs have, corrected together by Holm's method."""
    pairs = [Pair(*contrast) for contrast in _contrasts(rows.values())]
    return compare_pairs(pairs, lambda row: row.records, MARGIN)


def _contrasts(rows: Iterable[Row]) -> Iterator[tuple[Row, Row, str]]:
    """Pairs of rows, with the question of each."""
    by_arm = {(row.network, row.target, row.arm): row for row in rows}
    targets = dict.fromkeys((network, target) for network, target, _ in by_arm if target)
    for network, target in targets:
        for arm, other_arm, question in ARM_CONTRASTS:
            first = by_arm.get((network, target, arm))
            second = by_arm.get((network, "" if other_arm == of.DENSE else target, other_arm))
            if first and first.is_masked and other_arm == of.FINE_TUNED and not second:
                # For soft filters: the prepared network, whose zeros are the row's masks.
                prepared = first.parent and first.parent.arm == of.SPARSE_DENSE
                second = first.parent if prepared else None
            if first and second:
                # The paper's negative result is about masks on single weights.
                masked = question.replace("claim 1", "claim 2, masks")
                yield first, second, masked if first.is_masked else question
    for network, target in targets:
        for other, question in _target_contrasts(target):
            for arm in TARGET_CONTRAST_ARMS:
                first, second = (
                    by_arm.get((network, target, arm)),
                    by_arm.get((network, other, arm)),
                )
                if first is None or second is None:
                    continue
                # The length of published fine-tuning depends on the method.
                if arm != of.FINE_TUNED or first.result.epochs == second.result.epochs:
                    yield first, second, f"{question}: {of.LABELS[arm]}"


def _target_contrasts(target: str) -> Iterator[tuple[str, str]]:
    """The targets that a target is compared with, also if its shares come from other data, each
    with the question."""
    plain, of_other_data, _ = target.partition(FROM)
    for name, other, question in TARGET_CONTRASTS:
        if name == plain:
            yield other, question
    if of_other_data:
        yield plain, "transfer: shares of other data or of the same"
    kind, _, ratio = plain.partition("_")
    if kind == GUIDED and ratio:
        yield f"slim_{ratio}", "claim 3: guided widths or slimmed ones"


def contrast_columns(
    key: str, heading: str, test_of: Callable[[Any], Test | None], min_width: int = 0
) -> list[Column[Any]]:
    """The difference of a row's test, bold where its verdict is not open, and its 95 % interval."""

    def value(row: Any, name: str) -> Any:
        test = test_of(row)
        return getattr(test.comparison.difference, name) if test else None

    def tone(row: Any) -> Tone:
        test = test_of(row)
        return "strong" if test and test.verdict != "open" else ""

    return [
        Column(key, heading, lambda row: value(row, "diff"), format=signed, tone=tone),
        Column(
            f"{key}_ci",
            "95 % interval",
            lambda row: value(row, "interval"),
            "interval",
            min_width=min_width,
        ),
    ]


def mean_column(key: str, heading: str, row_of: Callable[[Any], Row]) -> Column[Any]:
    """A column of means, on screens with standard deviations."""

    def cell(row: Any) -> str:
        return mean_std(row_of(row).mean, row_of(row).std)

    return Column(key, heading, lambda row: row_of(row).mean, cell=cell)


def two_factor_tables(tests: Sequence[Test]) -> list[Table[Test]]:
    """Architecture by initialisation: a table per network with two architectures or more."""
    crossed: dict[str, list[Test]] = {}
    for target in ARCHITECTURES:
        for test in tests:
            arms = (test.first.target, test.first.arm, test.second.arm)
            if arms == (target, of.INHERITED, of.SCRATCH_E) and test.second.target == target:
                crossed.setdefault(test.first.network, []).append(test)
    return [_two_factor_table(name, own) for name, own in crossed.items() if len(own) > 1]


def _two_factor_table(network: str, tests: list[Test]) -> Table[Test]:
    metric = tests[0].first.result.metric.heading
    columns: list[Column[Test]] = [
        Column(
            "architecture", "architecture", lambda test: ARCHITECTURES[test.first.target], "text"
        ),
        Column("macs", "MACs", lambda test: test.second.macs, prefixed=True),
        mean_column("inherited", f"inherited, {metric}", lambda test: test.first),
        mean_column("random", f"random, {metric}", lambda test: test.second),
        *contrast_columns("diff", "inherited - random", lambda test: test),
    ]
    title = "Architecture by initial weights, equal MACs, the whole schedule"
    notes = (
        "Differences: as in the table of tests. The analysis of variance assumes one standard "
        "deviation for all cells.",
        _variance_in_words(tests),
    )
    title = f"{title}: {tests[0].first.about('network_label')}"
    return Table(f"pruning_two_way_{network}", title, columns, tests, notes)


def _variance_in_words(tests: Sequence[Test]) -> str:
    """The analysis of variance, for cells of equally many seeds, two or more."""
    cells = [[test.first.values, test.second.values] for test in tests]
    if len({len(cell) for row in cells for cell in row}) > 1 or len(cells[0][0]) < 2:
        return "An analysis of variance needs two or more seeds per cell."
    resolution = resolution_of(tests[0].first.result.metric)
    variance = two_way(cells, ("architecture", "initial weights"), resolution=resolution)
    parts = ", ".join(
        f"{factor.name} {percent(factor.share)} ({p_equals(factor.p)})"
        for factor in (variance.rows, variance.columns, variance.interaction)
    )
    return f"Shares of the variation between all runs: {parts}."
