"""Networks of timm: what is followed, what stays whole, and that removal is what the mask does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support import pruning_timm
from support.pruning_nets import mask, pictures, settle
from torch import nn

from convnext_study.errors import UserError
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning import dependency_graph
from convnext_study.studies.pruning.channel_groups import PruningError, kept_of, widths_left
from convnext_study.studies.pruning.costs import Images, untrained
from convnext_study.studies.pruning.dependency_graph import sound_groups
from convnext_study.studies.pruning.methods.architectures import keep_channels
from convnext_study.studies.pruning.methods.magnitude import keep_filters
from convnext_study.studies.pruning.plans import fixed_size
from convnext_study.studies.pruning.removal import remove
from convnext_study.studies.pruning.targets import describe_half

IMAGE = (3, 32, 32)
DOCS = Path(__file__).parents[3] / "docs" / "pruning.md"


class Gated(nn.Module):
    """A hidden layer that is split into factors, as in a GLU, or read in groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.read = nn.Conv2d(12 // (1 if groups > 1 else 2), 6, 1, groups=groups)
        self.fc = nn.Linear(6, 4)
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        if self.groups == 1:
            a, b = x.chunk(2, 1)
            x = a * b.sigmoid()
        return self.fc(self.read(x).mean((2, 3)))  # type: ignore[no-any-return]


def small(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return settle(timm.create_model(name, num_classes=5, **kwargs))


# Networks, and a layer of each: by a gate, in groups, before a blur, before a constant, of heads.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "efficientnet_b0": ({}, "blocks.1.0.conv_pw"),
    "regnety_002": ({}, "s2.b1.conv2.conv"),
    "resnetblur18": ({}, "layer2.0.conv1"),
    "hgnetv2_b0": ({}, "stages.0.blocks.0.layers.0.conv"),
    "vit_tiny_patch16_224": ({"depth": 2, "img_size": 32}, "blocks.1.attn.qkv"),
}


@pytest.mark.parametrize("name", CASES)
def test_removal_equals_masking_in_networks_of_timm(name: str) -> None:
    kwargs, followed = CASES[name]
    net, x = small(name, **kwargs), pictures(2, 32)
    groups, left_whole, difference, _ = sound_groups(net, IMAGE)
    assert (left_whole, difference < 1e-12) == ((), True)
    assert followed in {group.name for group in groups}
    own = [group for group in groups if group.producers]
    kept = keep_filters(net, own, widths_left(own, 0.5), choose="random")
    narrow, before = remove(net, kept, IMAGE), net(x)
    mask(net, kept, IMAGE)
    assert (net(x) - before).abs().max() > 1e-3 * before.std()
    largest = float(before.detach().abs().max())
    assert torch.allclose(narrow(x), net(x), rtol=1e-9, atol=1e-9 * largest)


@pytest.mark.parametrize("groups", [1, 3])
def test_channels_that_go_together(groups: int) -> None:
    net = settle(Gated(groups))
    (group, *_), whole, difference, _ = sound_groups(net, IMAGE)
    assert (group.name, whole, difference < 1e-12) == ("stem", (), True)
    sets = 2 if groups == 1 else 3
    each = 12 // sets
    assert group.units == tuple(tuple(range(at, 12, each)) for at in range(each))
    assert widths_left([group], 0.5) == {"stem": each // 2 * sets}
    assert kept_of({"stem": sets}, [group]) == {"stem": list(group.units[0])}
    with pytest.raises(
        PruningError, match=rf"^stem: its channels are removed in groups of {sets}$"
    ):
        remove(net, {"stem": range(sets)}, IMAGE)
    with pytest.raises(
        PruningError, match=rf"^stem: its channels are removed in groups of {sets}$"
    ):
        keep_filters(net, [group], {"stem": 1})
    with torch.no_grad():  # of a set all stay where one does
        scale = nn.BatchNorm2d(12)
        scale.weight.copy_(torch.arange(12) == 5)
        net.norm = scale
    normed = dataclasses.replace(group, norms=("norm",))
    assert keep_channels(net, [normed], 0.5) == {"stem": list(range(5 % each, 12, each))}


def test_what_a_mask_does_not_do_stays_whole() -> None:
    shape = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
    ref = {"name": "convnextv2_atto", **shape}
    net = timm.create_model("convnextv2_atto", **shape, num_classes=5)
    groups, whole, *_ = sound_groups(net, IMAGE)
    assert groups == () and whole == tuple(f"stages.{stage}.blocks.0.mlp.fc1" for stage in range(4))
    with pytest.raises(UserError) as caught:
        describe_half("tiny", untrained(ModelRef(builder="timm", args=ref), Images(32, 5)))
    about = "half of the channels of tiny leaves 100% of its MACs; not pruned"
    assert about in str(caught.value) and "stages.2.blocks.0.mlp.fc1 and 1 more" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_why_a_layer_stays_whole_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def removal(error: Exception) -> None:
        def fails(self: Any, kept: Any) -> None:
            raise error

        monkeypatch.setattr(dependency_graph.DependencyGraph, "remove", fails)

    removal(IndexError("no such channel\nat all"))
    assert sound_groups(Gated(2), IMAGE) == ((), ("stem", "read"), 0.0, "no such channel")
    for error in (MemoryError(), torch.OutOfMemoryError()):
        removal(error)
        with pytest.raises(type(error)):
            sound_groups(Gated(2), IMAGE)


def test_heads_of_an_older_attention() -> None:
    attention: Any = timm.layers.attention.Attention(12, num_heads=3)
    del attention.gate, attention.attn_dim
    group = dependency_graph._heads("attn.qkv", attention.qkv, attention)
    assert group is not None and (group.width, group.count) == (36, 3)
    dependency_graph._remove_heads(attention, group.gone(group.channels_of([0, 2])))
    assert (attention.num_heads, attention.proj.in_features) == (2, 8)


def test_networks_of_one_size_are_given_the_images() -> None:
    assert fixed_size("vit_tiny_patch16_224", 32) == {"img_size": 32}
    assert fixed_size("vit_tiny_patch16_224", 224) == fixed_size("resnet18", 32) == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", pruning_timm.NAMES)
def test_the_table_of_thirty_networks(name: str) -> None:
    assert len({*pruning_timm.NAMES}) == 30
    rows = re.findall(rf"^\| {name} \|.*$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [pruning_timm.row(name)]
