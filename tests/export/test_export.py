"""Exported networks give the run's outputs, and weights come back through timm unchanged."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from support.nets import build, images, settled
from support.runs import make_tiny_run
from torch import nn
from typer.testing import CliRunner

from convnext_study import RoadmapNet, get_roadmap
from convnext_study.cli import app
from convnext_study.data.dataset import DataError
from convnext_study.errors import RunFailed, UserError
from convnext_study.evaluation.load_run import load_run
from convnext_study.export import formats
from convnext_study.export.weights import USE_TIMM, model_card, save_checkpoint, save_for_hf
from convnext_study.roadmap.paper import published_row
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs import records
from convnext_study.runs.files import CHECKPOINT
from convnext_study.training import checkpoint_file
from convnext_study.training.loop import train

IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(make_tiny_run(epochs=1), folder)
    return folder


@pytest.fixture(scope="module")
def expected(run_folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        outputs: torch.Tensor = load_run(run_folder).net(IMAGES)
    return outputs


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def export(run_folder: Path, kind: str, out: Path) -> Any:
    return CliRunner().invoke(app, ["export", str(run_folder), "--to", kind, "--out", str(out)])


def use_as_the_card_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any
) -> dict[str, Any]:
    """Run the code in the card's section on use, in that folder."""
    card = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    monkeypatch.chdir(folder)
    names = dict(given)
    exec(code.replace("FOLDER", str(folder)), names)  # noqa: S102
    return names


@pytest.mark.parametrize("kind", ["hf", "safetensors"])
def test_a_model_for_this_package(
    run_folder: Path,
    expected: torch.Tensor,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = export(run_folder, kind, tmp_path)
    assert done.exit_code == 0, done.exception
    assert "outputs agree: largest difference" in done.stdout
    model = use_as_the_card_says(tmp_path, monkeypatch)["model"].eval()
    with torch.inference_mode():
        assert torch.allclose(model(IMAGES), expected, atol=1e-5)
    card, recorded = (tmp_path / "README.md").read_text(), records.read(run_folder).result
    assert recorded is not None and "| data | digits |" in card
    assert f"{recorded.value:.2f} % on {recorded.val_images} test images" in card
    if kind == "hf":
        config, wanted = timm.data.resolve_model_data_config(model), load_run(run_folder).transform
        assert config["input_size"][1:] == (wanted.image_size, wanted.image_size)
        assert config["mean"] == pytest.approx(wanted.mean)
        assert config["crop_pct"] == 1.0


def test_a_program_for_torch_alone(
    run_folder: Path, expected: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(run_folder, "pt2", tmp_path).exit_code == 0
    logits = use_as_the_card_says(tmp_path, monkeypatch, images=IMAGES)["logits"]
    assert torch.allclose(logits, expected, atol=1e-5)


def test_onnx(
    run_folder: Path, expected: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = export(run_folder, "onnx", tmp_path)
    assert done.exit_code == 0, done.exception
    logits = use_as_the_card_says(tmp_path, monkeypatch, images=IMAGES.numpy())["logits"]
    assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-4)


def test_outputs_that_differ(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(export: Any) -> Any:
        return lambda images: export.net(images) + 0.01

    monkeypatch.setitem(formats.FORMATS, "pt2", broken)
    done = export(run_folder, "pt2", tmp_path)
    assert isinstance(done.exception, RunFailed)
    assert "differ by 0.01" in str(done.exception)


def test_a_readme_of_something_else_stays(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    done = export(run_folder, "safetensors", tmp_path)
    assert isinstance(done.exception, UserError) and "README.md" in str(done.exception)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("kind", ["hf", "pt2"])
def test_a_full_disk_is_one_line(
    run_folder: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(formats, "write_bytes", full)
    if kind == "hf":  # its writer is not ours
        (tmp_path / "model.safetensors").symlink_to("/dev/full")
    done = export(run_folder, kind, tmp_path)
    assert isinstance(done.exception, UserError), done.exception
    assert f"{tmp_path}: cannot be written" in str(done.exception)


def test_one_line_for_what_cannot_be(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for done, says in (
        (export(run_folder, "zip", tmp_path), "use one of hf"),
        (export(run_folder, "hf", Path("/proc/nowhere")), "/proc/nowhere: cannot be written"),
        (export(tmp_path / "gone", "hf", tmp_path), "gone: contains no runs; name the folder"),
    ):
        assert isinstance(done.exception, UserError)
        assert says in str(done.exception)

    def gone(uri: str, **_: object) -> None:
        raise DataError(f"{uri}: gone")

    monkeypatch.setattr("convnext_study.data.open_data", gone)
    with pytest.raises(UserError, match="cannot be opened"):
        raise export(run_folder, "hf", tmp_path).exception


NAME = "roadmap_nano_separate_downsampling"
DATA = {"input_size": (3, 64, 64)}
CHANGES: dict[str, Any] = {"layer_scale": 0.25, "kernel": 5, "depths": (1, 2, 1, 1)}


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[key], theirs[key]) for key in mine)


def reload(folder: Path, **kwargs: Any) -> Any:
    torch.manual_seed(3)
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs).eval()


def test_checkpoint_path_loads_what_was_saved(tmp_path: Path) -> None:
    net, path = settled("roadmap_nano_resnet"), tmp_path / "weights.safetensors"
    save_checkpoint(net, path)
    torch.manual_seed(3)
    assert same_weights(timm.create_model("roadmap_nano_resnet", checkpoint_path=path), net)
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
    assert -1 < text.find("\nimport convnext_study") < text.find("\nimport timm")
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
    assert str(paper.top1) not in measured
    assert "not measured with these weights" in published
    assert f"top-1 {paper.top1} ± {paper.std} %" in published
    assert str(paper.erratum) in published
    assert "The paper's numbers" not in card("roadmap_t_layer_norm", {}, kernel=9)
