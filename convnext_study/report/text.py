"""A study's results in sentences that a reader can quote."""

from __future__ import annotations

from convnext_study.report.tables import formatting
from convnext_study.report.tables.comparison import difference_in_words, sentence
from convnext_study.results.effects import FEW_GROUPS, detectable_note
from convnext_study.results.load import StudyResults
from convnext_study.results.rows import ResultRow, count_seeds, short_data

METHODS = (
    "Welch's t test on seeds, two-sided, with Holm's correction over all rows of the table. Only "
    "the column Holm p decides what is significant, here and in every figure, table and file. "
    "Intervals and p are for single comparisons, so an interval may exclude zero where a step is "
    "not significant. Test images are the same in all runs and taken as fixed."
)
ONE_SEED = (
    "Where a row or the one before it has one seed, nothing is tested and nothing is called "
    "significant. Intervals are for another choice of test images; what another seed would change "
    "is not in them."
)
POOLED = (
    "A second analysis, which decides nothing: the same differences with one standard deviation "
    "between seeds for all rows. It finds more, and is wrong more often if rows have unequal "
    "deviations: in simulations with three seeds per row in which no step has an effect, at "
    "least one of 16 steps comes out as significant in 4 % of studies if all deviations are "
    "equal, in 8 % if they vary by 30 %, and in 17 % with one row four times as noisy (with "
    "Welch's test in 2 to 3 %)."
)


def summary(study: StudyResults) -> list[str]:
    """A one-minute summary: what was run, what came out, how certain it is."""
    done = study.done
    if not done:
        return ["No run is finished yet, so there is nothing to compare."]
    lines = [
        f"{len(done)} of {formatting.plural(len(study.rows), 'network')} trained on "
        f"{short_data(study.meta.data)}, {count_seeds(done)} each."
    ]
    road = [row for row in done if row.adopted]
    if study.is_road and len(road) > 1:
        first, last = road[0], road[-1]
        ends = f"From {first.label} to {last.label}"
        if study.tests.whole and study.tests.whole.significant is not None:
            whole = difference_in_words(study.tests.whole)
            lines.append(f"{ends}: {whole} (one comparison, not corrected).")
        elif all(row.gain is not None for row in road[1:]):
            change = (last.value or 0.0) - (first.value or 0.0)
            lines.append(f"{ends}: {formatting.difference(change, last.metric)}.")
    if tested := study.tests.tested:
        winners = [row for row in study.rows if row.significant]
        total = formatting.plural(len(tested), "comparison")
        if winners:
            changes = {row.name: tested[row.name].difference.diff for row in winners}
            named = [
                f"{row.label} ({formatting.difference(changes[row.name], row.metric)})"
                for row in sorted(winners, key=lambda row: -abs(changes[row.name]))
            ]
            lines.append(
                f"Of {total}, {len(winners)} {'is' if len(winners) == 1 else 'are'} significant: "
                f"{formatting.listed(named)}."
            )
        else:
            lines.append(f"Of {total}, none is significant.")
    return [*lines, detectable_note(study.rows)]


def methods(study: StudyResults) -> list[str]:
    """How the rows were tested."""
    tests = study.tests
    if not tests.primary:
        return []
    lines = [METHODS] if tests.tested else []
    untested = {name: test for name, test in tests.primary.items() if name not in tests.tested}
    if untested:
        # The text after the comma is specific to a pair of rows: how many images differ.
        ways = sorted({test.difference.method.partition(",")[0] for test in untested.values()})
        lines.append(f"{ONE_SEED} ({formatting.listed(ways)}.)")
    return lines


def pooled(study: StudyResults) -> list[str]:
    """The second test, whose standard deviation is pooled; empty where there is none."""
    tests = study.tests
    if not tests.pooled or tests.std is None:
        return []
    std = (
        f"The standard deviation between seeds, pooled over {tests.std.source}, is "
        f"{formatting.number(tests.std.std, study.metric.decimals)} {study.metric.step_unit} "
        f"({tests.std.df:g} degrees of freedom)."
    )
    homogeneity = "Two seeds per row cannot show whether rows have equal deviations."
    if tests.homogeneity is not None:
        verdict = "is not shown to differ" if tests.homogeneity > 0.05 else "differs"
        homogeneity = (
            f"It {verdict} between rows (Levene's test about medians, "
            f"{formatting.p_equals(tests.homogeneity)}), which few seeds can hardly show."
        )
    return [POOLED, f"{std} {homogeneity}"]


def step_words(study: StudyResults, row: ResultRow) -> list[str]:
    """The test of one row's change, in words; empty where it was not compared."""
    lines = [f"{remark[0].upper()}{remark[1:]}." for remark in row.remarks]
    test = study.tests.primary.get(row.name)
    if test is None:
        return lines
    lines.append(f"{sentence(test)}.")
    if new := test.new_images:
        ends = formatting.interval(new.interval, row.metric.decimals)
        rough = (
            "; with so few groups, it is rough"
            if (row.image_groups or FEW_GROUPS) < FEW_GROUPS
            else ""
        )
        lines.append(
            f"If the test images vary as well: {formatting.difference(new.diff, row.metric)}, "
            f"{ends} ({new.method}{rough})."
        )
    return lines
