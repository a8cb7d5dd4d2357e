"""The road maps: their rows, their order, and that any subset of steps is a network."""

import itertools
import random

import pytest
import torch

from convnext_study.cost import count_spec
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import ROADMAPS, Roadmap, StepError, get_roadmap
from convnext_study.roadmap.paper import published_row
from convnext_study.roadmap.spec import NetSpec

KERNELS = {"kernel_5", "kernel_7", "kernel_9", "kernel_11"}

roads = pytest.mark.parametrize("road", ROADMAPS.values(), ids=list(ROADMAPS))
# Of walks over networks, which are larger on the other roads: the rows of those are counted too.
walks = pytest.mark.parametrize(
    "road",
    [
        pytest.param(road, id=regime, marks=() if regime == "nano" else pytest.mark.exhaustive)
        for regime, road in ROADMAPS.items()
    ],
)


def shallow(spec: NetSpec) -> NetSpec:
    """The same network with two blocks where it has more: a first one and one like all others."""
    return spec.replace(depths=tuple(min(depth, 2) for depth in spec.depths))


def test_nano_has_the_same_rows_and_no_numbers_of_the_paper() -> None:
    nano, t = get_roadmap("nano"), get_roadmap("t")
    assert [p.name for p in nano.variants()][:2] == ["resnet-90ep", "resnet"]
    assert [p.name for p in nano.variants()][2:] == [p.name for p in t.variants()][2:]
    # The last label names the network that the road ends with.
    assert [p.label for p in nano.variants()][2:-1] == [p.label for p in t.variants()][2:-1]
    assert not nano.published
    assert not any(published_row("nano", variant.name) for variant in nano.variants())


@roads
def test_the_recipe_step_changes_no_network_and_every_other_step_does(road: Roadmap) -> None:
    for variant in road.variants()[1:]:
        before = road.variant(variant.parent or "")
        if variant.step is road.steps[0]:
            assert (variant.spec, variant.recipe) == (before.spec, "modern")
            assert before.recipe == "classic"
        else:
            assert variant.spec != before.spec, variant.name
            last = (road.regime, variant.name) == ("b", road.adopted()[-1])
            assert (variant.recipe, before.recipe) == ("modern-b" if last else "modern", "modern")


@roads
def test_a_row_is_compared_with_the_last_adopted_one(road: Roadmap) -> None:
    assert len({variant.label for variant in road.variants()}) == 17
    parents = {variant.name: variant.parent for variant in road.variants()}
    assert {parents[kernel] for kernel in KERNELS} == {"move_up_depthwise"}
    assert parents["gelu"] == "kernel_7"
    assert set(parents.values()).isdisjoint(KERNELS - {"kernel_7"})
    assert [name for name, parent in parents.items() if parent is None] == [road.variants()[0].name]


@roads
def test_side_branches_leave_no_trace(road: Roadmap) -> None:
    assert {step.name for step in road.steps if not step.adopted} == KERNELS - {"kernel_7"}
    kernels = {variant.name: variant.spec.kernel for variant in road.variants()}
    assert [kernels[f"kernel_{size}"] for size in (5, 7, 9, 11)] == [5, 7, 9, 11]
    assert {size for name, size in kernels.items() if name not in KERNELS} == {3, 7}
    assert road.apply(road.adopted()) == road.variants()[-1].spec


@roads
def test_no_two_steps_set_one_field_but_for_the_two_exceptions(road: Roadmap) -> None:
    setters: dict[str, list[str]] = {}
    for step in road.steps:
        for name in step.overrides:
            setters.setdefault(name, []).append(step.name)
    shared = {name: steps for name, steps in setters.items() if len(steps) > 1}
    assert set(shared.pop("kernel")) == KERNELS
    expected = {"width": ["stage_ratio", "increase_width"]} if road.regime == "b" else {}
    assert shared == expected


@roads
def test_steps_commute(road: Roadmap) -> None:
    generator = random.Random(road.regime)
    steps = [step for step in road.steps if step.adopted]
    for _ in range(50):
        chosen = generator.sample(steps, generator.randint(1, len(steps)))
        names = [step.name for step in chosen]
        spec = road.base
        for step in chosen:
            spec = spec.replace(**step.overrides)
        together = road.apply(names)
        if road.regime == "b" and {"stage_ratio", "increase_width"} <= set(names):
            spec = spec.replace(width=together.width)  # the stated exception: the later step's 128
            assert together.width == 128
        assert spec == together == road.apply(reversed(names))


@roads
def test_leaving_a_step_out_undoes_its_fields_and_no_others(road: Roadmap) -> None:
    end = road.variants()[-1].spec
    for step in road.steps:
        if not step.adopted:
            assert road.without(step.name) == end
            continue
        changed = {name: getattr(road.without(step.name), name) for name in step.overrides}
        assert end.replace(**changed) == road.without(step.name)
        if step.overrides:
            assert road.without(step.name) != end


@walks
def test_rows_pairs_and_all_but_one_step_are_networks(road: Roadmap) -> None:
    """Without weights. Counting runs the network, and leaves out only what changes no shape."""
    specs = {variant.spec for variant in road.variants()}
    specs |= {road.without(step.name) for step in road.steps}
    assert len(specs) > 25
    pairs = list(itertools.combinations(road.steps, 2))
    assert len(pairs) == 120
    specs |= {shallow(road.apply([one.name, other.name])) for one, other in pairs}
    for spec in specs:
        assert count_spec(spec, 64, 7).macs > 0


def test_rows_and_random_subsets_are_networks_for_real() -> None:
    road, generator = get_roadmap("nano"), random.Random(0)
    specs = [variant.spec for variant in road.variants()]
    for _ in range(20):
        steps = generator.sample(road.steps, generator.randint(0, len(road.steps)))
        # Narrow, since some subsets are large: dense 11x11 convolutions of the wide side.
        specs.append(road.apply(step.name for step in steps).replace(width=4))
    for spec in specs:
        with torch.no_grad():
            logits = RoadmapNet(spec, num_classes=7).eval()(torch.zeros(2, 3, 32, 32))
        assert logits.shape == (2, 7), spec
        assert logits.isfinite().all(), spec


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    road = get_roadmap("t")
    for ask in (road.step, road.variant, road.upto, road.without, lambda name: road.apply([name])):
        with pytest.raises(StepError, match=r"^kernel_8: no such step on the t road map; did you"):
            ask("kernel_8")
    with pytest.raises(StepError, match=r"^tiny: no such road map; use one of t, b, nano$"):
        get_roadmap("tiny")
