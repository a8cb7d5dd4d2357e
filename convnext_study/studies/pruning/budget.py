"""What the paper's scripts call FLOPs, from which they work out the epochs of Scratch-B.

It is no cost to show: that is `cost.count`. A multiply-accumulate counts as two; BatchNorm2d, ReLU
and max-pooling count where they are modules; so does global pooling, but not in a VGG, where it is
functional, as pooling between dense blocks and in shortcuts is everywhere. Weights that are zero
are free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convnext_study.cost.counter import blank_image, copy_on, skip_norms
from convnext_study.models.head import Head

if TYPE_CHECKING:
    from torch import Tensor, nn

CAP = 2  # Scratch-B's ratio on ImageNet, for the predefined methods


def budget_flops(model: nn.Module, image_size: tuple[int, int, int], *, soft: bool = False) -> int:
    """The budget of one image (channels, height, width), for any module that maps images.

    Zeros among the weights of convolutions are left out, so a masked network costs what is left;
    on the meta device, where there are no values, no weight counts as zero. ``soft`` is the count
    of soft filter pruning's code: there ReLU is free, and the 1x1 pooling of a shortcut counts.
    """
    import torch

    counter = _Counter(model, soft)
    blank = copy_on(model, "meta").eval()
    hooks = [
        module.register_forward_hook(counter.hook(name)) for name, module in blank.named_modules()
    ]
    try:
        with torch.no_grad(), skip_norms():
            blank(blank_image(blank, image_size))
    finally:
        for hook in hooks:
            hook.remove()
    return counter.total


def scratch_b_epochs(large: int, pruned: int, base_epochs: int, *, capped: bool = False) -> int:
    """Epochs in which a pruned network costs what the large one's training cost.

    Args:
        large: budget of the large network, for one image.
        pruned: budget of the pruned one.
        base_epochs: of the large network's training.
        capped: never longer than twice as long, as on ImageNet for predefined methods.
    """
    if capped and large >= CAP * pruned:
        return CAP * base_epochs
    return base_epochs * large // pruned


class _Counter:
    """Adds up the budget of every module that is called."""

    def __init__(self, model: nn.Module, soft: bool) -> None:
        self.total = 0
        self.soft = soft
        self.weights = {
            name: int(module.weight.count_nonzero())
            if module.weight.device.type != "meta"
            else module.weight.numel()
            for name, module in model.named_modules()
            if _is(module, "Conv2d")
        }

    def hook(self, name: str) -> Any:
        """A forward hook for the module of that name."""

        def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self.total += self._of(name, module, args[0], output)

        return add

    def _of(self, name: str, module: Any, x: Tensor, y: Tensor) -> int:
        from timm.layers import SelectAdaptivePool2d
        from torch import nn

        from convnext_study.studies.pruning.networks.parts import PaddedShortcut

        match module:
            case nn.Conv2d():
                bias = module.out_channels if module.bias is not None else 0
                return int((2 * self.weights[name] + bias) * y[0, 0].numel())
            case nn.Linear():
                return int(2 * module.weight.numel() + module.out_features)
            case nn.BatchNorm2d():
                return 2 * y[0].numel()
            case nn.ReLU():
                return 0 if self.soft else y[0].numel()
            case PaddedShortcut():
                return x[0].shape[0] * y[0, 0].numel() if self.soft else 0
            case nn.MaxPool2d():
                side: Any = module.kernel_size
                return int(side**2 * y[0].numel())
            case SelectAdaptivePool2d():
                return x[0].numel()
        return x[0].numel() if type(module) is Head else 0


def _is(module: nn.Module, kind: str) -> bool:
    from torch import nn

    return isinstance(module, getattr(nn, kind))
