"""Steps beyond the end of the road: layer scale, GRN, the isotropic layout, large kernels."""

import pytest
import torch

from convnext_study.cost import closed_form, count_spec
from convnext_study.cost.closed_form import sides
from convnext_study.models.layers import GlobalResponseNorm
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import ROADMAPS, Roadmap, Step, StepError, get_roadmap
from convnext_study.roadmap.extensions import (
    GRN,
    KERNELS,
    LAYER_SCALE,
    extend,
    extension_step,
    extension_steps,
    network_steps,
    sections,
)
from convnext_study.roadmap.paper import ISOTROPIC
from convnext_study.roadmap.spec import SpecError

NANO, T = get_roadmap("nano"), get_roadmap("t")
roads = pytest.mark.parametrize("road", ROADMAPS.values(), ids=list(ROADMAPS))


@pytest.mark.parametrize("size", list(ISOTROPIC))
def test_isotropic_networks_are_those_of_table_2(size: str) -> None:
    step = extension_step(T, f"isotropic_{size}")
    spec = extend(T, step).apply([*T.adopted(), step.name])
    cost = count_spec(spec, 224)
    printed = ISOTROPIC[size]
    assert round(cost.params / 1e6) == printed.params
    assert round(cost.macs / 1e9, 1) == printed.gflops
    assert closed_form(spec, 224) == cost


def test_an_isotropic_network_keeps_its_map_and_width() -> None:
    spec = T.variants()[-1].spec.replace(layout="isotropic", width=384)
    with torch.device("meta"):
        net = RoadmapNet(spec)
        _, maps = net.forward_intermediates(torch.zeros(1, 3, 224, 224))
    assert {tuple(found.shape) for found in maps} == {(1, 384, 14, 14)}
    assert {info["reduction"] for info in net.feature_info} == {16}
    assert not [name for name, _ in net.named_parameters() if "downsample" in name]
    assert not [name for name, _ in net.named_parameters() if name.startswith("stem.norm")]


@roads
def test_every_step_beyond_gives_a_network_that_can_be_counted(road: Roadmap) -> None:
    for step in extension_steps(road):
        wide = extend(road, step, adopted=False)
        variant = wide.variant(step.name)
        assert variant.parent == road.adopted()[-1]
        assert variant.spec != wide.variant(variant.parent).spec
        size = road.image_size
        assert closed_form(variant.spec, size) == count_spec(variant.spec, size), step.name


@roads
def test_further_steps_are_new_and_commute_with_the_road(road: Roadmap) -> None:
    assert not {step.name for step in extension_steps(road)} & {step.name for step in road.steps}
    wide = extend(road, *(step for step in extension_steps(road) if step not in KERNELS))
    everything = wide.adopted()
    assert wide.apply(everything) == wide.apply(reversed(everything))
    assert wide.variants()[-1].parent == wide.adopted()[-2]
    assert road.variants() == wide.variants()[: len(road.variants())]


def test_kernels_go_to_31_and_keep_the_map() -> None:
    assert [step.overrides["kernel"] for step in KERNELS] == [3, 5, *range(9, 32, 2)]
    spec = NANO.variants()[-1].spec
    assert sides(spec, 32) == sides(spec.replace(kernel=31), 32)
    with torch.no_grad():
        out = RoadmapNet(spec.replace(kernel=31, width=4), num_classes=3)(torch.zeros(1, 3, 32, 32))
    assert out.shape == (1, 3)


def test_grn_is_that_of_convnext_v2() -> None:
    from timm.layers.grn import GlobalResponseNorm as Theirs

    ours, theirs = GlobalResponseNorm(6), Theirs(6, channels_last=False)
    x = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), x), "it starts as the identity"
    with torch.no_grad():
        for mine, its in ((ours.gamma, theirs.weight), (ours.beta, theirs.bias)):
            mine.copy_(torch.randn(6))
            its.copy_(mine)
    torch.testing.assert_close(ours(x), theirs(x))
    assert not torch.allclose(ours(x), x)


def test_grn_and_layer_scale_are_not_decayed_and_have_gradients() -> None:
    wide = extend(NANO, LAYER_SCALE, GRN)
    spec = wide.apply(wide.adopted()).replace(width=4, layer_scale=0.1, activation="relu")
    net = RoadmapNet(spec, num_classes=3)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    found = {name: p for name, p in net.named_parameters() if "grn" in name or "scale" in name}
    assert len(found) == 3 * sum(spec.depths)
    assert all(parameter.ndim == 1 for parameter in found.values())
    grads = [parameter.grad for parameter in found.values()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    # A channel that answers nowhere has a norm of 0, whose gradient is not that of a division.
    dead = torch.zeros(1, 4, 2, 2, requires_grad=True)
    GlobalResponseNorm(4)(dead).sum().backward()
    assert dead.grad is not None and dead.grad.isfinite().all()


def test_steps_that_cannot_be_added_are_refused() -> None:
    def step(name: str = "mine", **sets: object) -> Step:
        return Step(name=name, label="mine", section="Ours", rationale="", overrides=sets)

    with pytest.raises(StepError, match="gelu: the nano road map already has a step of that name"):
        extend(NANO, step("gelu", width=3))
    with pytest.raises(StepError, match="use letters"):
        extend(NANO, step("../mine", width=3))
    with pytest.raises(SpecError, match="did you mean width"):
        extend(NANO, step(widht=3))
    with pytest.raises(StepError, match="did you mean grn"):
        extension_step(NANO, "gnr")


def test_a_later_step_has_the_last_word() -> None:
    mine = Step(name="mine", label="", section="", rationale="", overrides={"kernel": 9})
    wide = extend(NANO, mine)
    assert wide.variants()[-1].spec.kernel == 9
    assert wide.without("mine").kernel == 7


@roads
def test_sections_hold_the_networks_steps(road: Roadmap) -> None:
    found = sections(road)
    assert list(found) == ["2.2", "2.3", "2.4", "2.5", "2.6"]
    assert sum(found.values(), ()) == network_steps(road)
    assert len(network_steps(road)) == 12
