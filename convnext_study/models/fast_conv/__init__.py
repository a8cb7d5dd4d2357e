"""Which convolutions of a network are done as matrix products while the engine trains on a CPU."""

from __future__ import annotations

from torch import nn

from convnext_study.models.fast_conv.dense import Im2colConv2d
from convnext_study.models.fast_conv.depthwise import GemmGradDepthwiseConv2d
from convnext_study.models.fast_conv.pointwise import FEWEST_CHANNELS, LinearConv2d

FORMS = (Im2colConv2d, GemmGradDepthwiseConv2d, LinearConv2d)


def use_gemm_convs(model: nn.Module) -> int:
    """Let a model's convolutions use these forms where that is faster; returns how many can.

    Parameters, buffers and names stay what they are. `restore_convs` takes it back.
    """
    found = 0
    for module in model.modules():
        form = gemm_class(module)
        if form is not None:
            module.__class__ = form
            found += 1
    return found


def restore_convs(model: nn.Module) -> None:
    """Undo `use_gemm_convs`, for export and scripting."""
    for module in model.modules():
        if type(module) in FORMS:
            module.__class__ = nn.Conv2d


def gemm_class(module: nn.Module) -> type[nn.Conv2d] | None:
    """The class that does a plain, square convolution faster, if one can."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros":
        return None
    sides = (module.kernel_size, module.stride, module.padding, module.dilation)
    if not all(isinstance(pair, tuple) and len(set(pair)) == 1 for pair in sides):
        return None
    kernel, stride = module.kernel_size[0], module.stride[0]
    if module.groups == module.in_channels == module.out_channels > 1:
        return GemmGradDepthwiseConv2d if kernel % 2 == 1 else None
    same = module.padding[0] == module.dilation[0] * (kernel // 2)
    if module.groups == 1 and kernel > 1 and kernel % 2 == 1 and same:
        return Im2colConv2d
    apart = kernel == 1 or (kernel == stride and module.dilation[0] == 1)
    wide = kernel == 1 or module.in_channels >= FEWEST_CHANNELS
    if module.groups == 1 and module.padding[0] == 0 and apart and wide:
        return LinearConv2d
    return None
