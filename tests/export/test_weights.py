"""Weights that leave the package and come back through timm, unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from support.nets import build, images, settled
from torch import nn

from convnext_study import RoadmapNet, get_roadmap
from convnext_study.export.weights import USE_TIMM, model_card, save_checkpoint, save_for_hf
from convnext_study.roadmap.paper import published_row
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.files import CHECKPOINT
from convnext_study.training import checkpoint_file

NAME = "roadmap_nano_separate_downsampling"
DATA = {"input_size": (3, 64, 64)}
CHANGES: dict[str, Any] = {"layer_scale": 0.25, "kernel": 5, "depths": (1, 2, 1, 1)}


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[key], theirs[key]) for key in mine)


def reload(folder: Path, **kwargs: Any) -> Any:
    torch.manual_seed(3)
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs).eval()


@pytest.mark.parametrize("name", [NAME, "roadmap_nano_resnet"])
def test_checkpoint_path_loads_what_was_saved(name: str, tmp_path: Path) -> None:
    net, path = settled(name), tmp_path / "weights.safetensors"
    save_checkpoint(net, path)
    torch.manual_seed(3)
    assert same_weights(timm.create_model(name, checkpoint_path=path), net)
    with safe_open(path, "pt") as file:
        assert NetSpec.from_dict(json.loads(file.metadata()["spec"])) == net.spec
    assert list(path.parent.iterdir()) == [path]


def test_checkpoint_path_loads_a_training_checkpoint(tmp_path: Path) -> None:
    net = settled(NAME)
    optimizer = torch.optim.AdamW(net.parameters())
    net(images(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    state = {"key": "0", "model": net.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint_file.save(tmp_path, {**state, "state": {"step": 3, "history": [{"epoch": 1}]}})
    torch.manual_seed(3)
    assert same_weights(timm.create_model(NAME, checkpoint_path=tmp_path / CHECKPOINT), net)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
def test_a_folder_comes_back_with_its_changed_fields(tmp_path: Path) -> None:
    net = build(NAME, num_classes=7, in_chans=1, global_pool="max", output_stride=8, **CHANGES)
    save_for_hf(net.eval(), tmp_path, {"input_size": (1, 64, 64), "mean": (0.1,), "std": (0.2,)})
    again, x = reload(tmp_path), images(2, 1, 32, 48)
    assert again.spec == net.spec
    assert again.spec.layer_scale == CHANGES["layer_scale"]
    assert torch.allclose(again(x), net(x), atol=1e-6)
    assert again(x).shape == (2, 7)
    assert again.output_stride == 8
    config = timm.data.resolve_model_data_config(again)
    assert (tuple(config["input_size"]), tuple(config["mean"])) == ((1, 64, 64), (0.1,))


def test_a_folder_fits_another_task(tmp_path: Path) -> None:
    """timm sums the first layer over colours for one channel, and makes a new classifier."""
    net = settled(NAME)
    save_for_hf(net, tmp_path, DATA)
    grey = reload(tmp_path, in_chans=1, num_classes=3)
    summed = net.stem.conv.weight.sum(1, keepdim=True)
    assert torch.allclose(grey.stem.conv.weight, summed, atol=1e-6)
    assert grey.head.fc.weight.shape[0] == 3
    maps = reload(tmp_path, features_only=True)(images(1, 3, 32, 32))
    assert torch.allclose(maps[-1], net.forward_features(images(1, 3, 32, 32)), atol=1e-6)


def test_a_network_that_timm_did_not_make(tmp_path: Path) -> None:
    """It is filed under the row that it differs least from."""
    road = get_roadmap("nano")
    for spec, row in (
        (road.upto("gelu"), "roadmap_nano_gelu"),
        (road.without("patchify_stem"), "roadmap_nano_separate_downsampling"),
    ):
        net = RoadmapNet(spec, num_classes=4).eval()
        data = {"input_size": (3, 96, 96)}
        save_for_hf(net, tmp_path / row, data)
        again = reload(tmp_path / row)
        assert again.spec == spec
        assert same_weights(again, net)
        assert tuple(again.pretrained_cfg["input_size"]) == (3, 96, 96)
        assert again.pretrained_cfg["pool_size"] is None
        assert again.pretrained_cfg["architecture"] == row


def card(name: str, results: dict[str, Any], **kwargs: Any) -> str:
    net = build(name, **kwargs)
    return model_card(net, net.pretrained_cfg["input_size"], results, USE_TIMM)


def test_card_says_how_to_load_and_what_was_measured() -> None:
    results = {"top-1 on digits": "97.2 %", "from": "runs/x-s0"}
    text = card(NAME, results, layer_scale=0.5)
    lines = text.splitlines()
    assert lines.index("import convnext_study  # registers roadmap_* with timm") < lines.index(
        "import timm"
    )
    assert "imported, so import that" in text
    assert "| top-1 on digits | 97.2 % |" in text
    assert "| from | runs/x-s0 |" in text
    assert "`layer_scale` = 0.5" in text
    spec = text.partition("```json\n")[2].partition("\n```")[0]
    assert NetSpec.from_dict(json.loads(spec)).layer_scale == 0.5
    assert "The paper's numbers" not in text  # the nano road is not the paper's


def test_card_shows_the_papers_numbers_as_the_papers() -> None:
    text = card("roadmap_t_layer_norm", {})
    paper = published_row("t", "layer_norm")
    assert paper is not None
    measured, _, published = text.partition("## The paper's numbers")
    assert "None were given" in measured
    assert str(paper.top1) not in measured
    assert "not measured with these weights" in published
    assert f"top-1 {paper.top1} ± {paper.std} %" in published
    assert str(paper.erratum) in published
    assert (
        "G multiply-accumulates (convolution and linear layers) for an image of 3 x 224" in measured
    )
    changed = card("roadmap_t_layer_norm", {}, kernel=9)
    assert "The paper's numbers" not in changed


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(build(NAME), path)
    with pytest.raises(RuntimeError, match="Missing key"):
        timm.create_model("roadmap_nano_gelu", checkpoint_path=path)
