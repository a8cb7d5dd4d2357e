"""The published networks and recipes: every count and field of the file, and their rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support.pruning_runs import context

from convnext_study.errors import UserError
from convnext_study.models.builders import get_builder
from convnext_study.recipes import make_recipe
from convnext_study.roadmap.spec import SpecError
from convnext_study.runs.records import ModelRef, Run
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning import plans
from convnext_study.studies.pruning.arms import schedules_for, with_epochs
from convnext_study.studies.pruning.costs import counted, differences
from convnext_study.studies.pruning.published import (
    get_network,
    networks,
    results,
    stated_recipe,
    tables,
)
from convnext_study.studies.pruning.spec import from_dict
from convnext_study.training.optimizer import learning_rate


@pytest.mark.exhaustive
def test_every_count_of_every_network_is_the_stated_one() -> None:
    assert len(networks()) == 45
    for name, network in networks().items():
        found, stated = counted(name), network.stated
        assert differences(found, stated) == []
        assert len(found.keys() & stated.keys()) == (8 if network.of else 5)
        if network.of:
            ratio = counted(network.of)["budget_flops"] / found["budget_flops"]
            assert round(ratio, 6) == stated["budget_ratio"]


def test_a_wrong_count_would_be_seen() -> None:
    found, stated = counted("resnet56-a"), get_network("resnet56-a").stated
    wrong = {**stated, "params": found["params"] + 1, "macs_pruned_percent": 10.41}
    assert differences(found, wrong) == ["params", "macs_pruned_percent"]


def test_the_quoted_fractions_of_extra_epochs_follow_from_the_budgets() -> None:
    for name, quoted in tables()["rules"]["extra_epochs_quoted"].items():
        pruned = get_network(name)
        digits = 5 if pruned.input == 32 else 2
        large, small = (
            round(counted(one)["budget_flops"] / 1e9, digits) for one in (str(pruned.of), name)
        )
        assert large / small - 1 == pytest.approx(quoted, abs=1e-10)


def test_counts_that_sources_print() -> None:
    for entry in tables()["published_count"]:
        found = counted(entry["network"])[entry["count_of"]]
        found += entry.get("add", 0) - entry.get("less", 0)
        assert found / entry["unit"] == pytest.approx(entry["ours"], abs=6e-5), entry


def test_specs_go_through_json_and_build_as_records_do() -> None:
    for network in networks().values():
        values = json.loads(json.dumps(network.spec.to_dict()))
        assert from_dict(values) == network.spec
        assert hash(from_dict(values)) == hash(network.spec)
    ref = ModelRef(builder="pruning", args=get_network("resnet56-b").spec.to_dict())
    net = get_builder(ref.builder)(ref.args, num_classes=10, drop_path=0.0, init="kaiming")
    assert sum(weight.numel() for weight in net.parameters()) == counted("resnet56-b")["params"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "vg"}, r"^family: 'vg'; did you mean vgg\?$"),
        ({"width": [1]}, r"^width: no such field of a vgg; did you mean widths\?$"),
        ({"head": "513"}, r"^head: '513'; did you mean 512\?$"),
        ({"widths": ["M", 8]}, "^widths: .*begin with a convolution$"),
        ({"widths": [8, 0]}, "^widths: 0; input should be greater than or equal to 1 or "),
        ({"widths": [8, "X"]}, "^widths: 'X'; .* valid integer or input should be 'M'$"),
        ({"widths": [8, 1.5]}, "^widths: 1.5; input should be a valid integer"),
        ({"head": "512", "hidden": [8, 8]}, "^hidden: .*head 512 has 1 layers$"),
        ({"head": "512", "hidden": 5}, "^hidden: 5; input should be a valid tuple"),
    ],
)
def test_bad_specs_are_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_dict({"family": "vgg", "widths": [8, "M", 8], **change})
    with pytest.raises(SpecError, match=r"^widths: a vgg needs it$"):
        from_dict({"family": "vgg"})
    with pytest.raises(SpecError, match=r"^inner: \(4, 3\); field required$"):
        from_dict({"family": "preresnet", "inner": [[[4, 3]]] * 3, "last": 4})


def test_initial_weights_are_the_authors() -> None:
    torch.manual_seed(0)
    build = get_builder("pruning")
    net = build(
        {"family": "vgg", "widths": [64, 64, "M", 64], "head": "512"},
        num_classes=10,
        drop_path=0.0,
        init="kaiming",
    )
    conv = net.get_parameter("stages.0.blocks.0.conv.weight")
    assert conv.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert net.get_parameter("head.fc.weight").std().item() == pytest.approx(0.01, rel=0.05)
    assert set(net.get_parameter("stem.norm.weight").tolist()) == {0.5}


def test_the_command_prints_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    from convnext_study.cli.inspect import cost

    cost(study="pruning", as_json=True)
    rows = {row["network"]: row for row in json.loads(capsys.readouterr().out)["networks"]}
    assert list(rows) == list(networks())
    epochs = {name: rows[name]["scratch_b_epochs"] for name in ("resnet56", "resnet56-a")}
    assert epochs == {"resnet56": None, "resnet56-a": 178}
    assert {row["as_stated"] for row in rows.values()} == {"="}
    cost(study="pruning")
    assert "VGG-16" not in capsys.readouterr().out.splitlines()[0]
    with pytest.raises(UserError, match=r"^study 'prune': has no networks to count; .*pruning"):
        cost(study="prune")


def test_published_accuracies_have_sources() -> None:
    papers, others = results("resnet56-b")
    assert papers["of_paper"] and papers["scratch_b"] == {"mean": 93.05, "std": 0.18, "n": 5}
    assert (others["of_paper"], others["source"]) == (False, "li")
    sources = tables()["source"]
    for one in tables()["result"]:
        assert one["source"] in sources
        assert one["network"] in networks()


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


def test_networks_of_timm_are_trained_as_published() -> None:
    asked = context(recipe="published", networks=("timm:test_resnet",), targets=("usual", "lamp"))
    runs = {run.name.removeprefix("timm_test_resnet-"): run for run in plans.runs_of(asked)}
    names = {"half": 20, "slimming": 5, "sparse": 10, "lamp": 10}
    found = {name: runs[f"{name}-fine_tuned"].recipe["epochs"] for name in names}
    assert found == names
    assert runs["slimming-dense"].task.args == {"slimming": 1e-5}
    assert runs["lamp-inherited"].recipe == runs["sparse-inherited"].recipe


def test_rates_drop_where_the_authors_scripts_drop_them() -> None:
    def rates(recipe: Any, *epochs: int) -> list[float]:
        return [learning_rate(recipe, epoch * 10, 10) for epoch in epochs]

    longer = with_epochs(of.published("cifar").base, 243)
    assert longer.milestones == (121, 182)
    assert rates(longer, 0, 120, 121, 181, 182) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    third = with_epochs(of.published("imagenet").base, 106)  # 35, and what 3 does not divide
    assert rates(third, 34, 35, 70, 105) == pytest.approx([0.1, 0.01, 1e-3, 1e-4])
    branches = of.published("structure-selection").base
    assert rates(branches, 29, 30, 60, 90) == pytest.approx([0.1, 0.01, 1e-3, 1e-4])
    soft = of.published("cifar", "soft-filters")
    expected = [0.01, 0.1, 0.1, 0.02, 0.004, 0.0008]
    assert rates(soft.base, 0, 1, 59, 60, 120, 160) == pytest.approx(expected)
    b = soft.recipe("scratch_b", 551)
    assert rates(b, 0, 1, 81, 82, 165, 220) == pytest.approx(expected)
    # In few epochs drops coincide, and none is lost.
    few = schedules_for(soft, "published", {"epochs": 3}, None)
    assert rates(few.base, 0, 1, 2) == pytest.approx([0.01, 0.004, 0.0008])
    assert (few.base.milestones, few.budget) == ((1, 2), 6)
