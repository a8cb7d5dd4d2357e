"""Which convolutions of a network are done as matrix products while the engine trains on a CPU."""

from __future__ import annotations

from torch import nn

from convnext_study.matrices.dense import MatrixDense
from convnext_study.matrices.depthwise import MatrixDepthwise
from convnext_study.matrices.pointwise import FEWEST_CHANNELS, MatrixPointwise

FORMS = (MatrixDense, MatrixDepthwise, MatrixPointwise)


def use_matrices(model: nn.Module) -> int:
    """Let a model's convolutions use these forms where that is faster; returns how many can.

    Parameters, buffers and names stay what they are. `use_stock` takes it back.
    """
    found = 0
    for module in model.modules():
        form = matrix_form(module)
        if form is not None:
            module.__class__ = form
            found += 1
    return found


def use_stock(model: nn.Module) -> None:
    """Undo `use_matrices`, for export and scripting."""
    for module in model.modules():
        if type(module) in FORMS:
            module.__class__ = nn.Conv2d


def matrix_form(module: nn.Module) -> type[nn.Conv2d] | None:
    """The class that does a plain, square convolution faster, if one can."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros":
        return None
    sides = (module.kernel_size, module.stride, module.padding, module.dilation)
    if not all(isinstance(pair, tuple) and len(set(pair)) == 1 for pair in sides):
        return None
    kernel, stride = module.kernel_size[0], module.stride[0]
    if module.groups == module.in_channels == module.out_channels > 1:
        return MatrixDepthwise if kernel % 2 == 1 else None
    same = module.padding[0] == module.dilation[0] * (kernel // 2)
    if module.groups == 1 and kernel > 1 and kernel % 2 == 1 and same:
        return MatrixDense
    apart = kernel == 1 or (kernel == stride and module.dilation[0] == 1)
    wide = kernel == 1 or module.in_channels >= FEWEST_CHANNELS
    if module.groups == 1 and module.padding[0] == 0 and apart and wide:
        return MatrixPointwise
    return None
