"""What torch and timm make of the multi-path networks: traces, compiled and saved ones."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import pytest
import timm
import torch
from support import compilers
from support.multipath_nets import NARROW, every_kind, every_layer, narrow
from support.nets import build, compare_a_step, images, walk
from torch import nn


@every_layer
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    plain = build(name, drop_path_rate=0.2, **NARROW[name])
    compare_a_step(plain, copy.deepcopy(plain))


@walk([*NARROW, "multipath_se_resnet18"], ("multipath_small_pathatt",))
def test_traced_scripted_exported_and_compiled(name: str) -> None:
    net = narrow(name, drop_path_rate=0.1)
    compilers.trace_and_script(net)
    compilers.export(net)
    compilers.script(net)
    compilers.compile_forward(net)
    compilers.compile_a_step(net)


@every_layer
def test_feature_extractors_of_timm_can_be_scripted(name: str) -> None:
    compilers.script_features(build(name, **NARROW[name], features_only=True, feature_cls="fx"))


@pytest.mark.parametrize("module", ["paths", "network"])
def test_annotations_of_forward_are_types(module: str) -> None:
    found = importlib.import_module(f"convnext_study.studies.multipath.{module}")
    assert compilers.forwards_with_text(found) == []


@every_kind
def test_low_precision_and_memory_format(name: str) -> None:
    x, net = images(2, 3, 32, 32), narrow(name)
    logits = net(x)
    channels_last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    again = channels_last(x.to(memory_format=torch.channels_last))
    assert torch.allclose(again, logits, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(net(x).float(), logits, atol=0.1, rtol=0.1)
    net = build(name, dtype=torch.bfloat16, **NARROW.get(name, {})).eval()
    assert {weight.dtype for weight in net.parameters()} == {torch.bfloat16}
    assert net(x.bfloat16()).dtype == torch.bfloat16


@every_kind
def test_weights_go_through_timm(name: str, tmp_path: Path) -> None:
    x, net = images(2, 3, 32, 32), narrow(name)
    file, folder = tmp_path / "net.pth", tmp_path / "hub"
    torch.save({"model": net.state_dict(), "epoch": 3}, file)
    loaded = timm.create_model(name, checkpoint_path=str(file), **NARROW.get(name, {})).eval()
    assert torch.equal(loaded(x), net(x))
    timm.models.save_for_hf(net, str(folder), model_args=NARROW.get(name), safe_serialization=True)
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(again(x), net(x))


def test_synchronised_norms_are_called_as_such() -> None:
    """Even in the plain form, which would otherwise take slices of them and never synchronise."""
    name, x = "multipath_large_paths_se", images(2, 3, 32, 32)
    net = nn.SyncBatchNorm.convert_sync_batchnorm(narrow(name))
    called: list[nn.Module] = []
    norms = [module for module in net.modules() if isinstance(module, nn.SyncBatchNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda module, *_: called.append(module))
    assert torch.allclose(net(x), narrow(name)(x), atol=1e-5)
    assert len(called) == len(norms) > 9
