"""Recipes: the published values, the learning-rate curve, what is decayed, what is refused."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.recipes import (
    CLASSIC,
    MODERN,
    RECIPES,
    Recipe,
    RecipeError,
    get_recipe,
    make_recipe,
    recipe_for,
)
from convnext_study.roadmap import get_roadmap
from convnext_study.training.optimizer import learning_rate, make_optimizer, parameter_groups

IMAGENET = 1_281_167


def test_modern_is_table_5() -> None:
    # The ImageNet-1K column of Table 5, EMA off as on the road map.
    assert (MODERN.epochs, MODERN.warmup_epochs, MODERN.global_batch_size) == (300, 20, 4096)
    assert (MODERN.lr, MODERN.min_lr, MODERN.weight_decay) == (4e-3, 1e-6, 0.05)
    assert (MODERN.mixup, MODERN.cutmix, MODERN.random_erasing) == (0.8, 1.0, 0.25)
    assert (MODERN.label_smoothing, MODERN.drop_path, MODERN.ema) == (0.1, 0.1, 0.0)
    assert MODERN.rand_augment == "rand-m9-mstd0.5-inc1"


def test_classic_is_torchvisions() -> None:
    assert (CLASSIC.epochs, CLASSIC.lr, CLASSIC.global_batch_size) == (90, 0.1, 256)
    assert (CLASSIC.momentum, CLASSIC.weight_decay, CLASSIC.weight_decay_1d) == (0.9, 1e-4, True)
    rates = [learning_rate(CLASSIC, epoch * 5, 5) for epoch in (0, 29, 30, 59, 60, 89)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_whole_cosine_curve() -> None:
    per_epoch = IMAGENET // 4096
    total, warmup = 300 * per_epoch, 20 * per_epoch
    # Worked out here as the released code does it: a linspace, then a cosine over the rest.
    share = np.arange(total - warmup) / (total - warmup)
    cosine = 1e-6 + 0.5 * (4e-3 - 1e-6) * (1 + np.cos(np.pi * share))
    expected = np.concatenate([np.linspace(0, 4e-3, warmup), cosine])
    curve = [learning_rate(MODERN, step, per_epoch) for step in range(total)]
    assert np.allclose(curve, expected, rtol=1e-12, atol=1e-15)
    assert (per_epoch, curve[0], max(curve)) == (312, 0, 4e-3)


@pytest.mark.parametrize(
    ("fields", "make", "each"),
    [
        (
            {"schedule": "step", "milestones": (2, 3, 7), "gamma": 0.2},
            partial(lr_scheduler.MultiStepLR, milestones=[2, 3, 7], gamma=0.2),
            4,
        ),
        (
            {"schedule": "poly", "power": 0.9},
            partial(lr_scheduler.PolynomialLR, total_iters=36, power=0.9),
            1,
        ),
        ({"schedule": "constant"}, partial(lr_scheduler.ConstantLR, factor=1.0), 1),
    ],
)
def test_curves_are_torchs(fields: dict[str, Any], make: Any, each: int) -> None:
    """Each of torch's schedulers steps once in so many steps of an optimizer."""
    recipe = CLASSIC.replace(epochs=9, **fields)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler, theirs = make(optimizer), []
    for step in range(36):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % each == 0:
            scheduler.step()
    ours = [learning_rate(recipe, step, 4) for step in range(36)]
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(nesterov: bool) -> None:
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    fields: dict[str, Any] = {"momentum": 0.9, "weight_decay": 1e-4, "nesterov": nesterov}
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, **fields)
    for net, optimizer in (
        (ours, make_optimizer(ours, CLASSIC.replace(nesterov=nesterov))),
        (theirs, plain),
    ):
        for step in range(3):
            optimizer.zero_grad()
            net(torch.full((1, 3), 1.0 + step)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-6)


def test_rate_scales_with_the_batch() -> None:
    half = MODERN.replace(global_batch_size=2048)
    assert learning_rate(half, 20 * 625 - 1, 625) == pytest.approx(2e-3)


def test_only_matrices_are_decayed() -> None:
    spec = get_roadmap("nano").variants()[-1].spec.replace(layer_scale=1e-6)
    net = RoadmapNet(spec, num_classes=10)
    decayed, rest = parameter_groups(net, MODERN)
    assert decayed["weight_decay"] == 0.05
    assert rest["weight_decay"] == 0.0
    assert {parameter.ndim for parameter in rest["params"]} == {1}
    assert min(parameter.ndim for parameter in decayed["params"]) >= 2
    together = len(decayed["params"]) + len(rest["params"])
    assert together == len(list(net.parameters()))
    assert len(parameter_groups(net, CLASSIC)) == 1


def test_json_round_trip() -> None:
    for recipe in RECIPES.values():
        assert make_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"epochs": 0}, "epochs"),
        ({"lr": 0}, "lr"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"epoch": 3}, "did you mean epochs?"),
        ({"mixup_prob": 2}, "mixup_prob"),
        ({"milestones": 0}, "milestones"),
        ({"milestones": (30, 30)}, "milestones"),
        ({"milestones": ()}, "milestones"),
        ({"nesterov": True}, "nesterov needs sgd"),
        ({"min_lr": 1.0}, "min_lr 1 is above lr 0.004"),
        ({"eval_weights": "ema"}, "eval_weights is ema, but ema is off"),
        ({"name": ""}, "name"),
        *(({name: 0}, name) for name in ("eps", "image_size", "power", "gamma", "crop_pct")),
        ({"a\nb": 1}, "a b: extra inputs"),
    ],
)
def test_refused_in_one_line(fields: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says.replace("?", r"\?")) as caught:
        make_recipe({**MODERN.model_dump(), **fields})
    assert "\n" not in str(caught.value)


NUMBERS = {
    name: value
    for name, value in {**MODERN.model_dump(), "image_size": 224}.items()
    if isinstance(value, int | float | tuple) and not isinstance(value, bool)
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 10**30, 1e300, "x", None, [1, 2, 3, -1]])
def test_no_field_takes_what_is_no_such_number(name: str, value: Any) -> None:
    value = value if name != "betas" or isinstance(value, list) else (0.9, value)
    if value is None and name == "image_size":
        return  # the data's own
    with pytest.raises(RecipeError, match=rf"^recipe modern: .*{name}") as caught:
        make_recipe({**MODERN.model_dump(), name: value})
    assert "\n" not in str(caught.value)


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('base = "modern"\nepochs = 100\n')
    recipe = get_recipe(str(path))
    assert recipe == Recipe(**{**MODERN.model_dump(), "name": "short", "epochs": 100})
    path.write_text('base = "classic"\nmilestones = [30, 60]\n')
    assert get_recipe(str(path)).milestones == (30, 60)
    for content in (b"epochs = ", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(RecipeError, match="not TOML"):
            get_recipe(str(path))
    for base in (f'"{path}"', "3", '"none.toml"', "[1]", '"nothing"'):
        path.write_text(f"base = {base}\n")
        with pytest.raises(RecipeError, match=r"^recipe [^\n]*$"):
            get_recipe(str(path))
    with pytest.raises(RecipeError, match="cannot be read"):
        get_recipe(str(tmp_path / "none.toml"))
    with pytest.raises(RecipeError, match="did you mean modern"):
        get_recipe("moderne")


def test_rows_choose_their_recipe() -> None:
    assert recipe_for("classic", "small").name == "classic-small"
    assert recipe_for("modern", "composed").name == "modern-composed"
    assert recipe_for("modern", "published") == MODERN
    assert recipe_for("modern-b", "published").drop_path == 0.5
    assert recipe_for("modern-b", "small").name == "modern-small"
    assert recipe_for("modern-isotropic-l", "a3").name == "modern-a3"
    assert recipe_for("classic", "progressive-16").early_image_size == 160
    assert recipe_for("modern", "classic") == CLASSIC


def test_a_changed_recipe_says_so() -> None:
    assert MODERN.replace(epochs=3).name == "modern[epochs=3]"
    assert MODERN.replace(epochs=None) is MODERN
    with pytest.raises(RecipeError, match="belong together"):
        MODERN.replace(early_epochs=3)
