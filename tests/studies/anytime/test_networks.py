"""The networks: counts of the reference to the last digit, heads, records, any backbone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import timm
import torch
from support.anytime_nets import anytime_net, images
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.cost import count
from convnext_study.errors import UserError
from convnext_study.models.builders import get_builder
from convnext_study.report.tables import Table
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.anytime import costs
from convnext_study.studies.anytime.backbones import FlexHead, make_backbone
from convnext_study.studies.anytime.costs import (
    CLASSES,
    cost_tables,
    counted,
    counted_networks,
    spec_of,
)
from convnext_study.studies.anytime.layer_cost import exit_macs
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.spec import HRNETS, AnytimeSpec, published

COUNTED = {one["name"]: one for one in counted_networks() if "macs" in one}
DIGITS_PARAMS = 126_796


def size(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def backbone_of(name: str) -> Any:
    return make_backbone(AnytimeSpec(backbone=name))


@pytest.fixture(scope="module")
def cost_table() -> Table[Any]:
    (table,) = cost_tables()
    return table


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", COUNTED)
def test_counts_are_those_of_the_authors_networks(name: str, cost_table: Table[Any]) -> None:
    """The table's are, and the other counter's."""
    network = COUNTED[name]
    rows = [row for row in cost_table.rows if row.network is network]
    assert all(row.as_counted for row in rows)
    macs = [row.macs for row in rows]
    assert macs == (network["macs"] if "heads" in network else [network["macs"]])
    assert rows[-1].params == network["params"]
    if "heads" in network:
        assert [row.head_macs for row in rows] == network["head_macs"]
        assert [row.head_params for row in rows] == network["head_params"]
        assert [row.params for row in rows] == network["params_to_exit"]
    if network["backbone"] != "w48":  # it takes a second
        with torch.device("meta"):
            net = AnytimeNet(spec_of(network), num_classes=CLASSES)
        assert count(net, (3, *network["input"])).macs == macs[-1]


@pytest.mark.parametrize("key", ["w18", "w48"])
def test_backbones_are_those_of_the_reference(key: str) -> None:
    known = published()["backbone"][key]
    with torch.device("meta"):
        net = backbone_of(known["timm"])
    assert size(net) == known["params"]
    assert list(net.exit_channels) == known["exit_channels"]


@pytest.mark.exhaustive
def test_every_published_exit_is_counted_and_the_erratum_is_ours_to_show(
    cost_table: Table[Any],
) -> None:
    rows = {(row.network["name"], row.exit): row for row in cost_table.rows}
    assert len(rows) == 5 * 4 + 2 + (1 + 4 + 4)
    joints = [rows["w32-pose-rh", exit] for exit in (1, 2, 3, 4)]
    assert [one.as_counted for one in joints] == [None] * 4
    assert joints[3].macs > joints[2].macs > joints[1].macs > joints[0].macs
    printed = {
        key: row.printed_gflops and round(row.gimac, 1) == row.printed_gflops
        for key, row in rows.items()
    }
    assert [printed["w48-rh", exit] for exit in (1, 2, 3, 4)] == [True] * 4
    assert printed["w48-plain", 4] is True
    assert [printed["w48-ee", exit] for exit in (1, 2, 3, 4)] == [False] * 4
    assert printed["w18-rh", 1] is None
    assert rows["w48-ee", 4].gimac == pytest.approx(722.2, abs=0.005)
    (erratum,) = [note for note in cost_table.notes if note.startswith("†")]
    assert erratum.startswith("† HRNet-W48, EE:") and "196.3" in erratum
    marks = [(row["name"], row["as_counted"]) for row in cost_table.records()]
    assert {name for name, mark in marks if mark == "= †"} == {"w48-ee"}
    assert {mark for _, mark in marks} == {"=", "= †", "ours"}


def test_a_count_that_is_another_is_not_marked_as_equal() -> None:
    assert all(row.as_counted for row in counted(COUNTED["w18-rh"]))
    other = {**COUNTED["w18-rh"], "head_params": [1, 2, 3, 4]}
    assert not any(row.as_counted for row in counted(other))


def test_the_command_shows_every_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "counted_networks", lambda: [COUNTED["w18-rh"]])
    done = CliRunner().invoke(app, ["cost", "--study", "anytime", "--json"])
    assert done.exit_code == 0, done.exception
    rows = json.loads(done.stdout)["networks"]
    assert [row["exit"] for row in rows] == [1, 2, 3, 4]
    assert (rows[3]["macs"], rows[3]["params"]) == (78626881536, 3997492)


def test_the_backbone_is_timms_but_for_bilinear_fusion() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("hrnet_w18_small_v2").double().eval()
    ours = backbone_of("hrnet_w18_small_v2").double().eval()
    kept = {
        name: weight for name, weight in theirs.state_dict().items() if name in ours.state_dict()
    }
    ours.load_state_dict(kept)
    x = images((64, 64), 1, dtype=torch.float64)

    def branches() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        with torch.no_grad():
            stem = theirs.act2(theirs.bn2(theirs.conv2(theirs.act1(theirs.bn1(theirs.conv1(x))))))
            maps = [x]
            for stage in (1, 2, 3, 4):
                maps = ours.run_stage(stage, maps)
            return theirs.stages(stem), maps

    assert not torch.equal(*(one[0] for one in branches()))
    changed = [one for one in theirs.modules() if isinstance(one, torch.nn.Upsample)]
    for module in changed:
        module.mode = "bilinear"
    assert len(changed) == 22
    for their, our in zip(*branches(), strict=True):
        assert torch.equal(their, our)
    norms = [one for one in ours.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.01}


@pytest.mark.parametrize("heads", ["original", "flex"])
@pytest.mark.parametrize("masks", ["none", "confidence"])
def test_every_parameter_gets_a_gradient(heads: str, masks: str) -> None:
    net = anytime_net(heads=heads, masks=masks).train()
    net.threshold = 0.5
    sum(one.square().mean() for one in net(images())).backward()
    without = [name for name, weight in net.named_parameters() if weight.grad is None]
    assert not without


def test_one_exit_baselines_leave_later_stages_out() -> None:
    sizes = {}
    for exits in ((1,), (2,), (4,), (1, 2, 3, 4)):
        net = anytime_net(exits=exits, heads="original")
        sizes[exits] = size(net)
        assert len(net(images())) == len(exits)
    assert sizes[1,] < sizes[2,] < sizes[4,] < sizes[1, 2, 3, 4]
    relations = [size(anytime_net(backbone=name, exits=(4,))) for name in sorted(HRNETS)]
    assert relations[1] < relations[0] < relations[2]  # narrow, the usual one, wide
    assert size(anytime_net(classes=11)) == DIGITS_PARAMS
    plain = anytime_net(exits=(4,))
    whole = anytime_net(heads="flex")
    weights = {name: whole.state_dict()[name] for name in plain.state_dict()}
    plain.load_state_dict(weights)
    assert torch.equal(plain(images())[0], whole(images())[3])


def test_flex_heads_keep_sizes_that_do_not_divide() -> None:
    head = FlexHead(6, 4, 3, poolings=3).eval()
    assert head(torch.randn(1, 6, 7, 5)).shape == (1, 3, 7, 5)


def test_images_that_hrnet_cannot_take_are_named() -> None:
    with pytest.raises(UserError, match=r"48x64.*32"):
        anytime_net()(torch.zeros(1, 3, 48, 64))


def test_a_record_builds_the_network() -> None:
    args = AnytimeSpec(heads="original", exits=(2, 4)).to_dict()
    net = get_builder("anytime")(args, num_classes=7, drop_path=0.0, init="kaiming")
    assert net.spec == AnytimeSpec.from_dict(args)
    assert [one.shape[1] for one in net(images())] == [7, 7]
    small = get_builder("anytime")(args, num_classes=7, drop_path=0.0, init="normal")
    weight = small.get_parameter("backbone.layer1.0.conv1.weight")
    assert weight.std().item() == pytest.approx(0.001, rel=0.2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "flex"}, "head: no such field"),
        ({"heads": "big"}, "heads: 'big'"),
        ({"exits": []}, "exits"),
        ({"exits": [2, 1]}, "exits"),
        ({"exits": [5]}, "there is no exit 5"),
        ({"backbone": "hrnet_w49"}, "did you mean hrnet_w"),
        ({"backbone": "convnext_ato"}, "convnext_atto"),
        ({"backbone": "vit_tiny_patch16_224"}, "all features at once"),
        ({"threshold": 1.5}, "threshold"),
        ({"grid": -1}, "grid"),
        ({"head_momentum": 2}, "head_momentum"),
        ({"masks": "random"}, "random_shares"),
        ({"masks": "random", "random_shares": [0.2, 0.5, 0.5]}, "cannot increase"),
        ({"pretrained": True}, "no weights"),
    ],
)
def test_what_no_network_can_have_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        anytime_net(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "backbone",
    ["roadmap_nano_resnet", "roadmap_nano_separate_downsampling", "convnext_atto", "resnet18"],
)
def test_any_backbone_gets_the_same_exits(backbone: str) -> None:
    net = anytime_net(backbone=backbone, masks="confidence", flex_width=8)
    x = images((64, 64), 1)
    with torch.no_grad():
        net.threshold = 1.0
        dense = net(x)
        net.threshold = 0.0
        kept = net(x)
    features = timm.create_model(backbone, features_only=True)
    strides = [stride for stride in features.feature_info.reduction() if stride >= 4]
    assert len(dense) == len(strides) == 4
    assert {one.shape[-1] for one in dense} == {64 // strides[0]}
    assert all(torch.equal(one, kept[0]) for one in kept)
    whole = exit_macs(net.layer_costs((3, 64, 64)))
    assert whole == sorted(whole)
    assert whole[-1] == count(net, (3, 64, 64)).macs


@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "convnext_atto", "multipath_small"])
def test_stages_one_by_one_are_timms_features(name: str) -> None:
    net: Any = anytime_net(backbone=name, exits=(3,), flex_width=8).backbone
    chosen = [
        one["index"]
        for one in net.net.feature_info.info
        if one["index"] in net.net.feature_info.out_indices
    ]
    theirs = timm.create_model(name, features_only=True, out_indices=chosen).eval()
    theirs.load_state_dict(net.net.state_dict())
    x = images()
    with torch.no_grad():
        maps = [x]
        for stage in (1, 2, 3):
            maps = net.run_stage(stage, maps)
        assert all(torch.equal(*pair) for pair in zip(net.exit_maps(maps), theirs(x), strict=True))


def test_squeeze_and_excitation_is_not_masked() -> None:
    net = anytime_net(backbone="regnety_002", masks="confidence", flex_width=8)
    sizes = {
        layer.size for added in net.layer_costs((3, 128, 128)) for layer in added if layer.masked
    }
    assert sizes and (1, 1) not in sizes


def test_the_authors_checkpoints_load_by_their_names() -> None:
    net = anytime_net(masks="confidence")
    released = {"loss.criterion.weight": torch.ones(5)}
    for name, weight in net.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "heads":
            exit, kind, *more = rest.split(".")
            if exit == "4":
                rest = ".".join(["last_layer", kind, *more])
            else:  # resizing, convolution, BatchNorm and ReLU are numbered in one row
                number = 4 * int(more[0]) + {"convs": 1, "norms": 2}[kind]
                rest = ".".join([f"exit{exit}", str(number), *more[1:]])
        if name.endswith("fill_lambda"):
            rest, weight = rest.replace("fill_lambda", "Lambda"), weight[0]
            released[f"model.{rest.replace('Lambda', 'square_dis')}"] = torch.zeros(7, 7)
        released[f"model.{rest}"] = weight
    assert {"model.exit1.21.bias", "model.exit3.2.weight", "model.last_layer.3.Lambda"} <= set(
        released
    )
    other = AnytimeNet(net.spec, num_classes=5).eval()
    other.load_state_dict(released)
    assert all(torch.equal(*pair) for pair in zip(net(images()), other(images()), strict=True))
