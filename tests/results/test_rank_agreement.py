"""Rank correlation with the paper, against hand-worked numbers."""

from __future__ import annotations

import math

import pytest

from convnext_study.errors import UserError
from convnext_study.results.paper import agreement, beyond_cost, kendall
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import PAPER


def test_kendall_by_hand() -> None:
    # Of ten pairs, three stand in the other order: (3, 1), (3, 2), (5, 4).
    found = kendall([1, 2, 3, 4, 5], [3, 1, 2, 5, 4])
    assert found.tau == pytest.approx(0.4)
    # 29 of the 120 orders of five have at most three inversions.
    assert found.p == pytest.approx(2 * 29 / 120)
    assert found.interval is None
    # With ties, tau-b: 1 pair agrees, 5 do not; 8 and 9 of 10 pairs are untied.
    tied = kendall([12, 2, 1, 12, 2], [1, 4, 7, 1, 0])
    assert tied.tau == pytest.approx((2 - 6) / math.sqrt(8 * 9))


def test_kendall_interval_of_fieller() -> None:
    order = [1, 2, 3, 4, 8, 7, 6, 5, 9]  # six of 36 pairs turned: tau 24 / 36
    found = kendall(range(9), order)
    assert found.tau == pytest.approx(2 / 3)
    half = 1.959964 * math.sqrt(0.437 / 5)
    z = 0.5 * math.log(5)  # atanh(2 / 3)
    assert found.interval == pytest.approx((math.tanh(z - half), math.tanh(z + half)), abs=1e-5)


def test_kendall_interval_of_full_agreement_has_width() -> None:
    up, down = kendall(range(17), range(17)), kendall(range(17), range(17, 0, -1))
    assert (up.tau, down.tau) == pytest.approx((1, -1))
    assert up.interval is not None and down.interval is not None
    assert 0.9 < up.interval.low < 0.999
    assert up.interval.high == up.tau
    assert down.interval == pytest.approx((-up.interval.high, -up.interval.low))


def test_kendall_takes_differences_of_printed_numbers_for_ties() -> None:
    # 80.57 - 79.92 is not 80.72 - 80.07 in binary: both are 0.65.
    assert 80.57 - 79.92 != 80.72 - 80.07
    found = kendall([80.57 - 79.92, 80.72 - 80.07, 1.0], [1.0, 2.0, 3.0])
    assert found.tau == pytest.approx(2 / math.sqrt(2 * 3))


def test_what_a_network_gives_beyond_its_cost_by_hand() -> None:
    # The line of least squares through (0, 10), (1, 13), (2, 13), (3, 16) rises by 1.8.
    found = beyond_cost({"a": 10, "b": 13, "c": 13, "d": 16}, {"a": 1, "b": 2, "c": 4, "d": 8})
    assert found == pytest.approx({"a": 12.7, "b": 13.9, "c": 12.1, "d": 13.3})
    assert beyond_cost({"a": 10, "b": 12}, {"a": 3, "b": 3}) == {"a": 10, "b": 12}


def test_signs_are_counted_where_there_are_any() -> None:
    paper = {name: row.top1 for name, row in PAPER["t"].items()}
    turned = {name: -value for name, value in paper.items()}
    macs = {name: row.gflops for name, row in PAPER["t"].items()}
    same, other = agreement("t", paper, macs=macs), agreement("t", turned, macs=macs)
    assert same.signs is not None and other.signs is not None
    assert same.trade_signs is not None and other.trade_signs is not None
    assert same.signs.equal == same.signs.count == other.signs.count <= 16
    assert (other.signs.equal, other.trade_signs.equal) == (0, 0)
    assert same.trades is not None and same.trades.tau == pytest.approx(1)
    assert same.signs.interval.high == pytest.approx(100)
    assert other.signs.interval.low == pytest.approx(0)


def test_the_paper_agrees_with_itself() -> None:
    top1 = {name: row.top1 for name, row in PAPER["t"].items()}
    found = agreement("t", top1)
    assert found.trades is None and found.trade_signs is None
    assert found.table == "Table 10"
    assert found.rows is not None and found.gains is not None
    assert (found.rows.tau, found.gains.tau) == pytest.approx((1, 1))
    assert (found.rows.count, found.gains.count) == (17, 16)


def test_the_two_tables_of_the_paper_agree_in_part() -> None:
    names = [point.name for point in get_roadmap("nano").variants()]
    measured = dict(zip(names, (row.top1 for row in PAPER["b"].values()), strict=True))
    found = agreement("nano", measured, table="t")
    assert found.rows is not None and found.gains is not None and found.rows.interval is not None
    assert 0.5 < found.rows.tau < 1
    assert found.rows.interval.low < found.rows.tau < found.rows.interval.high
    again = agreement("nano", measured, table="b")
    assert again.rows is not None and again.rows.tau == pytest.approx(1)


def test_agreement_of_few_or_equal_rows_is_unknown() -> None:
    two = agreement("nano", {"stage_ratio": 97.0, "patchify_stem": 96.0, "elsewhere": 1.0})
    assert (two.rows, two.gains) == (None, None)
    names = [point.name for point in get_roadmap("nano").variants()]
    assert agreement("nano", dict.fromkeys(names, 97.0)).rows is None
    with pytest.raises(UserError, match="no such table"):
        agreement("nano", {}, table="swin")


def test_a_gain_needs_both_of_its_rows() -> None:
    top1 = {name: row.top1 for name, row in PAPER["t"].items() if name != "move_up_depthwise"}
    found = agreement("t", top1)
    assert found.rows is not None and found.gains is not None
    # Its own gain is missing, and those of the four kernel sizes that are compared with it.
    assert (found.rows.count, found.gains.count) == (16, 11)
