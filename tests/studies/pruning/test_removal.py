"""Removal equals masking, in double precision, for every family; and both ways of removing."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from support.nets import walk
from support.pruning_nets import FOREIGN, SMALL, foreign, pictures, settle, small
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.models.builders import get_builder
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import Group, Kept, PruningError
from convnext_study.studies.pruning.dependency_graph import DependencyGraph
from convnext_study.studies.pruning.families import make_network
from convnext_study.studies.pruning.methods.reconstruction import reader_of
from convnext_study.studies.pruning.removal import (
    groups_of,
    mask,
    pruned_ref,
    remove,
    spec_of,
)

IMAGE = (3, 16, 16)
every_family = walk(SMALL, SMALL.keys() - {"bottleneck"})

every_foreign = pytest.mark.parametrize("name", FOREIGN)


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
    """Of all groups at once, and of each alone."""
    net, x = small(SMALL[name]), pictures(2)
    groups, whole = groups_of(net, IMAGE), net(x)
    for chosen in (groups, *([group] for group in groups)):
        kept, masked = some(chosen), copy.deepcopy(net)
        narrow = remove(net, kept, IMAGE)
        mask(masked, kept, IMAGE)
        assert close(narrow(x), masked(x)), list(kept)
        widths = {group.name: group.width for group in groups_of(narrow, IMAGE)}
        assert {name: widths[name] for name in kept} == {name: len(kept[name]) for name in kept}
    assert torch.equal(net(x), whole)  # the parent stays


@every_family
def test_what_is_left_can_be_pruned_again(name: str) -> None:
    net, x = small(SMALL[name]), pictures(2)
    first = some(groups_of(net, IMAGE))
    once = remove(net, first, IMAGE)
    second = some(groups_of(once, IMAGE), seed=1)
    both = {name: [first[name][at] for at in second[name]] for name in first}
    assert torch.equal(remove(once, second, IMAGE)(x), remove(net, both, IMAGE)(x))


@every_family
def test_the_record_builds_the_same_widths(name: str) -> None:
    net = small(SMALL[name])
    kept = some(groups_of(net, IMAGE))
    ref = pruned_ref(ModelRef(builder="pruning", args=SMALL[name].to_dict()), kept, IMAGE)
    args = json.loads(json.dumps(ref.args))
    built = get_builder(ref.builder)(args, num_classes=5, drop_path=0.0, init="kaiming").double()
    narrow = remove(net, kept, IMAGE)
    assert spec_of(built) == spec_of(narrow)
    built.load_state_dict(narrow.state_dict())
    assert torch.equal(built.eval()(pictures()), narrow(pictures()))


@pytest.mark.parametrize("family", [name for name in SMALL if "selected" not in name])
def test_torch_pruning_finds_the_same_groups_and_gives_the_same_outputs(family: str) -> None:
    """But for selections, which its graph does not know."""
    net, x = small(SMALL[family]), pictures(2)
    ours = [group for group in groups_of(net, IMAGE) if not group.positions]
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


@every_foreign
def test_networks_of_other_rooms(name: str) -> None:
    net, x = foreign(name), pictures(2, 32)
    image = (3, 32, 32)
    groups = groups_of(net, image)
    assert len(groups) >= 4
    kept = some(groups)
    narrow = remove(net, kept, image)
    assert sum(w.numel() for w in narrow.parameters()) < sum(w.numel() for w in net.parameters())
    mask(net, kept, image)
    assert close(narrow(x), net(x))
    for group in groups:
        assert narrow.get_parameter(f"{group.name}.weight").shape[0] == len(kept[group.name])


def test_channels_that_are_concatenated() -> None:
    net, image, x = foreign("densenet"), (3, 32, 32), pictures(2, 32)
    groups = {group.name: group for group in groups_of(net, image)}
    group = groups["features.denseblock1.denselayer1.conv2"]
    assert group.concatenated and not group.norms and not group.consumers
    assert not groups["features.denseblock1.denselayer1.conv1"].concatenated
    narrow = remove(net, {group.name: [1, 3]}, image)
    mask(net, {group.name: [1, 3]}, image)
    assert close(narrow(x), net(x))
    with pytest.raises(PruningError, match="not read by one convolution alone"):
        reader_of(net, group)


def test_where_a_norm_averages_over_channels_only_hidden_widths_go() -> None:
    groups = groups_of(foreign("roadmap_end"), (3, 32, 32))
    assert [group.stage for group in groups] == [0, 1, 2, 2, 3]
    assert [group.name for group in groups] == [
        f"stages.{stage}.blocks.{block}.branch.pw1"
        for stage, depth in enumerate((1, 1, 2, 1))
        for block in range(depth)
    ]
    spec = get_roadmap("nano").upto("separate_downsampling").replace(grn=True, depths=(1, 1, 1, 1))
    assert groups_of(RoadmapNet(spec, num_classes=5), (3, 32, 32)) == ()


@pytest.mark.parametrize("builder", ["roadmap", "timm"])
def test_a_pruned_network_of_another_room_is_rebuilt_from_plain_data(builder: str) -> None:
    args: dict[str, Any] = {"name": "convnext_atto", "depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
    if builder == "roadmap":
        spec = get_roadmap("nano").upto("separate_downsampling").replace(width=8)
        args = spec.replace(depths=(1, 1, 1, 1)).to_dict()
    parent = ModelRef(builder=builder, args=args)
    image = (3, 32, 32)

    def build(ref: ModelRef) -> nn.Module:
        torch.manual_seed(0)
        given = json.loads(json.dumps(ref.args))
        return get_builder(ref.builder)(given, num_classes=5, drop_path=0.0, init="kaiming")

    net = settle(build(parent))
    kept = some(groups_of(net, image))
    ref = pruned_ref(parent, kept, image)
    again, other = build(ref), build(ref)
    for key, weight in again.state_dict().items():
        assert torch.equal(weight, other.state_dict()[key])
    twice = build(pruned_ref(ref, {next(iter(kept)): [0]}, image))
    assert twice.get_parameter(f"{next(iter(kept))}.weight").shape[0] == 1
    narrow = remove(net, kept, image)
    again.double().load_state_dict(narrow.state_dict())
    assert torch.equal(again.eval()(pictures(2, 32)), narrow(pictures(2, 32)))


def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small(SMALL["resnet"])
    name = "stages.0.blocks.0.conv1"
    with pytest.raises(PruningError, match=rf"^{name}: all of its 6 channels would go; "):
        remove(net, {name: []}, IMAGE)
    with pytest.raises(PruningError, match=r"^stages\.0\.blocks\.0\.conv2: has no channels .*\?$"):
        mask(net, {"stages.0.blocks.0.conv2": [0]}, IMAGE)
    with pytest.raises(PruningError, match=rf"^{name}: name each of its 6 channels at most once$"):
        mask(net, {name: [0, 6]}, IMAGE)
    with pytest.raises(UserError, match=r"^torch-pruning cannot follow MultipathNet at 16x16: "):
        groups_of(
            timm.create_model("multipath_small", width=4, modules=1, implementation="plain"), IMAGE
        )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'convnext-study\[pruning\]'$"):
        groups_of(foreign("convnext_atto"), (3, 32, 32))


def test_training_mode_and_type_stay() -> None:
    net = make_network(SMALL["resnet"], num_classes=5)
    narrow = remove(net, {"stages.0.blocks.0.conv1": [1]}, IMAGE)
    assert narrow.training and next(narrow.parameters()).dtype == torch.float32
