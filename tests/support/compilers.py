"""What torch's compilers make of a network, each compared with the network itself.

Networks are given in evaluation mode and map (N, 3, 32, 32) to (N, classes).
"""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from typing import Any

import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from support.nets import images


def trace_and_script(net: nn.Module) -> None:
    """torch.fx writes the annotations of ``forward`` into code, which TorchScript then reads."""
    x = images(2, 3, 32, 32)
    traced = torch.fx.symbolic_trace(net)
    _has_types(type(traced).forward)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stochastic depth has nodes in training mode alone
        last = get_graph_node_names(net)[1][-1]
        features: Any = create_feature_extractor(net, {last: "logits"})
    _has_types(type(features).forward)
    expected = net(x)
    assert torch.allclose(_scripted(traced)(x), expected, atol=1e-6)
    assert torch.allclose(_scripted(features)(x)["logits"], expected, atol=1e-6)


def script_features(features: nn.Module) -> None:
    """timm's extractor by torch.fx (``features_only=True, feature_cls="fx"``)."""
    x = images(2, 3, 32, 32)
    found, expected = _scripted(features.eval())(x), features(x)
    assert len(found) == len(expected) > 2
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(found, expected, strict=True))


def script(net: nn.Module) -> None:
    """Saved and loaded, in evaluation and in training mode."""
    x, file, scripted = images(2, 3, 32, 32), io.BytesIO(), _scripted(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(scripted, file)
        file.seek(0)
        again = torch.jit.load(file)
    assert torch.allclose(again(x), net(x), atol=1e-6)
    assert again.train()(x).shape == net(x).shape


def export(net: nn.Module) -> None:
    """With a batch of any size."""
    batch = torch.export.Dim("batch", min=1, max=64)
    given = (images(2, 3, 32, 32),)
    program = torch.export.export(net, given, dynamic_shapes=({0: batch},)).module()
    for size in (1, 3):
        x = images(size, 3, 32, 32)
        assert torch.allclose(program(x), net(x), atol=1e-5)


def compile_forward(net: nn.Module) -> None:
    """In one graph, in evaluation mode."""
    torch.compiler.reset()
    x = images(2, 3, 32, 32)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(x), net(x), atol=1e-6)


def compile_a_step(net: nn.Module) -> None:
    """In one graph with its backward pass, down to the operators that a backend is given."""
    torch.compiler.reset()
    plain, other = net.train(), copy.deepcopy(net).train()
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    x, outputs = images(4, 3, 32, 32), []
    for one in (plain, compiled):
        torch.manual_seed(3)  # the same branches are dropped
        outputs.append(one(x))
        outputs[-1].square().mean().backward()
    first, second = outputs
    assert torch.allclose(first, second, atol=1e-4, rtol=1e-4)
    for key, weight in plain.named_parameters():
        found = other.get_parameter(key).grad
        assert found is not None and weight.grad is not None, key
        assert torch.allclose(found, weight.grad, rtol=1e-2, atol=1e-3), key
    for key, buffer in plain.named_buffers():
        assert torch.allclose(buffer, other.get_buffer(key), atol=1e-5), key


def forwards_with_text(module: Any) -> list[str]:
    """The classes of a Python module whose ``forward`` has annotations that are no types."""
    return [
        name
        for name, found in vars(module).items()
        if isinstance(found, type)
        and issubclass(found, nn.Module)
        and found.__module__ == module.__name__
        and any(isinstance(one, str) for one in inspect.get_annotations(found.forward).values())
    ]


def _has_types(function: Any) -> None:
    found = inspect.get_annotations(function)
    assert found, function
    assert not [name for name, one in found.items() if isinstance(one, str)], found


def _scripted(net: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it; many users still need it
        try:
            return torch.jit.script(net)
        except RuntimeError as error:
            # torch keeps ids of builtins that are gone (`_builtins._register_builtin`), and an
            # attribute of the network may have got one of them; a copy has others.
            if "builtin cannot be used as a value" not in str(error):
                raise
            return torch.jit.script(copy.deepcopy(net))
