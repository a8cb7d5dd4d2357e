"""Exported networks: read back as their cards say, they give the run's outputs."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.runs import make_tiny_run
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.data.dataset import DataError
from convnext_study.errors import RunFailed, UserError
from convnext_study.evaluation.load_run import load_run
from convnext_study.export import formats
from convnext_study.runs import records
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


def test_outputs_that_differ_are_told(
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
        (export(tmp_path / "gone", "hf", tmp_path), "gone: holds no run; name the folder"),
    ):
        assert isinstance(done.exception, UserError)
        assert says in str(done.exception)

    def gone(uri: str, **_: object) -> None:
        raise DataError(f"{uri}: gone")

    monkeypatch.setattr("convnext_study.data.open_data", gone)
    with pytest.raises(UserError, match="cannot be opened"):
        raise export(run_folder, "hf", tmp_path).exception
