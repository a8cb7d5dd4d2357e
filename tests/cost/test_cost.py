"""Four counters, one number; and the paper's figures, all but two."""

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from support.nets import random_spec
from support.pages import on_screen
from torch import nn
from torch.nn.utils import prune

from convnext_study import cost
from convnext_study.cost import Cost, CountersDisagree, ImageTooSmall
from convnext_study.cost import counter as crosscheck
from convnext_study.cost.table import prints_as
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.report.tables.cost import cost_tables
from convnext_study.report.tables.render import Screen
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import RESNET_NANO

GOLDEN = tomllib.loads((Path(__file__).parents[1] / "golden" / "roadmap_macs.toml").read_text())
KEYS = [
    *("regime", "step", "label", "macs", "params", "activations"),
    *("paper_gflops", "paper_top1", "matches_paper", "erratum", "model"),
]
ERRATA = [("t", "layer_norm"), ("t", "separate_downsampling")]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Of both published road maps."""
    return cost.table(["t", "b"])


def printed(rows: list[dict[str, Any]]) -> str:
    return on_screen(*map(Screen, cost_tables(rows)))


def test_34_rows_equal_the_reference_and_all_but_two_the_paper(rows: list[dict[str, Any]]) -> None:
    """MACs to four decimals, and parameters where they are known."""
    known = [(regime, row) for regime in GOLDEN for row in GOLDEN[regime]]
    assert len(known) == 34
    for (regime, golden), row in zip(known, rows, strict=True):
        found = (row["regime"], row["step"], round(row["macs"] / 1e9, 4))
        assert found == (regime, golden["step"], golden["macs"])
        assert row["params"] == golden.get("params", row["params"])
    assert sum("params" in golden for _, golden in known) == 3

    assert [(row["regime"], row["step"]) for row in rows if not row["matches_paper"]] == ERRATA
    assert [(row["regime"], row["step"]) for row in rows if row["erratum"]] == ERRATA


def test_rows_are_json_with_the_promised_keys_and_units(rows: list[dict[str, Any]]) -> None:
    assert all(list(row) == KEYS for row in rows)
    first = rows[0]
    assert first["macs"] == 4_089_184_256
    assert first["params"] == 25557032
    assert first["activations"] == 11_114_984  # He et al. count 11.1 M for ResNet-50
    assert (first["paper_gflops"], first["paper_top1"]) == (4.09, 76.13)
    assert first["model"] == "roadmap_t_resnet50"


def test_nano_is_counted_at_its_own_size_and_never_beside_the_paper() -> None:
    found = cost.table(["nano"])
    assert len(found) == 17
    for row in found:
        for key in ("paper_gflops", "paper_top1", "matches_paper", "erratum"):
            assert row[key] is None
    assert found[0]["macs"] == cost.count_spec(RESNET_NANO, 64, 10).macs
    assert "paper" not in printed(found)


def test_at_another_size_nothing_is_compared_with_the_paper() -> None:
    found = cost.table(["t"], image_size=288)
    assert {row["matches_paper"] for row in found} == {None}
    assert round(found[0]["macs"] / 1e9, 2) == 6.76
    text = printed(found)
    assert "cannot be compared" in text
    assert "[1]" not in text


@pytest.mark.parametrize(
    ("macs", "figure", "same"),
    [
        (4_145_000_000, 4.15, True),
        (4_144_999_999, 4.15, False),
        (4_144_999_999, 4.14, True),
        (2_675_000_000, 2.68, True),  # as a float, 2.675 is a little less
        (14_814_999_999, 14.81, True),
        (14_815_000_000, 14.81, False),
    ],
)
def test_printed_figures_are_rounded_half_up(macs: int, figure: float, same: bool) -> None:
    assert prints_as(macs, figure) is same


def test_the_printed_table_explains_the_errata(rows: list[dict[str, Any]]) -> None:
    text = printed(rows)
    assert all(len(line) <= 80 for line in text.splitlines())
    flat = " ".join(text.split())
    assert "layer_norm 4.1456 4.46 [1]" in flat
    assert "15 of 17 rows" in flat and "17 of 17 rows" in flat
    for row in rows:
        if row["erratum"]:
            assert f"{row['step']}: {row['erratum']}" in flat


@pytest.mark.exhaustive
@pytest.mark.parametrize("regime", ["t", "b", "nano"])
def test_all_counters_agree_on_every_row(regime: str) -> None:
    assert len(cost.table([regime], verify=True)) == 17


@pytest.mark.parametrize(
    ("counter", "off", "unit"),
    [
        ("count_fvcore", 1, "MACs"),
        ("count_torch", 1, "MACs"),
        ("closed_form", Cost(macs=1), "MACs"),
        ("closed_form", Cost(params=1), "params"),
        ("closed_form", Cost(activations=1), "activations"),
    ],
)
def test_a_counter_that_is_off_by_one_is_told(
    counter: str, off: Any, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = getattr(crosscheck, counter)
    monkeypatch.setattr(crosscheck, counter, lambda *args: honest(*args) + off)
    right = getattr(cost.count_spec(RESNET_NANO, 64, 10), unit.lower())
    says = f"^nano resnet: counters disagree on {unit}: hooks {right:,}, .*{right + 1:,}.*$"
    with pytest.raises(CountersDisagree, match=says):
        cost.table(["nano"], verify=True)


def test_closed_form_agrees_on_any_fields_and_any_size() -> None:
    generator = random.Random(0)
    for _ in range(40):
        spec, size = random_spec(generator), generator.randint(1, 97)
        classes = generator.choice([1, 10])
        try:
            expected = cost.closed_form(spec, size, classes)
        except ImageTooSmall:
            with pytest.raises(ImageTooSmall):
                cost.count_spec(spec, size, classes)
            with pytest.raises(ImageTooSmall):
                cost.count(RoadmapNet(spec, num_classes=classes), (3, size, size))
            continue
        assert cost.count_spec(spec, size, classes) == expected, (spec, size)


def test_too_small_an_image_is_refused_in_one_line() -> None:
    end = get_roadmap("t").variants()[-1].spec
    with pytest.raises(ImageTooSmall, match=r"^image size: 31 is too small.*; use at least 32$"):
        cost.count_spec(end, 31)
    assert cost.count_spec(end, 32).macs > 0


KINDS: dict[str, tuple[nn.Module, tuple[int, int, int], int, int]] = {
    "grouped": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 8, 6), 2 * 9, 6 * 8 * 6),
    "line": (nn.Conv1d(4, 8, 5), (4, 16, 12), 4 * 5, 8 * 188),
    "cube": (nn.Conv3d(1, 2, 3), (4, 16, 12), 27, 2 * 2 * 14 * 10),
    "tokens": (nn.Linear(8, 3, bias=False), (2, 94, 8), 8, 188 * 3),
    # Each input meets its group's kernels: of 2 channels out and 4 pixels, 4 times the map.
    "transposed": (nn.ConvTranspose2d(6, 4, 2, 2, groups=2), (6, 8, 6), 3, 4 * 16 * 12),
}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_no_road_map_has(kind: str) -> None:
    layer, shape, each, outputs = KINDS[kind]
    reshaped = {"line": nn.Flatten(2), "cube": nn.Unflatten(1, (1, 4))}.get(kind, nn.Identity())
    net = nn.Sequential(reshaped, layer)
    params = sum(parameter.numel() for parameter in layer.parameters())
    assert cost.count(net, shape) == Cost(each * outputs, params, outputs)
    assert cost.count_torch(net, shape) == each * outputs


def test_a_layer_called_twice_counts_twice_and_holds_its_weights_once() -> None:
    layer = nn.Conv2d(3, 3, 1, bias=False)
    assert cost.count(nn.Sequential(layer, layer), (3, 4, 4)) == Cost(2 * 9 * 16, 9, 2 * 3 * 16)


def test_counting_leaves_the_model_as_it_was() -> None:
    net = RoadmapNet(RESNET_NANO, num_classes=10, drop_rate=0.5, drop_path_rate=0.5).train()
    net.stages[0].eval()
    net.double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    random_state = torch.random.get_rng_state()
    pointers = [weight.data_ptr() for weight in net.parameters()]

    for counter in (cost.count, cost.count_fvcore, cost.count_torch):
        counter(net, (3, 32, 32))

    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert pointers == [weight.data_ptr() for weight in net.parameters()]
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert cost.count(net, (3, 64, 64)) == cost.count_spec(RESNET_NANO, 64, 10)


def test_a_pruned_model_is_counted_as_dense() -> None:
    # A masked weight is no leaf of the graph, which copying a module trips over.
    conv = nn.Conv2d(3, 8, 3, bias=False)
    dense = cost.count(conv, (3, 5, 5))
    prune.random_unstructured(conv, "weight", amount=0.5)
    assert cost.count(conv, (3, 5, 5)) == dense == Cost(8 * 27 * 9, 8 * 27, 8 * 9)


def test_fvcore_is_silent_and_agrees_on_an_image_that_is_not_square(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    net, shape = RoadmapNet(RESNET_NANO), (3, 48, 37)
    assert cost.count_fvcore(net, shape) == cost.count(net, shape).macs
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
