"""What torch makes of the networks: symbolic traces, TorchScript, exported and compiled ones.

`torch.compile` is run down to the operators that a backend is given; the default backend would
make C++ of them, which takes half a minute for each network.
"""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from nets import build, every_model, every_nano, images, outline, settled

SHORT = (1, 1, 1, 1)
ROWS = ("resnet", "gelu", "layer_norm", "separate_downsampling")  # every kind of layer


@every_model
def test_symbolic_trace(name: str) -> None:
    net = outline(name)
    assert net.training  # where stochastic depth is at work
    traced = torch.fx.symbolic_trace(net)
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert calls[0] == "stem.conv"
    assert calls[-1] == "head.fc"


@every_nano
def test_torchscript(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name, depths=SHORT, drop_path_rate=0.1, scriptable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it; many users still need it
        scripted = torch.jit.script(net)
        file = io.BytesIO()
        torch.jit.save(scripted, file)
        file.seek(0)
        again = torch.jit.load(file)
    assert torch.allclose(again(x), net(x), atol=1e-6)
    assert again.train()(x).shape == (2, 10)


@every_nano
def test_export(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name, depths=SHORT, drop_path_rate=0.1, exportable=True)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()
    for size in (1, 3):
        x = images(size, 3, 32, 32)
        assert torch.allclose(program(x), net(x), atol=1e-5)


@pytest.mark.parametrize("name", [f"roadmap_nano_{row}" for row in ROWS])
def test_compile_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    x, net = images(2, 3, 32, 32), settled(name, depths=SHORT, drop_path_rate=0.1)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), net(x), atol=1e-6)


def test_compile_a_training_step() -> None:
    """With gradient checkpointing, down to the operators that a backend gets."""
    torch.compiler.reset()
    plain, x = build("roadmap_nano_resnet", depths=SHORT), images(4, 3, 32, 32)
    thrifty = copy.deepcopy(plain)
    thrifty.set_grad_checkpointing()
    compiled = torch.compile(thrifty, backend="aot_eager")
    for net in (plain, compiled):
        net(x).square().sum().backward()
    for key, weight in plain.named_parameters():
        assert torch.allclose(weight.grad, thrifty.get_parameter(key).grad, atol=1e-5), key
    for key, buffer in plain.named_buffers():
        assert torch.allclose(buffer, thrifty.get_buffer(key), atol=1e-6), key
