"""Count with hooks on a network of zeros: exact, without data, and without memory except for small
networks on small images; counters of other libraries, and the comparison of all four."""

from __future__ import annotations

import copy
import functools
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convnext_study.cost.closed_form import (
    Cost,
    CountersDisagree,
    ImageTooSmall,
    closed_form,
    sides,
)
from convnext_study.roadmap.spec import NetSpec

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.overrides import TorchFunctionMode

FVCORE_OPERATORS = ("conv", "linear", "addmm")
TORCH_OPERATORS = ("aten.convolution", "aten._convolution", "aten.addmm", "aten.mm")
# Pixels and parameters up to which computing takes less time than importing the compiler.
SMALL, FEW = 224**2, 100_000_000


def count(model: nn.Module, image_size: tuple[int, int, int]) -> Cost:
    """Cost of one image (channels, height, width) for any module that maps images to anything.

    Counts each call of a convolution (also transposed and grouped) or linear module, but no calls
    of ``torch.nn.functional``. The model itself is never run, but a copy of zeros in eval mode on
    the meta device, where nothing is computed. A small network on a small image is computed on the
    CPU, since the meta device imports torch's compiler, in 2 s. Count before compiling or wrapping
    a model.
    """
    _, height, width = image_size
    small = sum(weight.numel() for weight in model.parameters()) <= FEW
    computed = small and height * width <= SMALL and "torch._dynamo" not in sys.modules
    return run_counted(copy_on(model, "cpu" if computed else "meta"), image_size)


@functools.cache
def count_spec(spec: NetSpec, image_size: int, num_classes: int = 1000) -> Cost:
    """Cost of a spec's network for one square RGB image with sides of ``image_size`` pixels.

    Raises ImageTooSmall for an image that the network would reduce to nothing.
    """
    sides(spec, image_size)
    return run_counted(build_meta(spec, num_classes), (3, image_size, image_size))


def build_meta(spec: NetSpec, num_classes: int) -> nn.Module:
    """A spec's network on the meta device: shapes without weights."""
    import torch

    from convnext_study.models.roadmap_net import RoadmapNet

    with torch.device("meta"):
        return RoadmapNet(spec, num_classes=num_classes)


def copy_on(model: nn.Module, device: str) -> nn.Module:
    """A copy whose parameters and buffers are zeros on another device."""
    import torch
    from torch import nn

    # deepcopy takes entries of its memo for existing copies, so no weight is ever copied.
    memo: dict[int, Any] = {}
    for module in model.modules():
        values = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
        for tensor in values:
            if isinstance(tensor, torch.Tensor):
                blank = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
                if isinstance(tensor, nn.Parameter):
                    blank = nn.Parameter(blank, requires_grad=tensor.requires_grad)
                memo[id(tensor)] = blank
    return copy.deepcopy(model, memo)


def blank_image(model: nn.Module, image_size: tuple[int, int, int]) -> torch.Tensor:
    """A batch of one black image, on the model's device and of its floating-point type."""
    import torch

    weights = (weight for weight in model.parameters() if weight.is_floating_point())
    like = next(weights, torch.empty(0))
    return torch.zeros((1, *image_size), dtype=like.dtype, device=like.device)


def run_counted(model: nn.Module, image_size: tuple[int, int, int]) -> Cost:
    """Run the model itself on a blank image and count; it stays in eval mode."""
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
        # Each element uses its channel's weights once; a call may use only some channels.
        macs += elements * (module.weight.numel() // channels)
        activations += output.numel()

    counted = [part for part in model.modules() if isinstance(part, _ConvNd | nn.Linear)]
    hooks = [part.register_forward_hook(add) for part in counted]
    try:
        with torch.no_grad(), skip_norms():
            model.eval()(blank_image(model, image_size))
    except RuntimeError as error:  # torch's, for incompatible sizes
        reason = (str(error).splitlines() or ["no reason given"])[0]
        height, width = image_size[1:]
        raise ImageTooSmall(
            f"image size: {type(model).__name__} cannot be counted on a {height}x{width} image "
            f"({reason:.200}); use a larger one, or fix the network"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(macs, sum(weight.numel() for weight in model.parameters()), activations)


def skip_norms() -> TorchFunctionMode:
    """Make norms return their input: no shape depends on them, and each takes torch 4 ms on the
    meta device, most of the time for a road map of deep networks."""
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


def count_fvcore(model: nn.Module, image_size: tuple[int, int, int]) -> int:
    """MACs of convolution and linear operators in fvcore's trace, for (channels, height, width).

    fvcore calls a multiply-accumulate a flop. Its tracing needs real tensors: a copy of the model
    with zeros for weights runs on the CPU, in about a second for ResNet-200.
    """
    import torch

    real = copy_on(model, "cpu").eval()
    with warnings.catch_warnings():
        # fvcore uses torch.jit, which torch has deprecated.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        with torch.inference_mode():
            analysis = FlopCountAnalysis(real, blank_image(real, image_size))
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            by_operator = analysis.by_operator()
    return int(sum(by_operator[name] for name in FVCORE_OPERATORS))


def count_torch(model: nn.Module, image_size: tuple[int, int, int]) -> int:
    """MACs of the convolution and linear operators that torch's own counter sees dispatched.

    torch counts two floating-point operations per multiply-accumulate, hence the half.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    blank = copy_on(model, "meta").eval()
    with torch.no_grad(), skip_norms(), FlopCounterMode(display=False) as counter:
        blank(blank_image(blank, image_size))
    counts = counter.get_flop_counts()["Global"]
    return int(sum(flops for name, flops in counts.items() if str(name) in TORCH_OPERATORS)) // 2


def verify_spec(where: str, spec: NetSpec, image_size: int, num_classes: int) -> None:
    """Count one network in all four ways. Raises CountersDisagree, one line with every counter and
    its count, unless they agree exactly."""
    shape = (3, image_size, image_size)
    model = build_meta(spec, num_classes)
    hooks = count_spec(spec, image_size, num_classes)
    arithmetic = closed_form(spec, image_size, num_classes)
    others = {"fvcore": count_fvcore(model, shape), "torch": count_torch(model, shape)}
    for unit, counts in {
        "MACs": {"hooks": hooks.macs, "closed form": arithmetic.macs, **others},
        "params": {"hooks": hooks.params, "closed form": arithmetic.params},
        "activations": {"hooks": hooks.activations, "closed form": arithmetic.activations},
    }.items():
        if len(set(counts.values())) > 1:
            details = ", ".join(f"{counter} {number:,}" for counter, number in counts.items())
            raise CountersDisagree(f"{where}: counters disagree on {unit}: {details}")
