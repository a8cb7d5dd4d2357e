"""Mixup and CutMix: timm's, drawn for each group of a step, the same however the step is split."""

from typing import Any

import numpy as np
import pytest
import torch
from timm.data import Mixup

from convnext_study.data.rng import fold_in
from convnext_study.data.sharding import BatchSharding, accum_steps, split_batch
from convnext_study.recipes import MODERN, Recipe, RecipeError
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
    ("count", "world_size", "micro", "size", "group"),
    [
        (4096, 32, None, 128, 128),  # the published run
        (4096, 16, 32, 32, 128),
        (384, 1, 24, 24, 128),  # across the groups' borders
        (384, 2, 97, 96, 128),
        (192, 1, None, 192, 128),  # the last group is smaller
        (192, 2, 24, 24, 128),
        (40, 2, 10, 10, 128),
        (60, 3, 10, 10, 2),
        (60, 3, 10, 10, 16),
    ],
)
def test_draws_and_pairs_do_not_depend_on_the_split(
    count: int, world_size: int, micro: int | None, size: int, group: int
) -> None:
    assert (MODERN.global_batch_size, MODERN.mix_group_size) == (4096, 128)
    recipe = MODERN.replace(mix_group_size=group)
    shares = [BatchSharding(rank, world_size, micro) for rank in range(world_size)]
    images, targets, sizes = mixed(recipe, count, shares)
    assert set(sizes) == {size}
    assert len(sizes) == world_size * accum_steps(count, shares[0], even=True)
    expected, soft = by_group(recipe, count)
    assert torch.equal(images, expected)
    assert torch.equal(targets, soft)
    assert not torch.equal(images, step_of(count)[0])


def test_steps_groups_and_seeds_differ_and_numpy_is_left_alone() -> None:
    np.random.seed(1)
    before: Any = np.random.get_state()
    recipe = MODERN.replace(cutmix=0.0)  # Mixup alone, whose share is any number
    images, labels, first = torch.zeros(8, 3, 6, 6), torch.arange(8) % 2, torch.arange(8)
    targets = [
        Mixing(recipe, 2, seed)(images, labels, first + place, step)[1]
        for seed, place, step in ((0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 128, 0))
    ]
    assert len({float(soft[0, 0]) for soft in targets}) == 4
    after: Any = np.random.get_state()
    assert after[1].tolist() == before[1].tolist()


def test_a_group_is_of_pairs() -> None:
    for wrong in (0, 1, 127):
        with pytest.raises(RecipeError, match="mix_group_size"):
            MODERN.replace(mix_group_size=wrong)
