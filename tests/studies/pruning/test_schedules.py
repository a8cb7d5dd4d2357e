"""Every run of ``--recipe published`` beside the file that states the recipes, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.pruning_runs import context

from convnext_study.errors import UserError
from convnext_study.recipes import make_recipe
from convnext_study.runs.records import Run
from convnext_study.studies.pruning import plans
from convnext_study.studies.pruning.published import get_network, networks, stated_recipe, tables
from convnext_study.studies.pruning.schedules import published, schedules_for, with_epochs
from convnext_study.studies.pruning.targets import published_targets
from convnext_study.training.optimizer import learning_rate

WHOLE = [name for name, network in networks().items() if network.of is None]
# Recipes that are not of the data alone, and where a fine-tuning has its length from.
OWN = {"vgg16-imagenet": "imagenet_vgg", "preact-resnet50": "structure-selection"}
FINE_TUNE = {"slimming": 5, "magnitude": 10}
MORE = ("l1-norm", "thinet", "regression", "structure-selection")  # as long as L1-norm's
BY_ARM = {"epochs", "milestones", "fine_tune", "scratch_b_of"}


def runs_of(name: str) -> list[Run]:
    network = get_network(name)
    data = "folder:x" if network.input == 224 else f"cifar{network.classes}:x"
    asked = context(data=data, recipe="published", networks=(name,))
    every = tuple(target.name for target in plans.plan_for(name, asked).targets)
    return plans.runs_of(context(data=data, recipe="published", networks=(name,), targets=every))


def check(run: Run, name: str, lengths: dict[str, int]) -> None:
    """``lengths`` are the epochs of published Scratch-B by target."""
    recipe, method = run.recipe, str(run.metadata["method"])
    target, arm = (str(run.metadata[key]) for key in ("target", "arm"))
    on_cifar = get_network(name).input == 32
    named = "cifar" if on_cifar else "imagenet"
    named = "soft-filters" if target.startswith("soft") else OWN.get(name, named)
    stated = {key: value for key, value in stated_recipe(named).items() if key not in BY_ARM}
    epochs = stated_recipe(named)["epochs"]
    if arm.startswith("slow"):
        stated["lr"] /= 10
    if arm == "fine_tuned":
        epochs = 40 if on_cifar else FINE_TUNE.get(method, 20)
        assert (recipe["lr"], recipe["schedule"]) == (0.001, "constant"), run.name
        stated |= {"lr": 0.001, "schedule": "constant"}
    elif arm == "scratch_b" and "length" not in run.task.args:
        epochs = lengths[target]
    assert recipe["epochs"] == epochs, run.name
    for key, value in stated.items():
        assert recipe[key] == value, (run.name, key)
    drops = stated_recipe(named)["milestones"]
    if named == "soft-filters":
        whole = 400 if arm == "scratch_b" else 200
        wanted: Any = [int(one * epochs / whole) for one in drops] if arm[0] == "s" else drops
    elif named == "cifar":
        wanted = [int(epochs * fraction) for fraction in (0.5, 0.75)]
    else:
        wanted = int(epochs * (0.3 if named == "structure-selection" else 1 / 3))
    if recipe["schedule"] == "step":
        assert recipe["milestones"] == wanted, run.name
    make_recipe(recipe)


@pytest.mark.parametrize("name", WHOLE)
def test_every_published_run_has_the_recipe_that_is_stated(name: str) -> None:
    lengths = {one: net.stated["scratch_b_epochs"] for one, net in networks().items() if net.of}
    stated = tables()["soft_filter_pruning"].get(name)
    if stated is not None:
        names = [f"soft_{ratio * 100:.0f}" for ratio in stated["ratio"]]
        lengths |= dict(zip(names, stated["scratch_b_epochs"], strict=True))
    for run in runs_of(name):
        if "transferred_uniform" not in run.name:  # ours: no source has it
            check(run, name, lengths)


def test_networks_of_timm_are_fine_tuned_as_long_as_the_method_states() -> None:
    asked = context(recipe="published", networks=("timm:test_resnet",), targets=("usual", "lamp"))
    runs = {run.name.removeprefix("timm_test_resnet-"): run for run in plans.runs_of(asked)}
    names = {"half": 20, "slimming": 5, "sparse": 10}
    found = {name: runs[f"{name}-fine_tuned"].recipe["epochs"] for name in names}
    assert found == names


def leaves(table: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield table, key


def other(value: Any) -> Any:
    """A value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2
        case list():
            return [other(one) for one in value]
    return "other"


def recipes() -> str:
    """All that follow from the file."""
    names = {get_network(name).recipe for name in WHOLE}
    methods = ("", "soft-filters", *FINE_TUNE, *MORE)
    found = [published(name, method) for name in sorted(names) for method in methods]
    return repr([(one, one.recipe("scratch_b", 500)) for one in found])


def targets() -> str:
    networks = [get_network(name) for name in WHOLE]
    found = [(network.recipe, published_targets(network)) for network in networks]
    return repr([(name, one.amount, one.sparsity) for name, some in found for one in some])


def test_no_stated_field_is_read_by_nothing() -> None:
    fields = [(*one, recipes) for one in leaves(tables()["recipe"])]
    for network in tables()["network"]:
        fields += [(network, key, targets) for key in ("recipe", "selection") if key in network]
        fields += [(*one, targets) for one in leaves(network.get("slimming", {}))]
    fields += [(one, "ratio", targets) for one in tables()["magnitude"]]
    stated = tables()["soft_filter_pruning"]
    fields += [(one, "ratio", targets) for name, one in stated.items() if name in WHOLE]
    usual = {made: made() for made in (recipes, targets)}
    unread = []
    for table, key, made in fields:
        value, table[key] = table[key], other(table[key])
        try:
            same = made() == usual[made]
        except (KeyError, UserError):
            same = False
        table[key] = value
        if same:
            unread.append(key)
    assert len(fields) > 40
    assert unread == []


def test_rates_drop_where_the_authors_scripts_drop_them() -> None:
    def rates(recipe: Any, *epochs: int) -> list[float]:
        return [learning_rate(recipe, epoch * 10, 10) for epoch in epochs]

    longer = with_epochs(published("cifar").base, 243)
    assert longer.milestones == (121, 182)
    assert rates(longer, 0, 120, 121, 181, 182) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    third = with_epochs(published("imagenet").base, 106)  # 35, and what 3 does not divide
    assert rates(third, 34, 35, 70, 105) == pytest.approx([0.1, 0.01, 1e-3, 1e-4])
    branches = published("structure-selection").base
    assert rates(branches, 29, 30, 60, 90) == pytest.approx([0.1, 0.01, 1e-3, 1e-4])
    soft = published("cifar", "soft-filters")
    expected = [0.01, 0.1, 0.1, 0.02, 0.004, 0.0008]
    assert rates(soft.base, 0, 1, 59, 60, 120, 160) == pytest.approx(expected)
    b = soft.recipe("scratch_b", 551)
    assert rates(b, 0, 1, 81, 82, 165, 220) == pytest.approx(expected)
    # In few epochs drops coincide, and none is lost.
    few = schedules_for(soft, "published", {"epochs": 3}, None)
    assert rates(few.base, 0, 1, 2) == pytest.approx([0.01, 0.004, 0.0008])
    assert (few.base.milestones, few.budget) == ((1, 2), 6)
