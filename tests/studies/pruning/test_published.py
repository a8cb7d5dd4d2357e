"""The published networks: every count of the file, and the rules behind them."""

from __future__ import annotations

import json

import pytest
import torch

from convnext_study.errors import UserError
from convnext_study.models.builders import get_builder
from convnext_study.roadmap.spec import SpecError
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning import published
from convnext_study.studies.pruning.costs import counted, differences
from convnext_study.studies.pruning.published import get_network, networks
from convnext_study.studies.pruning.spec import from_dict


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
    for name, quoted in published.tables()["rules"]["extra_epochs_quoted"].items():
        pruned = get_network(name)
        digits = 5 if pruned.input == 32 else 2
        large, small = (
            round(counted(one)["budget_flops"] / 1e9, digits) for one in (str(pruned.of), name)
        )
        assert large / small - 1 == pytest.approx(quoted, abs=1e-10)


def test_counts_that_sources_print() -> None:
    for entry in published.tables()["published_count"]:
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
        ({"widths": [8, 0]}, "^widths: .*at least 1$"),
        ({"widths": [8, 1.5]}, "^widths: 1.5; "),
        ({"head": "512", "hidden": [8, 8]}, "^hidden: .*head 512 has 1 layers$"),
    ],
)
def test_bad_specs_are_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_dict({"family": "vgg", "widths": [8, "M", 8], **change})
    with pytest.raises(SpecError, match=r"^widths: a vgg needs it$"):
        from_dict({"family": "vgg"})


def test_unknown_network() -> None:
    with pytest.raises(UserError, match=r"^network 'vgg17'; did you mean vgg1\d\?$"):
        get_network("vgg17")


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
    (found,) = published.results("resnet56-b")
    assert found["scratch_b"] == {"mean": 93.05, "std": 0.18, "n": 5}
    assert [one["source"] for one in published.results("resnet56-b", of_paper=False)] == ["li"]
    sources = published.tables()["source"]
    for one in published.tables()["result"]:
        assert one["source"] in sources
        assert one["network"] in networks()
