"""Networks with several exits as files: what they answer, masks included, is what they answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.anytime_nets import anytime_net

from convnext_study.data.transforms.evaluation import EvalTransform
from convnext_study.export.formats import export_model
from convnext_study.export.weights import ExportError
from convnext_study.studies.anytime.masks import confidence

TRANSFORM = EvalTransform(64, 1.0, "bicubic", (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("kind", "exits"),
    [("pt2", [1, 2]), *(pytest.param(kind, [1, 2, 3, 4], marks=pytest.mark.exhaustive)
                        for kind in ("pt2", "onnx"))],
)  # fmt: skip
def test_all_exits_are_those_of_the_network(kind: str, exits: list[int], tmp_path: Path) -> None:
    net = anytime_net(masks="confidence", exits=exits, backbone="hrnet_digits_narrow")
    x = torch.randn(3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = (torch.cat([one.logits, one.mask], 1) for one in list(net.run(x))[:2])
        net.threshold = float(confidence(first[:, :-1]).median())
        assert not torch.equal(second[:, :-1], net(x)[1])
    written = export_model(net, kind, tmp_path, TRANSFORM, {}, (3, 32, 64))
    assert written.difference <= 1e-5 * max(written.largest, 1.0)
    assert "input_size: (3, 32, 64)" in (tmp_path / "README.md").read_text()


def test_masks_by_chance_are_not_exported(tmp_path: Path) -> None:
    net = anytime_net(masks="random", random_shares=[0.5], exits=[1, 2])
    with pytest.raises(ExportError, match="draws random numbers"):
        export_model(net, "pt2", tmp_path / "out", TRANSFORM, {}, (3, 32, 64))
    assert not (tmp_path / "out").exists()
