"""Evaluation crops as timm's: sizes of every step, pixels, and what a network is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from support.images import make_folder, picture
from timm.data import create_transform
from torch import Tensor, nn

from convnext_study.data import open_data
from convnext_study.data.dataset import IMAGENET_MEAN, IMAGENET_STD, to_pil
from convnext_study.data.decode import to_tensor
from convnext_study.data.transforms.crops import crop_steps
from convnext_study.data.transforms.evaluation import MODES, EvalTransform
from convnext_study.evaluation import load_named as named
from convnext_study.evaluation.evaluate import evaluate
from convnext_study.evaluation.load_named import load_named
from convnext_study.evaluation.load_run import EvaluationError, LoadedModel
from convnext_study.training.runtime import Runtime

SHAPES = ((50, 40), (40, 50), (37, 37), (300, 80), (33, 257), (224, 224), (24, 900))


def timms(mode: str, side: int, ratio: float, interpolation: str) -> Any:
    return create_transform(
        side,
        crop_pct=ratio,
        crop_mode=mode,
        interpolation=interpolation,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        normalize=False,
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(64, 1.0), (64, 0.875), (32, 0.95), (61, 0.9)])
@pytest.mark.parametrize("mode", MODES)
def test_steps_have_timms_pixels(mode: str, size: tuple[int, float], interpolation: str) -> None:
    side, ratio = size
    theirs = timms(mode, side, ratio, interpolation)
    ours = crop_steps(mode, side, int(side / ratio), interpolation, IMAGENET_MEAN)
    for seed, shape in enumerate(SHAPES):
        expected = picture(seed, *shape)
        found = to_tensor(expected)
        resized = ours[0](found)
        assert tuple(resized.shape[:0:-1]) == theirs.transforms[0](expected).size
        for step in ours:
            found = step(found)
        pixels: Tensor = theirs(expected)
        assert found.dtype == pixels.dtype == torch.uint8
        assert found.shape == pixels.shape == (3, side, side)
        off = (found.int() - pixels.int()).abs()  # torch and Pillow round apart
        assert off.float().mean() < 0.25, shape
        assert (off > 1).float().mean() < 0.02, shape


def test_an_image_that_is_all_length_keeps_a_pixel_of_width() -> None:
    """timm's own transform ends in an error here."""
    found = to_tensor(picture(0, 2, 900))
    for step in crop_steps("border", 32, 32, "bicubic", IMAGENET_MEAN):
        found = step(found)
    assert found.shape == (3, 32, 32)


class Watcher(nn.Module):
    """Remembers what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return x.mean((2, 3))[:, :2]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("mode", MODES)
def test_a_network_gets_what_timms_would(tmp_path: Path, mode: str, workers: int) -> None:
    net = Watcher()
    asked = EvalTransform(32, 0.9, "bicubic", IMAGENET_MEAN, IMAGENET_STD, mode)
    loaded = LoadedModel("watcher", net, 2, asked, "none")
    data = open_data(f"folder:{make_folder(tmp_path)}")
    result = evaluate(loaded, data, 3, Runtime(workers=workers))
    given = torch.cat(net.seen)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    theirs = timms(mode, 32, 0.9, "bicubic")
    for index, pixels in enumerate(given):
        image, _ = data.val.pixels(index)
        off = (pixels * std + mean) * 255 - theirs(to_pil(image))
        assert off.abs().mean() < 0.25
    assert result.images == 8
    assert result.transform.startswith(
        {"center": "short side", "squash": "both sides", "border": "long side"}[mode]
    )


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("convnextv2_nano.fcmae_ft_in22k_in1k_384", "squash"),
        ("test_vit.r160_in1k", "center"),
        ("resnet18.a1_in1k", "center"),
    ],
)
def test_the_published_mode_is_taken(name: str, mode: str) -> None:
    found, config = load_named(name).transform, timm.get_pretrained_cfg(name)
    assert found.crop_mode == config.crop_mode == mode
    assert found.crop_pct == config.crop_pct
    assert found.replace(64, None).crop_mode == mode


@pytest.mark.parametrize(
    ("field", "value"),
    [("crop_mode", "spiral"), ("interpolation", "lanczos"), ("input_size", (3, 64, 32))],
)
def test_unsupported_transforms(field: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = timm.data.resolve_model_data_config

    def changed(net: Any) -> dict[str, Any]:
        return {**resolve(net), field: value}

    monkeypatch.setattr(timm.data, "resolve_model_data_config", changed)
    with pytest.raises(EvaluationError, match="which is not supported") as caught:
        load_named("roadmap_nano_gelu")
    assert "\n" not in str(caught.value)


def test_all_published_modes_are_known() -> None:
    """Of every ResNet and ConvNeXt that timm has weights for."""
    names = timm.list_models(["*resnet*", "*convnext*"], pretrained=True)
    modes = [timm.get_pretrained_cfg(name).crop_mode for name in names]
    assert len(names) > 250
    assert np.isin(modes, MODES).all()
    assert sum(mode != "center" for mode in modes) >= 18
    for name in names:
        named._check_transform(
            name,
            timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()),
        )
