"""Which test a comparison takes, and studies where no step does anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convnext_study.errors import UserError
from convnext_study.report.tables.comparison import sentence
from convnext_study.results.compare import Comparison, compare, holm_adjust
from convnext_study.results.statistics.intervals import (
    PooledStd,
    holm,
    paired_difference,
    pool_std,
    pooled_difference,
    unpaired_difference,
)
from convnext_study.results.statistics.paired_samples import seeds_and_images
from convnext_study.results.statistics.samples import sample_sums
from convnext_study.runs.metrics import NETWORK, Cost, Metric, Samples
from convnext_study.runs.records import ModelRef, Record, Result, Run


def made(correct: Any, seed: int = 0, name: str = "child", data: str = "digits") -> Record:
    """A finished run with that correctness; None for a run that is not finished."""
    run = Run(
        study="test",
        name=name,
        model=ModelRef(builder="none:none", args={}),
        recipe={},
        data=data,
        seed=seed,
    )
    result = None
    if correct is not None:
        bits = np.asarray(correct, dtype=bool)
        result = Result(
            metrics={
                "top1": Metric(
                    value=100 * float(bits.mean()), label="top-1", samples=Samples.of_bits(bits)
                )
            },
            primary="top1",
            costs={NETWORK: Cost(macs=1, params=1, activations=1)},
            val_images=bits.size,
            images_per_s=1.0,
            seconds=1.0,
            epochs=1,
        )
    return Record(
        folder=Path("none"),
        run=run,
        manifest={},
        epochs=[],
        events=[],
        result=result,
        status="done" if result else "unfinished",
    )


def counted(right: int, seed: int = 0, images: int = 1000) -> Record:
    """A run with its first ``right`` images right."""
    return made([True] * right + [False] * (images - right), seed)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_seed_is_judged_by_its_images() -> None:
    child, parent = np.ones(40, bool), np.ones(40, bool)
    parent[:7], child[7] = False, False
    found = compare([made(child)], [made(parent)])
    assert found.difference.p == pytest.approx(18 / 256)
    assert found.difference.diff == pytest.approx(15.0)
    assert found.scope == "test images only, not seeds"
    assert "another seed" in found.note
    assert not found.significant
    parent[8:10] = False  # nine to one: p = 22 / 1024
    better = compare([made(child)], [made(parent)])
    assert better.significant
    assert "+20.00 points, 95 % interval" in sentence(better)
    assert "p = 0.021: significant" in sentence(better)


def test_shared_seeds_are_paired() -> None:
    child = [counted(right, seed) for seed, right in enumerate((950, 941, 962))]
    parent = [counted(right, seed) for seed, right in enumerate((930, 920, 941))]
    found = compare(child, [*parent, counted(100, seed=9), made(None, seed=10)])
    steps = paired_difference([95.0, 94.1, 96.2], [93.0, 92.0, 94.1], resolution=0.1)
    assert found.difference == steps
    assert "1 runs whose seed only one" in found.note
    assert "With 3 seeds" in found.note
    assert found.scope == "seeds, on these 1000 test images"
    assert found.new_images is not None
    assert found.new_images.diff == pytest.approx(found.difference.diff)
    assert found.significant


def test_other_seeds_are_not_paired() -> None:
    child = [counted(right, seed) for seed, right in enumerate((950, 941, 962))]
    parent = [counted(right, seed) for seed, right in enumerate((930, 920, 941), start=2)]
    found = compare(child, parent)
    assert found.difference == unpaired_difference(
        [95.0, 94.1, 96.2], [93.0, 92.0, 94.1], resolution=0.1
    )
    assert found.new_images is None


def test_one_run_against_several_takes_the_shared_seed() -> None:
    parent = [counted(900, 0), counted(940, 1)]
    assert compare([counted(950, 1)], parent).difference.diff == pytest.approx(1.0)
    alone = compare([counted(950, 7)], parent)
    assert alone.difference.diff == pytest.approx(5.0)
    assert "seeds 7 and 0" in alone.note


def test_a_pooled_deviation_serves_a_single_seed() -> None:
    std = PooledStd(0.3, 30, "15 rows")
    found = compare([counted(950)], [counted(930)], std=std)
    assert found.difference == pooled_difference([95.0], [93.0], std)
    assert found.significant
    assert "15 rows" in sentence(found)


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("right", [0, 950, 1000])
def test_equal_networks_are_not_told_apart(seeds: int, right: int) -> None:
    runs = [counted(right, seed) for seed in range(seeds)]
    found = holm_adjust({"step": compare(runs, runs)})["step"]
    assert found.difference.diff == 0
    assert found.difference.p == found.p_adjusted == 1
    assert not found.significant
    assert found.difference.interval.low < 0 < found.difference.interval.high
    assert "not significant" in sentence(found)


def test_one_image_more_on_every_seed_is_not_told_apart() -> None:
    """Without spread a plain t test would call it certain."""
    found = compare([counted(951, s) for s in (0, 1, 2)], [counted(950, s) for s in (0, 1, 2)])
    assert found.difference.diff == pytest.approx(0.1)
    assert not found.significant


def test_correct_keeps_all_but_the_corrected_p() -> None:
    one = compare([counted(950)], [counted(940)])
    steps = {"a": one, "b": compare([counted(950)], [counted(950)])}
    found = holm_adjust(steps)
    assert found["a"] == replace(one, p_adjusted=2 * one.difference.p, family=2)
    assert "Holm-adjusted p = " in sentence(found["a"]) and "over 2 comparisons" in sentence(
        found["a"]
    )
    assert holm_adjust({}) == {}


@pytest.mark.parametrize(
    ("child", "parent", "word"),
    [
        ([], [counted(9)], "no finished run"),
        ([made(None)], [counted(9)], "child: no finished run"),
        ([counted(9)], [counted(9, images=999)], "999 test images"),
        ([counted(9)], [made([True] * 1000, data="cifar10")], "cifar10"),
        ([counted(9), counted(8)], [counted(9)], "seed 0 is there twice"),
    ],
)
def test_what_cannot_be_compared(
    child: Sequence[Record], parent: Sequence[Record], word: str
) -> None:
    with pytest.raises(UserError, match=word) as caught:
        compare(child, parent)
    assert "\n" not in str(caught.value)


# Studies where no step does anything

STEPS, ALPHA = 15, 0.05


def flags(comparisons: dict[int, Comparison]) -> bool:
    """Whether a study in which nothing has an effect says that something has."""
    return any(one.significant for one in holm_adjust(comparisons).values())


def allowed(studies: int) -> float:
    """Alpha, and three standard errors of the simulation."""
    return ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / studies)


def test_no_effect_with_one_seed_flags_at_most_alpha() -> None:
    """Sixteen networks that are right on each image with one probability, by themselves."""
    flagged, studies = 0, 240
    for number in range(studies):
        rng = np.random.default_rng(number)
        hard = rng.beta(8, 1, size=300)
        rows = [made(rng.random(300) < hard) for _ in range(STEPS + 1)]
        flagged += flags({n: compare([rows[n + 1]], [rows[n]]) for n in range(STEPS)})
    assert 0 < flagged / studies <= allowed(studies)


def test_no_effect_with_three_seeds_flags_at_most_alpha() -> None:
    """The seed moves each network's accuracy by itself; t tests see the seeds' spread."""
    own, pooled, studies = 0, 0, 120
    for number in range(studies):
        rng = np.random.default_rng(number)
        # Counts of 500 images, with more spread than the images alone give.
        counts = rng.binomial(500, rng.normal(0.95, 0.01, (STEPS + 1, 3)).clip(0, 1))
        rows = [[counted(int(n), s, 500) for s, n in enumerate(row)] for row in counts]
        std = pool_std((counts / 5).tolist(), "all rows")
        steps = [(rows[n + 1], rows[n]) for n in range(STEPS)]
        own += flags({n: compare(*pair) for n, pair in enumerate(steps)})
        pooled += flags({n: compare(*pair, std=std) for n, pair in enumerate(steps)})
    assert 0 < own / studies <= allowed(studies)
    assert 0 < pooled / studies <= allowed(studies)


def test_new_images_test_keeps_its_level_where_the_paired_t_does_not() -> None:
    """No effect over all images and seeds, but one on most samples of images.

    The paired t test speaks of the images it has, and flags those effects; the crossed test does
    not.
    """
    rng = np.random.default_rng(5)
    flags = np.zeros(2)
    for _ in range(400):
        # Each network has images of its own that it mostly gets right or wrong on every seed.
        easy = rng.beta(4, 1, size=(2, 1, 200))
        child, parent = rng.random((2, 4, 200)) < easy
        tops = [[100 * float(row.mean()) for row in rows] for rows in (child, parent)]
        crossed = seeds_and_images(
            sample_sums("bits", child), sample_sums("bits", parent), resolution=0.5
        )
        flags[0] += crossed.p <= ALPHA
        flags[1] += paired_difference(*tops, resolution=0.5).p <= ALPHA
    assert flags[0] / 400 <= allowed(400)
    assert flags[1] / 400 > 0.1
