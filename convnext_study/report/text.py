"""What a study's numbers say, in sentences that a reader can quote."""

from __future__ import annotations

from dataclasses import dataclass

from convnext_study.report.tables import formatting
from convnext_study.report.tables.comparison import difference_in_words, sentence
from convnext_study.results.compare import Comparison, image_tests
from convnext_study.results.load import StudyResults
from convnext_study.results.min_detectable import noise_note
from convnext_study.results.paper import (
    CAVEAT,
    METHOD,
    Agreement,
    Correlation,
    SignAgreement,
    agreement_of_rows,
)
from convnext_study.results.rows import ResultRow, count_seeds
from convnext_study.roadmap.paper import METRIC

SCOPE_ONE_SEED = (
    "It covers the choice of test images only, not seeds: what another seed would change is "
    "not in these intervals and p values."
)
INTERVALS = (
    "Intervals and p are of each comparison alone; only the column Holm p is adjusted for their "
    "number, and it alone decides what is called significant. So an interval may exclude zero "
    "where the step is not significant."
)


@dataclass(frozen=True)
class Summary:
    """Sentences about one study: what it is, what it found, and how far that goes."""

    summary: list[str]
    methods: list[str]
    agreement: list[str]


def summarize_study(study: StudyResults) -> Summary:
    """The study in words."""
    return Summary(_summary(study), _methods(study), _agreement(study))


def _summary(study: StudyResults) -> list[str]:
    done = study.done
    if not done:
        return ["No run is done yet, so there is nothing to compare."]
    lines = [
        f"{len(done)} of {formatting.plural(len(study.rows), 'network')} trained, "
        f"{count_seeds(done)} each. {noise_note(study.rows)}"
    ]
    road = [row for row in study.rows if row.adopted]
    if study.tests.whole:
        lines.append(
            f"From {road[0].label} to {road[-1].label}: "
            f"{difference_in_words(study.tests.whole)} (one comparison, not corrected)."
        )
    if study.tests.plain:
        lines.append(_significant(study, study.tests.plain, "by the test of each row's own runs"))
    if study.tests.one_seed:
        lines.append(_one_seed(study))
    if study.tests.pooled and (std := study.tests.std):
        how = (
            f"with the standard deviation between seeds pooled over rows "
            f"({formatting.number(std.std, study.metric.decimals)} {study.metric.step_unit}, "
            f"{std.df:g} degrees of freedom)"
        )
        lines.append(_significant(study, study.tests.pooled, how))
    gains = [row for row in done if row.gain is not None and row.adopted]
    if len(gains) > 1:
        lines.append(_extremes(study, gains))
    return lines


def _one_seed(study: StudyResults) -> str:
    """What single runs are tested by, and what that says nothing of."""
    methods = image_tests(study.tests.plain.values())
    grouped = any(row.image_groups for row in study.done)
    drawn = "groups of test images, which are not independent" if grouped else "the test images"
    return f"With one seed a pair is tested on {drawn} ({' or '.join(methods)}). {SCOPE_ONE_SEED}"


def _significant(study: StudyResults, tests: dict[str, Comparison], how: str) -> str:
    names = [row.label for row in study.rows if row.name in tests and tests[row.name].significant]
    total = formatting.plural(len(tests), "comparison")
    if not names:
        return f"Of {total}, none is significant {how}, after Holm's correction."
    return (
        f"Of {total}, {len(names)} {'is' if len(names) == 1 else 'are'} significant {how}, after "
        f"Holm's correction: {formatting.listed(names)}."
    )


def _extremes(study: StudyResults, gains: list[ResultRow]) -> str:
    metric = study.metric
    what = "Changes" if metric.higher_is_better else f"Gains (a lower {metric.label} is better)"
    ranked = sorted(gains, key=lambda row: row.gain or 0.0)
    low, high = (
        f"{formatting.difference(row.gain or 0.0, row.metric)} ({row.label}"
        + (", not significant)" if study.tests.significant(row.name) is False else ")")
        for row in (ranked[0], ranked[-1])
    )
    return (
        f"{what} along the road lie between {low} and {high}. Chosen as the extremes of "
        f"{len(gains)}, they would come out smaller if run again."
    )


def _methods(study: StudyResults) -> list[str]:
    tests = study.tests
    if not tests.plain:
        return []
    # What stands behind the comma is of one pair of rows: how many images differ.
    methods = sorted({one.difference.method.partition(",")[0] for one in tests.plain.values()})
    lines = [f"Test of each row's own runs: {'; '.join(methods)}."]
    lines += sorted({one.note for one in tests.plain.values()})
    if tests.pooled:
        one = next(iter(tests.pooled.values()))
        lines.append(f"Pooled test: {one.difference.method}. {one.note}")
    lines.append(INTERVALS)
    return lines


def _agreement(study: StudyResults) -> list[str]:
    """Rank correlation with the paper's table, with its caveat."""
    compared = [row for row in study.done if row.metric.name == METRIC]
    if not study.is_road or study.regime is None or len(compared) < 3:
        return []
    found = agreement_of_rows(study.regime, compared)
    beyond = "gain beyond what MACs buy on the road"
    lines = [
        *_correlated(found, f"the order of the rows by {study.metric.label}", found.rows),
        *_correlated(found, "the order of the steps by gain", found.gains),
        *_same_signs(found, "gain", found.signs),
        *_correlated(found, f"the order of the steps by {beyond}", found.trades),
        *_same_signs(found, beyond, found.trade_signs),
    ]
    return [*lines, f"{CAVEAT} Method: {METHOD}."] if lines else []


def _same_signs(found: Agreement, what: str, one: SignAgreement | None) -> list[str]:
    if one is None:
        return []
    return [
        f"Of {one.count} steps, {one.equal} have the sign of the paper's {found.table} in {what}: "
        f"{100 * one.equal / one.count:.0f} %, 95 % interval {one.interval.low:.0f} to "
        f"{one.interval.high:.0f} %, where half is chance."
    ]


def _correlated(found: Agreement, what: str, one: Correlation | None) -> list[str]:
    if one is None:
        return []
    between = ""
    if one.interval:
        between = f", 95 % interval {formatting.interval(one.interval)}"
    return [
        f"Agreement with the paper's {found.table} in {what}: Kendall's tau "
        f"{formatting.signed(one.tau)}{between}, {formatting.p_equals(one.p)}, "
        f"over {formatting.plural(one.count, 'pair')}."
    ]


def step_words(study: StudyResults, row: ResultRow) -> list[str]:
    """One row's change, in the words of its tests; empty where it was not tested."""
    lines = [f"{remark[0].upper()}{remark[1:]}." for remark in row.remarks]
    for tests in (study.tests.plain, study.tests.pooled):
        if row.name in tests:
            lines.append(f"{sentence(tests[row.name])}.")
    wide = study.tests.plain[row.name].new_images if row.name in study.tests.plain else None
    if wide:
        between = formatting.interval(wide.interval, row.metric.decimals)
        lines.append(
            f"If the test images vary as well: {formatting.difference(wide.diff, row.metric)}, "
            f"{between}, {formatting.p_equals(wide.p)} ({wide.method})."
        )
    return lines
