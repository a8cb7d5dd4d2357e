"""The multi-path networks in timm: their names, fields and weights, beside what the tests of every
model in `tests/models/` check."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from support.nets import MULTIPATH, NARROW, images, settled
from torch import nn

from convnext_study.roadmap.spec import SpecError


def test_names() -> None:
    nets = ("small", "small_equal", "large", "large_paths")
    expected = {f"multipath_{net}{kind}" for net in nets for kind in ("", "_pathatt", "_se")}
    expected |= {"multipath_basic", "multipath_resnet18", "multipath_se_resnet18"}
    assert set(MULTIPATH) == expected
    assert timm.list_models("multipath_*", pretrained=True) == []


@pytest.mark.parametrize("name", [*NARROW, "multipath_se_resnet18"])
def test_weights_go_through_timm(name: str, tmp_path: Path) -> None:
    x, net, shape = images(2, 3, 32, 32), settled(name), NARROW.get(name, {})
    file, folder = tmp_path / "net.pth", tmp_path / "hub"
    torch.save({"model": net.state_dict(), "epoch": 3}, file)
    loaded = timm.create_model(name, checkpoint_path=str(file), **shape).eval()
    assert torch.equal(loaded(x), net(x))
    timm.models.save_for_hf(net, str(folder), model_args=shape, safe_serialization=True)
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(again(x), net(x))


def test_synchronised_norms_are_called_as_such() -> None:
    """Even in the plain form, which would otherwise take slices of them and never synchronise."""
    name, x = "multipath_large_paths_se", images(2, 3, 32, 32)
    net = nn.SyncBatchNorm.convert_sync_batchnorm(settled(name))
    called: list[nn.Module] = []
    norms = [module for module in net.modules() if isinstance(module, nn.SyncBatchNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda module, *_: called.append(module))
    assert torch.allclose(net(x), settled(name)(x), atol=1e-5)
    assert len(called) == len(norms) > 9


def test_bad_requests_are_one_line() -> None:
    with pytest.raises(TypeError, match=r"^multipath_small: no argument widht; .*width\?$"):
        timm.create_model("multipath_small", widht=9)
    with pytest.raises(SpecError, match=r"^width: 0; .*$"):
        timm.create_model("multipath_small", width=0)
