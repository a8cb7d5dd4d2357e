"""Removal equals masking, in double precision: for every family, and by every method."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from support.nets import walk
from support.pruning_nets import FOREIGN, SMALL, foreign, mask, pictures, small
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import (
    Group,
    Kept,
    PruningError,
    kept_of,
    widths_left,
)
from convnext_study.studies.pruning.costs import Images, untrained
from convnext_study.studies.pruning.dependency_graph import DependencyGraph
from convnext_study.studies.pruning.families import make_network
from convnext_study.studies.pruning.methods import architectures, magnitude
from convnext_study.studies.pruning.methods.reconstruction import reader_of
from convnext_study.studies.pruning.prune import MASKS, METHODS, MethodArgs, Trained
from convnext_study.studies.pruning.removal import (
    find_groups,
    network_of,
    own_ref,
    pruned_ref,
    remove,
    spec_of,
)

IMAGE = (3, 16, 16)
every_family = walk(SMALL, SMALL.keys() - {"bottleneck"})


def some(groups: Sequence[Group], seed: int = 0) -> Kept:
    """About half of the channels of every group, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        group.name: sorted(
            torch.randperm(group.width, generator=generator)[: max(1, group.width // 2)].tolist()
        )
        for group in groups
    }


def close(a: Tensor, b: Tensor) -> bool:
    assert b.std() > 1e-3, "outputs that do not depend on the image would hide a difference"
    return torch.allclose(a, b, rtol=1e-9, atol=1e-11)


@every_family
def test_removal_equals_masking(name: str) -> None:
    """Of all groups at once, and of each alone; the record builds what is left, which can be
    pruned again."""
    net, x = small(SMALL[name]), pictures(2)
    groups, whole = find_groups(net, IMAGE).groups, net(x)
    for chosen in (*([group] for group in groups), groups):
        kept, masked = some(chosen), copy.deepcopy(net)
        narrow = remove(net, kept, IMAGE)
        mask(masked, kept, IMAGE)
        assert close(narrow(x), masked(x)), list(kept)
        widths = {group.name: group.width for group in find_groups(narrow, IMAGE).groups}
        assert {name: widths[name] for name in kept} == {name: len(kept[name]) for name in kept}
    assert torch.equal(net(x), whole)  # the parent stays
    built = rebuilt(pruned_ref(own_ref(SMALL[name]), kept, IMAGE))
    assert spec_of(built) == spec_of(narrow)
    built.load_state_dict(narrow.state_dict())
    assert torch.equal(built(x), narrow(x))
    second = some(find_groups(narrow, IMAGE).groups, seed=1)
    both = {name: [kept[name][at] for at in second[name]] for name in kept}
    assert torch.equal(remove(narrow, second, IMAGE)(x), remove(net, both, IMAGE)(x))


def rebuilt(ref: ModelRef) -> nn.Module:
    """A network of plain data, as a record has it."""
    torch.manual_seed(0)
    args = json.loads(json.dumps(ref.args))
    return network_of(ref.model_copy(update={"args": args}), 5).double().eval()


@pytest.mark.parametrize("family", [name for name in SMALL if "selected" not in name])
def test_torch_pruning_finds_the_same_groups_and_gives_the_same_outputs(family: str) -> None:
    """But for selections, which its graph does not know."""
    net, x = small(SMALL[family]), pictures(2)
    ours = [group for group in find_groups(net, IMAGE).groups if not group.positions]
    traced = copy.deepcopy(net)
    found = DependencyGraph(traced, IMAGE)
    theirs = {group.name: group for group in found.groups}
    for group in ours:
        other = theirs[group.name]
        assert (other.width, other.producers) == (group.width, group.producers)
        assert (other.norms, other.consumers) == (group.norms, group.consumers)
    kept = some(ours)
    found.remove(kept)
    assert close(traced(x), remove(net, kept, IMAGE)(x))
    sizes = [tuple(weight.shape) for weight in remove(net, kept, IMAGE).parameters()]
    assert [tuple(weight.shape) for weight in traced.parameters()] == sizes


@pytest.mark.parametrize("name", FOREIGN)
def test_networks_of_other_rooms(name: str) -> None:
    net, x, image = foreign(name), pictures(2, 32), (3, 32, 32)
    groups = find_groups(net, image).groups
    assert len(groups) >= 4
    kept = some(groups)
    narrow = remove(net, kept, image)
    ref = pruned_ref(FOREIGN[name], kept, image)
    again, other = rebuilt(ref), rebuilt(ref)
    for key, weight in again.state_dict().items():
        assert torch.equal(weight, other.state_dict()[key])
    again.load_state_dict(narrow.state_dict())
    assert torch.equal(again(x), narrow(x))
    first = groups[0].name
    twice = rebuilt(pruned_ref(ref, {first: [0]}, image))
    assert twice.get_parameter(f"{first}.weight").shape[0] == 1
    mask(net, kept, image)
    assert close(narrow(x), net(x))
    for group in groups:
        assert narrow.get_parameter(f"{group.name}.weight").shape[0] == len(kept[group.name])


def test_channels_that_are_concatenated() -> None:
    net, image, x = foreign("densenet"), (3, 32, 32), pictures(2, 32)
    groups = {group.name: group for group in find_groups(net, image).groups}
    group = groups["features.denseblock1.denselayer1.conv2"]
    assert group.concatenated and not group.norms and not group.consumers
    assert not groups["features.denseblock1.denselayer1.conv1"].concatenated
    narrow = remove(net, {group.name: [1, 3]}, image)
    mask(net, {group.name: [1, 3]}, image)
    assert close(narrow(x), net(x))
    with pytest.raises(PruningError, match="not read by exactly one convolution"):
        reader_of(net, group)


def test_where_a_norm_averages_over_channels_only_hidden_widths_go() -> None:
    groups = find_groups(foreign("roadmap_end"), (3, 32, 32)).groups
    assert [group.stage for group in groups] == [0, 1, 2, 2, 3]
    assert [group.name for group in groups] == [
        f"stages.{stage}.blocks.{block}.branch.pw1"
        for stage, depth in enumerate((1, 1, 2, 1))
        for block in range(depth)
    ]
    spec = get_roadmap("nano").upto("separate_downsampling").replace(grn=True, depths=(1, 1, 1, 1))
    assert find_groups(RoadmapNet(spec, num_classes=5), (3, 32, 32)).groups == ()


def test_mode_and_type_stay_and_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "stages.0.blocks.0.conv1"
    net = make_network(SMALL["resnet"], num_classes=5)
    narrow = remove(net, {name: [1]}, IMAGE)
    assert narrow.training and next(narrow.parameters()).dtype == torch.float32
    with pytest.raises(PruningError, match=rf"^{name}: all of its 6 channels would be removed; "):
        remove(net, {name: []}, IMAGE)
    with pytest.raises(PruningError, match=r"^stages\.0\.blocks\.0\.conv2: has no channels .*\?$"):
        mask(net, {"stages.0.blocks.0.conv2": [0]}, IMAGE)
    with pytest.raises(PruningError, match=rf"^{name}: name each of its 6 channels at most once$"):
        mask(net, {name: [0, 6]}, IMAGE)
    with pytest.raises(UserError, match=r"^torch-pruning cannot follow MultipathNet at 16x16: "):
        find_groups(
            timm.create_model("multipath_small", width=4, modules=1, implementation="plain"), IMAGE
        )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'convnext-study\[pruning\]'$"):
        find_groups(foreign("convnext_atto"), (3, 32, 32))


OURS = ("vgg", "vgg_bn", "resnet", "preresnet", "densenet_bc", "densenet_selected", "bottleneck")
OTHERS = ("roadmap_end", "roadmap_depthwise", "convnext_atto", "densenet")
FITTED = ("random-widths", "stage-shares")  # widths that no method of the network's own chose
# Whole branches go, and patterns within kernels leave every filter: test_structures.py.
APART = ("structure-selection", "guided-patterns")
# What a method does not have to work on, and what it says then.
REFUSALS = {
    ("slimming", "roadmap_end"): "no prunable channels have a BatchNorm",
    ("slimming", "convnext_atto"): "no prunable channels have a BatchNorm",
}
# Every method on two networks, our own and a traced one, and two methods on every network; the
# other pairs are walked where there is time.
PAIRS = [
    pytest.param(
        method,
        family,
        marks=()
        if family in ("vgg_bn", "densenet") or method in ("slimming", "l1-norm")
        else pytest.mark.exhaustive,
    )
    for method, family in itertools.product(
        [*METHODS, *(name for name in MASKS if name not in APART), *FITTED], [*OURS, *OTHERS]
    )
]


def fitted(trained: Trained, method: str) -> Kept:
    """Widths of half the budget: drawn at random, or of a network whose ends lost most."""
    groups, whole = trained.groups, trained.design
    if method == "stage-shares":
        kept = {groups[0].name: [0], groups[-1].name: [0]}
        shares = architectures.shares_by_stage(groups, groups, kept)
        return kept_of(architectures.widths_at(groups, shares))
    least = whole.narrowed({group.name: 1 for group in groups}).cost.macs
    shares = architectures.random_shares(groups, seed=1)
    return kept_of(architectures.fit_widths(whole, groups, shares, (whole.cost.macs + least) // 2))


def emptied(trained: Trained, names: Sequence[str], args: MethodArgs) -> Kept:
    """The filters of which a mask leaves a weight; they can go once their shifts are zero too."""
    with torch.no_grad():
        for name in names:  # so small that magnitude pruning takes them whole
            trained.net.get_parameter(f"{name}.weight")[::2] *= 1e-6
    held = MASKS[args.method](trained, args)
    magnitude.apply_masks(trained.net, held)
    return {
        name: held[f"{name}.weight"].flatten(1).any(1).nonzero().flatten().tolist() or [0]
        for name in names
        if f"{name}.weight" in held
    }


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_removal_by_a_method_equals_masking(method: str, family: str) -> None:
    net: Any = foreign(family) if family in FOREIGN else small(SMALL[family])
    ref = FOREIGN.get(family) or own_ref(SMALL[family])
    images = Images(32 if family in FOREIGN else 16, 5)
    x, image = pictures(3, images.side), images.shape
    design = untrained(ref, images)
    labels = torch.arange(3)
    trained = Trained(net, ref, images, lambda count: [(x, labels)], 3, design)
    groups = trained.groups
    own = [group for group in groups if group.producers]
    if method in ("thinet", "regression"):  # two that a layer reads whole: each takes its time
        own = [group for group in groups if is_read_by_layers(group)][-2:]
    args = MethodArgs(method=method, widths=widths_left(own, 0.5), ratio=0.5)
    if (method, family) in REFUSALS:
        with pytest.raises(UserError, match=REFUSALS[method, family]):
            METHODS[method](trained, args)
        return
    if method in FITTED:
        kept = fitted(trained, method)
    elif method in MASKS:
        kept = emptied(trained, [group.name for group in own], args)
    else:
        kept = METHODS[method](trained, args)
    if not own and method != "slimming":
        assert kept == {} or method in FITTED  # selections have no filters
    else:
        widths = {group.name: group.width for group in groups}
        assert any(len(channels) < widths[name] for name, channels in kept.items())
    narrow = remove(net, kept, image)
    mask(net, kept, image)
    assert close(narrow(x), net(x))


def is_read_by_layers(group: Group) -> bool:
    return not group.concatenated and all(repeat == 1 for _, repeat in group.consumers)
