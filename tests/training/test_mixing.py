"""Mixup and CutMix: timm's, drawn for each group of a step, the same however the step is split."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import Mixup

from convnext_study.data.rng import fold_in
from convnext_study.data.sharding import BatchSharding, accum_steps, split_batch
from convnext_study.recipes import MODERN, RECIPES, Recipe, RecipeError, make_recipe
from convnext_study.training.regularization import Mixing

CLASSES = 7


def step_of(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(count)
    images = torch.rand(count, 3, 6, 6, generator=draw)
    return images, torch.randint(0, CLASSES, (count,), generator=draw)


def mixed(
    recipe: Recipe, count: int, shares: list[BatchSharding], step: int = 5
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """The step's images and targets, put together from all pieces; and the sizes of the pieces."""
    mixing = Mixing(recipe, CLASSES, seed=3)
    images, labels = step_of(count)
    found, targets, sizes = torch.empty_like(images), torch.empty(count, CLASSES), []
    seen: list[int] = []
    for share in shares:
        for places in split_batch(torch.arange(count), count, share, recipe.mix_group_size):
            found[places], targets[places] = mixing(
                images[places].clone(), labels[places], places, step
            )
            sizes.append(len(places))
            seen += places.tolist()
    assert sorted(seen) == list(range(count))
    return found, targets, sizes


def by_group(recipe: Recipe, count: int, step: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """What each process of the released code does with its batch, group after group."""
    images, labels = step_of(count)
    mixup = Mixup(
        recipe.mixup,
        recipe.cutmix,
        prob=recipe.mixup_prob,
        switch_prob=recipe.mixup_switch_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=CLASSES,
    )
    parts = []
    size = recipe.mix_group_size
    pairs = zip(images.split(size), labels.split(size), strict=True)
    for group, (pixels, marks) in enumerate(pairs):
        np.random.seed(fold_in(3, "mix", step, group) % 2**32)
        parts.append(mixup(pixels.clone(), marks))
    return torch.cat([one for one, _ in parts]), torch.cat([one for _, one in parts])


@pytest.mark.parametrize(
    ("count", "world_size", "micro", "size"),
    [
        (4096, 32, None, 128),
        (4096, 16, 32, 32),
        (384, 1, 24, 24),  # across the groups' borders
        (384, 2, 97, 96),
        (192, 1, None, 192),  # the last group is smaller
        (192, 2, 24, 24),
        (40, 2, 10, 10),
    ],
)
def test_draws_and_pairs_do_not_depend_on_the_split(
    count: int, world_size: int, micro: int | None, size: int
) -> None:
    shares = [BatchSharding(rank, world_size, micro) for rank in range(world_size)]
    images, targets, sizes = mixed(MODERN, count, shares)
    assert set(sizes) == {size}
    assert len(sizes) == world_size * accum_steps(count, shares[0], even=True)
    expected, soft = by_group(MODERN, count)
    assert torch.equal(images, expected)
    assert torch.equal(targets, soft)
    assert not torch.equal(images, step_of(count)[0])


@pytest.mark.parametrize("group", [2, 16])
def test_groups_of_any_even_size(group: int) -> None:
    recipe = MODERN.replace(mix_group_size=group)
    images, targets, _ = mixed(recipe, 60, [BatchSharding(rank, 3, 10) for rank in range(3)])
    expected, soft = by_group(recipe, 60)
    assert torch.equal(images, expected)
    assert torch.equal(targets, soft)


def mean_shares(group: int, steps: int) -> torch.Tensor:
    """Of each step, the mean share (lambda) that an image keeps of itself."""
    recipe = MODERN.replace(mix_group_size=group, label_smoothing=0.0)
    mixing, places = Mixing(recipe, 2, seed=0), torch.arange(4096)
    back = (places % group >= group // 2).long()  # what the front is mixed with
    images = torch.zeros(4096, 1, 16, 16)
    return torch.stack(
        [mixing(images, back, places, step)[1][back == 0, 0].mean() for step in range(steps)]
    )


def test_a_steps_mean_share_varies_as_in_the_published_run() -> None:
    """32 draws a step: the deviation of their mean is a sixth of that of one draw for all."""
    assert (MODERN.global_batch_size, MODERN.mix_group_size) == (4096, 128)
    one, many = mean_shares(4096, 200), mean_shares(128, 200)
    assert float(one.std()) == pytest.approx(0.298, abs=0.04)
    assert float(many.std()) == pytest.approx(0.052, abs=0.01)
    assert float(one.std() / many.std()) == pytest.approx(math.sqrt(32), rel=0.25)


def test_steps_groups_and_seeds_differ_and_numpy_is_left_alone() -> None:
    np.random.seed(1)
    before: Any = np.random.get_state()
    shares = mean_shares(128, 3).tolist()
    assert len(set(shares)) == 3
    recipe = MODERN.replace(cutmix=0.0)  # Mixup alone, whose share is any number
    images, labels, first = torch.zeros(8, 3, 6, 6), torch.arange(8) % 2, torch.arange(8)
    targets = [
        Mixing(recipe, 2, seed)(images, labels, first + place, step)[1]
        for seed, place, step in ((0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 128, 0))
    ]
    assert len({float(soft[0, 0]) for soft in targets}) == 4
    after: Any = np.random.get_state()
    assert after[1].tolist() == before[1].tolist()


def test_the_group_is_a_field_of_a_recipe() -> None:
    assert MODERN.model_dump()["mix_group_size"] == 128
    for recipe in RECIPES.values():
        assert make_recipe(recipe.model_dump(mode="json")) == recipe
    changed = RECIPES["modern-small"].replace(mix_group_size=64).replace(mixup=0.8)
    assert changed.model_dump()["mix_group_size"] == 64
    for wrong in (0, 1, 127):
        with pytest.raises(RecipeError, match="mix_group_size"):
            MODERN.replace(mix_group_size=wrong)
