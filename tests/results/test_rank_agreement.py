"""Agreement with the paper's tables, against scipy's correlations and known cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from convnext_study.results.paper import (
    Agreement,
    agreement,
    kendall,
    partial_correlation,
    pearson,
    ranks,
)
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import PAPER

TOP1 = {name: row.top1 for name, row in PAPER["t"].items()}
FLOPS = {name: row.gflops for name, row in PAPER["t"].items()}
NAMES = [row.name for row in get_roadmap("nano").variants()]


def values(found: Agreement) -> dict[str, float]:
    return {one.what: one.value for one in found.statistics}


def test_correlations_are_scipys_on_every_line() -> None:
    draw = np.random.default_rng(0)
    many, one = draw.integers(0, 6, (5, 12)).astype(float), draw.integers(0, 6, 12).astype(float)
    for place, line in enumerate(many):
        assert pearson(many, one)[place] == pytest.approx(stats.pearsonr(line, one).statistic)
        assert kendall(many, one)[place] == pytest.approx(stats.kendalltau(line, one).statistic)
        ranked = pearson(ranks(many), ranks(one[None])[0])[place]
        assert ranked == pytest.approx(stats.spearmanr(line, one).statistic)
    assert kendall(np.ones((1, 12)), one) == pearson(np.ones((1, 12)), one) == 0


def test_a_partial_correlation_is_that_of_residuals() -> None:
    draw = np.random.default_rng(1)
    x, y, given = draw.normal(size=(3, 20))
    rest = [one - np.polyval(np.polyfit(given, one, 1), given) for one in (x, y)]
    found = partial_correlation(x[None], y, given)
    assert found[0] == pytest.approx(stats.pearsonr(*rest).statistic)
    # What is all a function of the third says nothing beyond it.
    assert partial_correlation(3 * given[None], y, given)[0] == 0


def test_the_paper_agrees_with_itself() -> None:
    found = agreement("t", TOP1, FLOPS)
    assert found.table == "Table 10"
    assert [*values(found).values()] == pytest.approx([1.0] * 5)
    assert (found.signs, found.plus, found.gains) == (13, 11, 13)
    by_what = {one.what: one for one in found.statistics}
    assert by_what["rows by accuracy, Kendall"].count == 14
    assert by_what["steps by gain, Pearson"].count == 13
    assert all(one.p < 0.001 for one in found.statistics)
    assert by_what["steps by gain given log MACs, Pearson"].macs_alone is None


def test_the_two_tables_of_the_paper_agree_in_part() -> None:
    measured = dict(zip(NAMES, (row.top1 for row in PAPER["b"].values()), strict=True))
    macs = dict(zip(NAMES, (row.gflops for row in PAPER["b"].values()), strict=True))
    found = agreement("nano", measured, macs)
    for one in found.statistics:
        assert 0.7 < one.value < 1 and one.p < 0.01
        assert one.value == pytest.approx(one.other_table)
        assert one.value <= one.replicate < 1


def test_p_is_that_of_permuted_rows() -> None:
    """Of five rows there are 120 orders, one of which agrees fully."""
    names = [row.name for row in get_roadmap("t").variants() if row.adopted][-5:]
    found = agreement("t", {name: TOP1[name] for name in names}, FLOPS)
    rows = found.statistics[0]
    assert (rows.value, rows.count) == (1, 5)
    assert rows.p == pytest.approx(1 / 120, rel=0.25)


def test_agreement_of_few_or_equal_rows_is_unknown() -> None:
    two = {"stage_ratio": 97.0, "patchify_stem": 96.0, "elsewhere": 1.0}
    assert agreement("nano", two, dict.fromkeys(two, 1.0)) == Agreement("Table 10")
    same = dict.fromkeys(NAMES, 97.0)
    assert not agreement("nano", same, same).statistics


def test_a_gain_needs_both_of_its_rows() -> None:
    without = {name: value for name, value in TOP1.items() if name != "move_up_depthwise"}
    counts = {one.what: one.count for one in agreement("t", without, FLOPS).statistics}
    assert counts["rows by accuracy, Kendall"] == 13
    assert counts["steps by gain, Spearman"] == 11  # its own, and the 7x7 kernel's
