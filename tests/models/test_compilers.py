"""What torch makes of the networks: symbolic traces, TorchScript, exported and compiled ones.

Some rows, and all 48 where there is time, eight channels wide and one block deep but for the first
stage, which has its two kinds of block: every layer of a row is there; and narrow multi-path
networks. A training step is compiled down to the operators that a backend is given; the default
backend would make C++ of them, half a minute for each network.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import torch
from support import compilers
from support.nets import NARROW, ROADMAP, build, every_small, images, outline, settled, walk

SMALL: dict[str, Any] = {"depths": (2, 1, 1, 1), "width": 8}
ROWS = ("resnet", "kernel_7", "gelu", "layer_norm", "separate_downsampling")
FEW = ("roadmap_nano_resnet", "roadmap_nano_separate_downsampling")  # the two ends
PARTS = (
    *(f"models.{part}" for part in ("layers", "blocks", "timm_model", "roadmap_net", "fast_conv")),
    *("studies.multipath.paths", "studies.multipath.network"),
)
PATHS = [*NARROW, "multipath_se_resnet18"]


def small(name: str) -> Any:
    shape = SMALL if name in ROADMAP else {}
    return settled(name, **shape, drop_path_rate=0.1, num_classes=10)


@walk(ROADMAP)
def test_symbolic_trace(name: str) -> None:
    net = outline(name)
    assert net.training  # where stochastic depth is at work
    traced = torch.fx.symbolic_trace(net)
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert calls[0] == "stem.conv"
    assert calls[-1] == "head.fc"


@walk([*ROADMAP, *PATHS], (*FEW, "multipath_small_pathatt"))
def test_traced_scripted_exported_and_compiled(name: str) -> None:
    net = small(name)
    compilers.trace_and_script(net)
    compilers.script(net)
    compilers.export(net)
    compilers.compile_forward(net)


@every_small
def test_feature_extractors_of_timm_can_be_scripted(name: str) -> None:
    shape = SMALL if name in ROADMAP else NARROW[name]
    compilers.script_features(build(name, **shape, features_only=True, feature_cls="fx"))


@pytest.mark.parametrize("module", PARTS)
def test_annotations_of_forward_are_types(module: str) -> None:
    """A part may be traced as well as the whole, so that text would fail there."""
    found = importlib.import_module(f"convnext_study.{module}")
    assert compilers.forwards_with_text(found) == []


@walk([*(f"roadmap_nano_{row}" for row in ROWS), *PATHS], (*FEW, "multipath_small_pathatt"))
def test_compile_a_step_in_one_graph(name: str) -> None:
    compilers.compile_a_step(small(name))


def test_compile_a_checkpointed_step() -> None:
    """With gradient checkpointing, whose recomputation must leave the statistics alone."""
    torch.compiler.reset()
    plain, x = build("roadmap_nano_resnet", depths=(1, 1, 1, 1)), images(4, 3, 32, 32)
    thrifty = copy.deepcopy(plain)
    thrifty.set_grad_checkpointing()
    compiled = torch.compile(thrifty, backend="aot_eager")
    for net in (plain, compiled):
        net(x).square().sum().backward()
    for key, weight in plain.named_parameters():
        assert torch.allclose(weight.grad, thrifty.get_parameter(key).grad, atol=1e-5), key
    for key, buffer in plain.named_buffers():
        assert torch.allclose(buffer, thrifty.get_buffer(key), atol=1e-6), key
