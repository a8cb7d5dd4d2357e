"""Mixup, CutMix and stochastic depth, drawn for a whole step and the same however it is split."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
from support.nets import images
from timm.data import Mixup
from timm.layers import DropPath as TimmsDropPath
from torch import nn
from torch._dynamo.testing import CompileCounter

from convnext_study.data.rng import fold_in
from convnext_study.data.sharding import BatchSharding, accum_steps, split_batch
from convnext_study.models.builders import get_builder
from convnext_study.models.layers import DropPath
from convnext_study.recipes import MODERN, Recipe, RecipeError
from convnext_study.roadmap import get_roadmap
from convnext_study.training.regularization import Masks, Mixing, SharedDropPath, share_masks

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


CPU = torch.device("cpu")


def shared(net: nn.Module) -> list[SharedDropPath]:
    return [module for module in net.modules() if isinstance(module, SharedDropPath)]


def test_each_layer_drops_at_its_own_rate() -> None:
    net = nn.Sequential(DropPath(0.1), nn.Identity(), *map(DropPath, (0.5, 0.5, 0.0)))
    masks = share_masks(net, 0, 256)
    assert masks.rates == [0.1, 0.5, 0.5, 0.0]
    kept = []
    for step in range(100):
        masks.fill(step, torch.arange(256), CPU)
        assert masks.kept is not None and set(masks.kept.unique().tolist()) == {0, 1}
        assert not torch.equal(masks.kept[1], masks.kept[2])
        kept.append(masks.kept.mean(1))
    assert torch.stack(kept).mean(0).tolist() == pytest.approx([0.9, 0.5, 0.5, 1.0], abs=0.01)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 5, 8), (6, 10)])
@pytest.mark.parametrize("scale", [True, False])
def test_samples_are_dropped_whole_and_the_rest_scaled(shape: tuple[int, ...], scale: bool) -> None:
    net = nn.Sequential(TimmsDropPath(0.25, scale_by_keep=scale))
    masks = share_masks(net, 0, 6)
    masks.fill(0, torch.arange(6), CPU)
    assert masks.kept is not None
    masks.kept = torch.tensor([[1.0, 0, 1, 1, 0, 1]])
    x = torch.rand(shape)
    kept = torch.tensor([0, 2, 3, 5])
    found = net.train()(x)
    assert torch.allclose(found[kept], x[kept] / (0.75 if scale else 1))
    assert not found[[1, 4]].any()
    assert torch.equal(net.eval()(x), x)
    # The mask has the precision of what it is laid on.
    assert net.train()(x.bfloat16()).dtype == torch.bfloat16


def test_without_masks_that_fit_it_draws_as_any_other() -> None:
    net = nn.Sequential(TimmsDropPath(0.25))
    masks = share_masks(net, 0, 8)
    x = torch.ones(4000, 2)
    for _ in range(2):
        found = net(x)
        assert found.unique().tolist() == [0.0, pytest.approx(4 / 3)]
        assert abs(float(found.mean()) - 1) < 0.05
        masks.fill(0, torch.arange(8), CPU)  # of eight images, and these are more


@pytest.mark.parametrize("name", ["convnext_atto", "resnet10t", "vit_tiny_patch16_224"])
def test_timms_networks_keep_their_names_and_outputs(name: str) -> None:
    size = {"img_size": 32, "patch_size": 8} if name.startswith("vit") else {}
    net: Any = timm.create_model(name, num_classes=5, drop_path_rate=0.3, **size).eval()
    names, x = list(net.state_dict()), images(4, 3, 32, 32)
    before, drops = net(x), sum(isinstance(one, TimmsDropPath) for one in net.modules())
    masks = share_masks(net, 0, 4)
    assert len(shared(net)) == len(masks.rates) == drops > 0
    assert not any(isinstance(one, TimmsDropPath) for one in net.modules())
    assert list(net.state_dict()) == names
    assert torch.equal(net(x), before)
    masks.fill(0, torch.arange(4), CPU)
    net.train()
    assert all(layer.training for layer in shared(net))


def test_torchvisions_too_where_it_drops_samples() -> None:
    from torchvision.ops import StochasticDepth

    net = nn.Sequential(StochasticDepth(0.4, "row"), StochasticDepth(0.4, "batch"), nn.Dropout(0.4))
    assert share_masks(net, 0, 4).rates == [0.4]
    assert [type(one).__name__ for one in net] == ["SharedDropPath", "StochasticDepth", "Dropout"]


@pytest.fixture
def net() -> Iterator[tuple[nn.Module, Masks]]:
    spec = get_roadmap("nano").upto("layer_norm").replace(depths=(1, 1, 1, 2), width=16)
    made: nn.Module = get_builder("roadmap")(
        spec.to_dict(), num_classes=10, drop_path=0.4, init="trunc_normal"
    )
    yield made.train(), share_masks(made, 0, 16)


def test_pieces_give_what_the_whole_gives(net: tuple[nn.Module, Masks]) -> None:
    model, masks = net
    x = images(16, 3, 32, 32)
    masks.fill(3, torch.arange(16), CPU)
    whole = model(x)
    order = torch.tensor([0, 1, 14, 15, 2, 3, 12, 13, 4, 5, 10, 11, 6, 7, 8, 9])
    parts = []
    for places in order.split(4):
        masks.fill(3, places, CPU)
        parts.append(model(x[places]))
    assert torch.allclose(torch.cat(parts), whole[order], atol=1e-5)
    masks.fill(4, torch.arange(16), CPU)
    assert not torch.allclose(model(x), whole, atol=1e-3)


@pytest.mark.parametrize("compiled", [False, True])
def test_run_again_in_the_backward_pass_it_drops_the_same(
    net: tuple[nn.Module, Masks], compiled: bool
) -> None:
    model, masks = net
    thrifty: Any = copy.deepcopy(model)
    thrifty.set_grad_checkpointing()
    theirs = shared(thrifty)[0]._masks
    assert theirs is not masks
    forward = thrifty
    if compiled:
        forward = torch.compile(thrifty, backend="aot_eager", fullgraph=True)
    for number, (one, own) in enumerate(((model, masks), (forward, theirs))):
        torch.manual_seed(number)  # whatever the global generator holds
        own.fill(3, torch.arange(16), CPU)
        one(images(16, 3, 32, 32)).square().sum().backward()
    for key, weight in model.named_parameters():
        found: Any = thrifty.get_parameter(key).grad
        assert torch.allclose(weight.grad, found, rtol=0, atol=1e-5 if compiled else 0), key  # type: ignore[arg-type]


def test_compiled_once_it_takes_the_masks_of_every_step(net: tuple[nn.Module, Masks]) -> None:
    model, masks = net
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    x, outputs = images(16, 3, 32, 32), []
    for step in range(4):
        masks.fill(step, torch.arange(16), CPU)
        outputs.append(compiled(x))
        assert torch.allclose(outputs[-1], model(x), atol=1e-6)
    assert counter.frame_count == 1
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-3)
