"""Counting by hooks on a network without weights: exact, and needs no memory and no data."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convnext_study.cost.closed_form import Cost, ImageTooSmall, sides
from convnext_study.roadmap.spec import NetSpec

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.overrides import TorchFunctionMode


def count(model: nn.Module, image_size: tuple[int, int, int]) -> Cost:
    """Cost of one image (channels, height, width) for any module that maps images to anything.

    Sees convolution (also transposed and grouped) and linear modules, each time one is called,
    and no calls of ``torch.nn.functional``. The model itself is never run: a copy without
    weights is, in eval mode, on the meta device. Count before compiling or wrapping a model.
    """
    return run_counted(copy_on(model, "meta"), image_size)


@functools.cache
def count_spec(spec: NetSpec, image_size: int, num_classes: int = 1000) -> Cost:
    """Cost of a spec's network for one square RGB image with sides of ``image_size`` pixels.

    Raises ImageTooSmall for an image that the network would shrink to nothing.
    """
    sides(spec, image_size)
    return run_counted(build_meta(spec, num_classes), (3, image_size, image_size))


def build_meta(spec: NetSpec, num_classes: int) -> nn.Module:
    """A spec's network on the meta device: shapes, and no weights."""
    import torch

    from convnext_study.models.roadmap_net import RoadmapNet

    with torch.device("meta"):
        return RoadmapNet(spec, num_classes=num_classes)


def copy_on(model: nn.Module, device: str) -> nn.Module:
    """A copy whose parameters and buffers are zeros on another device; the original's stay put."""
    import torch
    from torch import nn

    # deepcopy takes what its memo holds for a copy already made, so no weight is ever copied.
    memo: dict[int, Any] = {}
    for module in model.modules():
        held = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
        for tensor in held:
            if isinstance(tensor, torch.Tensor):
                blank = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
                if isinstance(tensor, nn.Parameter):
                    blank = nn.Parameter(blank, requires_grad=tensor.requires_grad)
                memo[id(tensor)] = blank
    return copy.deepcopy(model, memo)


def blank_image(model: nn.Module, image_size: tuple[int, int, int]) -> torch.Tensor:
    """A batch of one black image, of the model's device and floating-point type."""
    import torch

    weights = (weight for weight in model.parameters() if weight.is_floating_point())
    like = next(weights, torch.empty(0))
    return torch.zeros((1, *image_size), dtype=like.dtype, device=like.device)


def run_counted(model: nn.Module, image_size: tuple[int, int, int]) -> Cost:
    """Run the model itself on a blank image and count; it is left in eval mode."""
    import torch
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    macs = activations = 0

    def add(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        nonlocal macs, activations
        assert isinstance(module, _ConvNd | nn.Linear)  # noqa: S101
        if isinstance(module, nn.Linear):
            elements, channels = output.numel(), module.out_features
        elif module.transposed:
            elements, channels = args[0].numel(), module.in_channels
        else:
            elements, channels = output.numel(), module.out_channels
        # Each element uses its channel's weights once; a call may be for some channels only.
        macs += elements * (module.weight.numel() // channels)
        activations += output.numel()

    counted = [part for part in model.modules() if isinstance(part, _ConvNd | nn.Linear)]
    hooks = [part.register_forward_hook(add) for part in counted]
    try:
        with torch.no_grad(), skip_norms():
            model.eval()(blank_image(model, image_size))
    except RuntimeError as error:  # torch's, of sizes that do not fit each other
        reason = (str(error).splitlines() or ["no reason given"])[0]
        height, width = image_size[1:]
        raise ImageTooSmall(
            f"image size: {type(model).__name__} cannot be counted on an image of {height}x{width} "
            f"({reason:.200}); give a larger one, or mend the network"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(macs, sum(weight.numel() for weight in model.parameters()), activations)


def skip_norms() -> TorchFunctionMode:
    """Norms return their input: no shape depends on them, and without weights torch takes 4 ms
    for each, which over a road map of deep networks is most of the time."""
    import torch.nn.functional as F
    from torch.overrides import TorchFunctionMode

    skipped = (F.batch_norm, F.layer_norm)

    class SkipNorms(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: object,
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            return args[0] if args and func in skipped else func(*args, **(kwargs or {}))

    return SkipNorms()
