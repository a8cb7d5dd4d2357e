"""The arms of the pruning study as runs: which weights, how long, and what each starts from."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.pruning_runs import context

from convnext_study.errors import UserError
from convnext_study.experiments.study_file import load_study, make_context
from convnext_study.models.builders import get_builder
from convnext_study.recipes import make_recipe
from convnext_study.runs.records import Run
from convnext_study.studies.pruning import plans
from convnext_study.studies.pruning.arms import OF_OTHER_DATA
from convnext_study.studies.pruning.costs import Images, scratch_b_epochs, untrained
from convnext_study.studies.pruning.published import get_network
from convnext_study.studies.pruning.removal import own_ref
from convnext_study.studies.pruning.targets import published_targets

FILE = Path(__file__).parents[3] / "ablations" / "pruning.py"
IMAGES = Images(16, 10)


def named(**how: Any) -> dict[str, Run]:
    """The runs of a study by their names, that of our own network left out."""
    runs = plans.runs_of(context(**how))
    return {run.name.removeprefix("vgg16_eighth-"): run for run in runs}


def chosen(*targets: str) -> dict[str, Run]:
    return named(targets=targets)


@pytest.fixture(scope="module")
def usual() -> dict[str, Run]:
    """The default study's, one seed."""
    return named()


def test_every_arm_is_a_run_with_what_it_starts_from_in_its_key(usual: dict[str, Run]) -> None:
    keys = [run.key for run in usual.values()]
    assert len(set(keys)) == len(keys)
    by_key = {run.key: run for run in usual.values()}
    for name, run in usual.items():
        get_builder(run.model.builder)
        make_recipe(run.recipe)
        scratch = name.endswith(("dense", "scratch_b", "scratch_t", "scratch_e"))
        # Known widths need no trained network; a method that decides by itself does.
        alone = scratch and not name.startswith(("slimming-s", "sparse-s", "soft-"))
        assert (run.init_from is None) is alone, name
        if run.init_from is not None:
            assert by_key[run.init_from].seed == run.seed
            moved = run.model_copy(update={"init_from": "f" * 64})
            assert moved.key != run.key
    assert by_key[str(usual["slimming-scratch_b"].init_from)].task.args == {"slimming": 0.01}
    assert by_key[str(usual["sparse-slow_ticket"].init_from)] == usual["slow_dense"]
    assert usual["soft-dense"].init_from == usual["dense"].key


def test_the_reduced_networks_are_those_of_the_pilots(usual: dict[str, Run]) -> None:
    macs = {name: untrained(usual[name].model, IMAGES).cost.macs for name in usual}
    assert macs["dense"] == pytest.approx(1.28e6, rel=0.01)
    assert macs["rule-scratch_e"] == pytest.approx(0.83e6, rel=0.01)
    assert macs["half-scratch_e"] == pytest.approx(0.33e6, rel=0.02)
    widths = [one for one in usual["rule-scratch_e"].model.args["widths"] if one != "M"]
    assert widths == [4, 8, 16, 16, *[32] * 9]
    # Controls and automatic methods have the budget of the halves.
    assert macs["random_widths-inherited"] == pytest.approx(macs["half-inherited"], rel=0.03)
    assert usual["slimming-inherited"].task.args["macs"] == macs["half-inherited"]


def test_scratch_b_is_as_long_as_the_large_networks_computation(usual: dict[str, Run]) -> None:
    large = untrained(usual["dense"].model, IMAGES).cost.budget
    epochs = {name: int(run.recipe["epochs"]) for name, run in usual.items()}
    for target in ("rule", "half"):
        pruned = untrained(usual[f"{target}-scratch_b"].model, IMAGES).cost.budget
        assert epochs[f"{target}-scratch_b"] == int(12 * large / pruned)
        assert epochs[f"{target}-scratch_t"] == epochs[f"{target}-scratch_b"] + 12
        assert epochs[f"{target}-scratch_e"] == epochs[f"{target}-inherited"] == 12
        assert epochs[f"{target}-fine_tuned"] == 3
    # The trained network says which architecture is left, and so how long that is.
    assert usual["slimming-scratch_b"].task.args["length"] == "scratch_b"
    assert epochs["slimming-scratch_b"] == 12 and epochs["half-scratch_b"] == 45
    rule = make_recipe(usual["rule-scratch_b"].recipe)
    assert (rule.schedule, rule.epochs, rule.warmup_epochs) == ("cosine", 18, 1.0)


def test_scratch_b_of_masks(usual: dict[str, Run]) -> None:
    for name, length in (("sparse-scratch_b", "scratch_b"), ("soft-scratch_b", None)):
        args = usual[name].task.args
        assert (args["weights"], args.get("length")) == ("redrawn", length)
    assert usual["soft-scratch_b"].recipe["epochs"] == 16  # without 30 % of each layer's filters
    # Of single weights the trained network says it; a plan takes an even share of all layers.
    assert usual["sparse-scratch_b"].metadata["expected_epochs"] > 30
    assert usual["sparse-scratch_b"].recipe == usual["dense"].recipe


def test_published_networks_are_pruned_by_their_method() -> None:
    found = named(data="cifar10:x", networks=("resnet56",))
    for name in ("resnet56-a", "resnet56-b"):
        assert found[f"resnet56-{name}-scratch_b"].model == own_ref(get_network(name).spec)
        inherited = found[f"resnet56-{name}-inherited"]
        assert inherited.init_from == found["resnet56-dense"].key
        assert inherited.task.args["method"] == "l1-norm"
    selected = named(data="folder:x", recipe="published", networks=("preact-resnet50",))
    prepared = selected["preact_resnet50-selection-dense"]
    assert prepared.model.builder == "pruning-factored"
    assert prepared.task.args == {"selection": 0.01}
    assert selected["preact_resnet50-selection-fine_tuned"].init_from == prepared.key


def test_the_command_line_changes_every_arm() -> None:
    runs = named(changes={"epochs": 4, "image_size": 20})
    epochs = {name: run.recipe["epochs"] for name, run in runs.items()}
    assert epochs["dense"] == epochs["half-inherited"] == 4
    assert epochs["half-fine_tuned"] == 1
    assert epochs["half-scratch_b"] >= 14
    assert {run.recipe["image_size"] for run in runs.values()} == {20}


def test_networks_of_the_road_map_and_of_timm() -> None:
    file = load_study(FILE)
    names = file.networks("roadmap:separate_downsampling, timm:resnet18")
    runs = file.runs(make_context(file, None, networks=names))
    found = {run.name: run for run in runs}
    assert found["nano_separate_downsampling-dense"].recipe["name"].startswith("modern-small")
    arm = found["nano_separate_downsampling-half-fine_tuned"]
    assert arm.init_from == found["nano_separate_downsampling-dense"].key
    assert arm.model.builder == "pruning-narrowed"
    assert arm.recipe["epochs"] == 2 and arm.recipe["schedule"] == "constant"
    assert found["timm_resnet18-half-scratch_e"].init_from is None
    # No BatchNorm, no scales to slim by.
    assert not [name for name in found if name.startswith("nano") and "slimming" in name]
    assert "timm_resnet18-slimming-fine_tuned" in found


def test_the_road_stands_for_every_row_that_leads_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plans.plan_for("vgg16_eighth", context())
    monkeypatch.setattr(plans, "plan_for", lambda name, _: replace(plan, name=name))
    asked = context(networks=("roadmap", "vgg16_eighth"), targets=("half",))
    found = plans.requested_plans(asked)
    rows = [f"roadmap:{row}" for row in context().road.adopted()]
    assert [one.name for one in found] == [*rows, "vgg16_eighth"]
    assert all(one.chosen == {"half"} for one in found)


def test_studies_that_take_no_networks_or_targets_say_so(tmp_path: Path) -> None:
    other = tmp_path / "mine.py"
    other.write_text("def runs(context):\n    return context.runs()\n")
    with pytest.raises(UserError, match=r"does not accept networks; leave --networks out$"):
        load_study(other).networks("vgg16")
    assert load_study(other).networks("") == ()
    with pytest.raises(UserError, match=r"does not accept targets; leave --target out$"):
        load_study(other).targets(["half"])


def test_targets_of_a_published_network() -> None:
    found = {one.name: one for one in published_targets(get_network("vgg19-slim"))}
    assert found["slim_70"].sparsity == {"slimming": 1e-4}
    widths = found["vgg19-slim-70"]
    assert widths.arms == ("scratch_e", "scratch_b") and not widths.amount
    network = get_network("vgg19-slim-70")
    assert scratch_b_epochs(*widths.budgets, 160) == network.stated["scratch_b_epochs"]
    assert "scratch_b" in found["slim_70"].arms
    guided = found["guided_70"]
    assert guided.optional and guided.sparsity == found["slim_70"].sparsity
    assert guided.amount == {"ratio": 0.7}
    bias = [one for one in published_targets(get_network("vgg19-bias")) if not one.optional]
    assert [one.amount["ratio"] for one in bias] == [0.3, 0.8, 0.95]
    # On ImageNet lottery arms are on request.
    large = {one.name: one for one in published_targets(get_network("resnet50"))}
    assert large["sparse_30"].arms == ("fine_tuned", "scratch_e", "scratch_b")
    assert large["tickets_60"].optional and "ticket" in large["tickets_60"].arms
    assert large["tickets_60"].amount == large["sparse_60"].amount


def test_targets_are_chosen_by_name(usual: dict[str, Run]) -> None:
    assert len(usual) == 39  # none of the optional ones
    few = chosen("random_widths")
    assert [*few] == ["dense", "random_widths-inherited", "random_widths-scratch_e"]
    assert all(run == usual[name] for name, run in few.items())
    more = chosen("usual", "patterns")
    assert more.keys() - usual.keys() == {"patterns-scratch_e"}
    quarter = chosen("quarter")
    sizes = [untrained(usual[name].model, IMAGES).cost.macs for name in ("dense", "half-scratch_e")]
    sizes.append(untrained(quarter["quarter-scratch_e"].model, IMAGES).cost.macs)
    assert sizes == [1_276_544, 334_464, 91_520]  # 0.33 and 0.09 M by the pilots
    again = chosen("usual", "half")
    assert again == usual


@pytest.mark.parametrize(("target", "weights"), [("rounds", "rewound"), ("rounds_on", "inherited")])
def test_each_round_starts_from_the_one_before(target: str, weights: str) -> None:
    runs = chosen(target)
    names = ["dense", *(f"{target}-{name}" for name in ("round_1", "round_2", "ticket"))]
    assert [*runs] == [*names, f"{target}-control"]
    for before, after in itertools.pairwise(names):
        assert runs[after].init_from == runs[before].key
        assert runs[after].task.args["method"] == "magnitude-round"
        left = (1 - runs[after].task.args["ratio"]) ** 3
        assert left == pytest.approx(0.2)
        assert runs[after].recipe == runs["dense"].recipe
    assert runs[names[1]].task.args["weights"] == weights
    assert runs[names[3]].task.args["weights"] == "rewound"
    control = runs[f"{target}-control"]
    assert control.init_from == runs[names[2]].key and control.task.args["weights"] == "random"


def test_designed_architectures_start_from_the_slimmed_network(usual: dict[str, Run]) -> None:
    runs = chosen("guided", "transferred", "transferred_uniform")
    prepared = usual["slimming-dense"]
    for name in ("guided-scratch_e", "guided-scratch_b", "transferred-scratch_e"):
        assert runs[name].init_from == prepared.key
        assert runs[name].task.args["weights"] == "random"
        assert runs[name].task.args["macs"] == usual["slimming-scratch_e"].task.args["macs"]
    assert runs["guided-scratch_e"].model == usual["dense"].model
    # The figure joins points of one method: of another network they are not on its line.
    assert runs["guided-scratch_e"].metadata["method"] == "stage-shares"
    assert runs["transferred-scratch_e"].metadata["method"] == ""
    uniform = runs["transferred_uniform-scratch_e"]
    assert uniform.init_from is None
    designed = runs["transferred-scratch_e"]
    assert len(designed.model.args["widths"]) == len(uniform.model.args["widths"]) == 21 - 1
    assert designed.task.args["design_macs"] == untrained(uniform.model, IMAGES).cost.macs


def test_architectures_are_transferred_from_other_data() -> None:
    runs = chosen("transferred@clutter", "guided@cifar100:x", "transferred@digits")
    same = runs["transferred-scratch_e"]  # the study's own data is no other data
    assert (same.data, "source" in same.task.args) == ("digits", False)
    there = runs["transferred_from_clutter-dense"]
    assert (there.data, there.init_from) == ("clutter", None)
    assert there.recipe["image_size"] is None and there.metadata[OF_OTHER_DATA]
    for arm in ("scratch_e", "scratch_b"):
        run = runs[f"transferred_from_clutter-{arm}"]
        assert (run.data, run.init_from) == ("digits", there.key)
        assert run.recipe["image_size"] == 16
        assert run.task.args["source"] == {"side": 32, "classes": 10}
        assert run.task.args["design_macs"] == same.task.args["design_macs"]
        assert run.task.args["macs"] > same.task.args["macs"]  # of larger images
    guided = runs["guided_from_cifar100-scratch_e"]
    assert guided.task.args["source"] == {"side": 32, "classes": 100}
    networks = chosen("guided@cifar100:x")
    published = networks["guided_from_cifar100-dense"]
    assert published.recipe["epochs"] == runs["dense"].recipe["epochs"]  # as reduced as the network


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"networks": ("resnet65",)}, "^networks: 'resnet65'.*resnet56"),
        ({"networks": ("timm:test_resnet@nowhere.pth",)}, "no such file; pass one, or pretrained$"),
        ("round", "^target: 'round' of vgg16_eighth; did you mean rounds"),
        ("half@clutter", "half@clutter: only guided and transferred architectures .* from @ on"),
        ("transferred@clutted", "clutted.*clutter"),
        ("transferred@scenes", "scenes"),
        ("usual@clutter", "'usual@clutter'"),
        ("guided@", "no data after @; use, for example, guided@clutter"),
        ("guided@cifar100:y", "one data set per kind; start another study"),
    ],
)
def test_what_cannot_be_is_one_line(how: Any, message: str) -> None:
    asked = {"targets": ("guided@cifar100:x", how)} if isinstance(how, str) else how
    with pytest.raises(UserError, match=message) as caught:
        named(**asked)
    assert "\n" not in str(caught.value)
