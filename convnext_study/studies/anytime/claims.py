"""The paper's claims about accuracy, and our controls, as tests between arms."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.comparison import yes_no
from convnext_study.report.tables.formatting import p_value, signed
from convnext_study.results.compare import Comparison, compare, holm_adjust
from convnext_study.results.statistics.intervals import PooledStd, pool_std
from convnext_study.results.subset_results import results_of
from convnext_study.studies.anytime.evidence import (
    Arms,
    exits_of,
    judged_by,
    macs_metric,
    miou_metric,
)

MEAN = 0  # in the place of an exit: the mean over all


@dataclass(frozen=True)
class Claim:
    """What one arm should gain over another, or a control.

    Args:
        words: what is claimed.
        child: the arm that should be the better one.
        parent: the other.
        exits: from 1, `MEAN` for their mean; -1 for the last of each arm.
    """

    words: str
    child: str
    parent: str
    exits: tuple[int, ...] = (-1,)


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


@dataclass(frozen=True)
class Line:
    """A claim at one exit, tested; MACs are at the masks of the validation images."""

    name: str
    words: str
    where: str
    test: Comparison
    macs: float

    @property
    def interval(self) -> tuple[float, float]:
        """Of this test alone, in points."""
        low, high = self.test.difference.interval
        return low, high

    @property
    def wide_interval(self) -> tuple[float, float] | None:
        """With the choice of test images on top of that of seeds."""
        wide = self.test.new_images
        return None if wide is None else (wide.interval.low, wide.interval.high)


COLUMNS: list[Column[Line]] = [
    Column("name", "name", lambda line: line.name, "text", screen=False),
    Column("claim", "claim", lambda line: line.words, "text"),
    Column("exit", "exit", lambda line: line.where, "text"),
    Column("diff", "mIoU, points", lambda line: line.test.difference.diff, format=signed),
    Column("ci", "95 % interval", lambda line: line.interval, "interval"),
    Column("ci_images", "seeds and images", lambda line: line.wide_interval, "interval"),
    Column("p_adjusted", "Holm p", lambda line: line.test.p_adjusted, format=p_value),
    Column("significant", "significant", lambda line: line.test.significant, "text", yes_no),
    Column("macs", "MACs, difference", lambda line: line.macs, format=signed, prefixed=True),
]


def claims_table(arms: Arms, end: str = "") -> Table[Line] | None:
    """The claims that the runs allow to test, corrected for their number by Holm's method."""
    tests: dict[tuple[Claim, int], Comparison] = {}
    for claim in CLAIMS:
        child, parent = arms.get(claim.child), arms.get(claim.parent)
        if not child or not parent:
            continue
        for exit in claim.exits:
            if exit <= min(exits_of(child), exits_of(parent)):
                std = seeds_std(arms, exit)
                pair = (judged_by(one, miou_metric(one, exit)) for one in (child, parent))
                tests[claim, exit] = compare(*pair, std=std)
    if not tests:
        return None
    lines = [_line(claim, exit, test, arms) for (claim, exit), test in holm_adjust(tests).items()]
    std = seeds_std(arms, -1)
    noise = (
        "One seed: tests (permutation of images) and intervals (bootstrap over images) cover the "
        "choice of test images only; claims about networks take several seeds."
        if std is None
        else "t tests with the deviation between seeds pooled over the arms, for each exit alone "
        f"(last exit: {std.std:.2f} points, {std.df:g} degrees of freedom); 'seeds and images' is "
        "the interval where other test images are drawn too, from the shared seeds alone."
    )
    about = "1 to 4: the paper's claims; CA should lose nothing over RH, and gain over the others. "
    about += f"p after Holm's correction over {len(lines)} tests; intervals of each test alone."
    title = "Claims and controls, on this data"
    return Table(f"anytime_claims{end}", title, COLUMNS, lines, notes=(noise, about))


def seeds_std(arms: Arms, exit: int) -> PooledStd | None:
    """The deviation between seeds at one exit, pooled over the arms that have it."""
    values = [
        [result.value for result in results_of(judged_by(records, miou_metric(records, exit)))]
        for records in arms.values()
        if exit == -1 or 1 < exits_of(records) >= exit
    ]
    return pool_std(values, f"{len(values)} arms")


def _line(claim: Claim, exit: int, test: Comparison, arms: Arms) -> Line:
    where = {MEAN: "mean", -1: "last"}.get(exit, str(exit))
    macs = [
        fmean(result.metrics[macs_metric(records, exit)].value for result in results_of(records))
        for records in (arms[claim.child], arms[claim.parent])
    ]
    name = f"{claim.child}-{claim.parent}-{where}"
    return Line(name, claim.words, where, test, macs[0] - macs[1])
