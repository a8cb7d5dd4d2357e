"""Other people's counters, and the comparison of all four."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from convnext_study.cost.closed_form import CountersDisagree, closed_form
from convnext_study.cost.counter import (
    blank_image,
    build_meta,
    copy_on,
    count_spec,
    skip_norms,
)
from convnext_study.roadmap.spec import NetSpec

if TYPE_CHECKING:
    from torch import nn

FVCORE_OPERATORS = ("conv", "linear", "addmm")
TORCH_OPERATORS = ("aten.convolution", "aten._convolution", "aten.addmm", "aten.mm")


def count_fvcore(model: nn.Module, image_size: tuple[int, int, int]) -> int:
    """MACs of convolution and linear operators in fvcore's trace, for (channels, height, width).

    fvcore calls a multiply-accumulate a flop. It traces, and tracing needs real tensors: a copy
    of the model with zeros for weights is run on the CPU, in about a second for ResNet-200.
    """
    import torch

    real = copy_on(model, "cpu").eval()
    with warnings.catch_warnings():
        # fvcore goes through torch.jit, which torch has deprecated.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        with torch.inference_mode():
            analysis = FlopCountAnalysis(real, blank_image(real, image_size))
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            found = analysis.by_operator()
    return int(sum(found[name] for name in FVCORE_OPERATORS))


def count_torch(model: nn.Module, image_size: tuple[int, int, int]) -> int:
    """MACs of convolution and linear operators that torch's own counter sees being dispatched.

    torch counts two floating-point operations for a multiply-accumulate, hence the half.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    blank = copy_on(model, "meta").eval()
    with torch.no_grad(), skip_norms(), FlopCounterMode(display=False) as counter:
        blank(blank_image(blank, image_size))
    seen = counter.get_flop_counts()["Global"]
    return int(sum(flops for name, flops in seen.items() if str(name) in TORCH_OPERATORS)) // 2


def verify_spec(where: str, spec: NetSpec, image_size: int, num_classes: int) -> None:
    """Count one network in all four ways. Raises CountersDisagree, one line with every counter and
    its count, unless they agree exactly."""
    shape = (3, image_size, image_size)
    model = build_meta(spec, num_classes)
    hooks = count_spec(spec, image_size, num_classes)
    form = closed_form(spec, image_size, num_classes)
    others = {"fvcore": count_fvcore(model, shape), "torch": count_torch(model, shape)}
    for unit, counts in {
        "MACs": {"hooks": hooks.macs, "closed form": form.macs, **others},
        "params": {"hooks": hooks.params, "closed form": form.params},
        "activations": {"hooks": hooks.activations, "closed form": form.activations},
    }.items():
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{counter} {number:,}" for counter, number in counts.items())
            raise CountersDisagree(f"{where}: {unit} disagree between counters: {listed}")
