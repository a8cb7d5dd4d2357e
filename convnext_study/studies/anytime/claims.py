"""The paper's claims about accuracy, and our controls, as tests between arms."""

from __future__ import annotations

from statistics import fmean
from typing import NamedTuple, TypeAlias

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.comparison import comparison_columns
from convnext_study.report.tables.formatting import signed
from convnext_study.results.claims import Pair, PairTest, compare_pairs
from convnext_study.results.compare import Comparison
from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.statistics.intervals import PooledStd, pool_std
from convnext_study.results.subset_results import results_of
from convnext_study.studies.anytime.exit_metrics import Arms, at_exit, exits_of, with_primary

MEAN, LAST = 0, -1  # in the place of an exit: the mean over all, and the last of each arm
WHERE = {MEAN: "mean", LAST: "last"}


class ArmExit(NamedTuple):
    """An arm at an exit, from 1, or at `MEAN` or `LAST`."""

    arm: str
    exit: int

    @property
    def where(self) -> str:
        """The exit for tables."""
        return WHERE.get(self.exit, str(self.exit))


Test: TypeAlias = PairTest[ArmExit]


class Claim(NamedTuple):
    """What one arm should gain over another, or a control, at each of some exits."""

    words: str
    child: str
    parent: str
    exits: tuple[int, ...] = (LAST,)


_ALL = (MEAN, 1, 2, 3, 4)
CLAIMS = (
    Claim("1: RH over EE", "rh", "ee", _ALL),
    Claim("2: CA over RH (no loss)", "ca", "rh", _ALL),
    Claim("3: CA over one exit", "ca", "plain"),
    Claim("4: CA over random masks", "ca", "random", _ALL),
    Claim("EE over one exit", "ee", "plain"),
    Claim("deep supervision over one exit", "deep", "plain"),
    Claim("EE over deep supervision", "ee", "deep"),
)


def claims_table(arms: Arms, end: str = "") -> Table[Test] | None:
    """The claims that the runs allow to test, corrected for their number by Holm's method."""
    pairs = [
        Pair(
            ArmExit(claim.child, exit),
            ArmExit(claim.parent, exit),
            claim.words,
            seeds_std(arms, exit),
        )
        for claim in CLAIMS
        if claim.child in arms and claim.parent in arms
        for exit in claim.exits
        if exit <= min(exits_of(arms[claim.child]), exits_of(arms[claim.parent]))
    ]
    if not pairs:
        return None
    tests = compare_pairs(pairs, lambda at: with_primary(arms[at.arm], at.exit))
    std = seeds_std(arms, LAST)
    noise = (
        "One seed: tests (permutation of images) and intervals (bootstrap over images) cover the "
        "choice of test images only; claims about networks take several seeds."
        if std is None
        else "t tests with the deviation between seeds pooled over the arms, for each exit alone "
        f"(last exit: {std.std:.2f} points, {std.df:g} degrees of freedom); 'seeds and images' is "
        "the interval where other test images are drawn too, from the shared seeds alone."
    )
    about = "1 to 4: the paper's claims; CA should lose nothing over RH, and gain over the others. "
    about += f"p after Holm's correction over {len(tests)} tests; intervals of each test alone."
    title = "Claims and controls, on this data"
    columns = _columns(arms, tests[0].comparison.metric)
    return Table(f"anytime_claims{end}", title, columns, tests, notes=(noise, about))


def seeds_std(arms: Arms, exit: int) -> PooledStd | None:
    """The deviation between seeds at one exit, pooled over the arms that have it."""
    values = [
        [result.value for result in results_of(with_primary(records, exit))]
        for records in arms.values()
        if exit == LAST or 1 < exits_of(records) >= exit
    ]
    return pool_std(values, f"{len(values)} arms")


def _columns(arms: Arms, metric: MetricSpec) -> list[Column[Test]]:
    def macs(at: ArmExit) -> float:  # at the masks of the validation images
        records = arms[at.arm]
        name = at_exit("macs", records, at.exit)
        return fmean(result.metrics[name].value for result in results_of(records))

    def comparison(test: Test) -> Comparison:
        return test.comparison

    def name(test: Test) -> str:
        return f"{test.first.arm}-{test.second.arm}-{test.first.where}"

    def both(test: Test) -> tuple[float, float] | None:
        wide = test.comparison.new_images
        return None if wide is None else (wide.interval.low, wide.interval.high)

    def change(test: Test) -> float:
        return macs(test.first) - macs(test.second)

    return [
        Column("name", "name", name, "text", screen=False),
        Column("claim", "claim", lambda test: test.question, "text"),
        Column("exit", "exit", lambda test: test.first.where, "text"),
        *comparison_columns(comparison, metric),
        Column("ci_images", "seeds and images", both, "interval"),
        Column("macs", "MACs, difference", change, format=signed, prefixed=True),
    ]
