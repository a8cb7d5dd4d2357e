"""What torch and timm make of the multi-path networks: traces, compiled and saved ones."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path

import pytest
import timm
import torch
from multipath_nets import NARROW, every_kind, every_layer, narrow
from nets import build, images
from torch import nn


@every_layer
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    plain, x = build(name, drop_path_rate=0.2, **NARROW[name]), images(4, 3, 32, 32)
    thrifty = copy.deepcopy(plain)
    thrifty.set_grad_checkpointing()
    outputs = []
    for net in (plain, thrifty):
        torch.manual_seed(2)  # the same branches are dropped
        outputs.append(net.train()(x))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for key, weight in plain.named_parameters():
        assert torch.equal(weight.grad, thrifty.get_parameter(key).grad), key
    for key, buffer in plain.named_buffers():
        assert torch.equal(buffer, thrifty.get_buffer(key)), key


@every_kind
def test_traces_scripts_and_compilers(name: str) -> None:
    x, net = images(2, 3, 32, 32), narrow(name, drop_path_rate=0.1)
    expected = net(x)
    assert torch.equal(torch.fx.symbolic_trace(net)(x), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it; many users still need it
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(net), file)
        file.seek(0)
        scripted = torch.jit.load(file)
    assert torch.allclose(scripted(x), expected, atol=1e-6)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()
    three = images(3, 3, 32, 32)
    assert torch.allclose(program(three), net(three), atol=1e-5)
    torch.compiler.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected, atol=1e-6)
    assert scripted.train()(x).shape == (2, 10)


@pytest.mark.parametrize("form", ["fused", "plain"])
def test_compile_a_training_step(form: str) -> None:
    torch.compiler.reset()
    shape = {"width": 4, "modules": 1, "depths": (0, 1, 2), "attention": "path"}
    plain, x = build("multipath_small", form=form, **shape), images(4, 3, 16, 16)
    other = copy.deepcopy(plain)
    for net in (plain, torch.compile(other, backend="aot_eager")):
        net(x).square().sum().backward()
    for key, weight in plain.named_parameters():
        assert torch.allclose(weight.grad, other.get_parameter(key).grad, rtol=1e-3, atol=1e-4), key
    for key, buffer in plain.named_buffers():
        assert torch.allclose(buffer, other.get_buffer(key), atol=1e-6), key


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
