"""Convolutions that no two outputs share an input of, as matrix products, on the CPU.

Pointwise convolutions, strided or not, and those of patches are linear layers on positions. Where
the channels of a position lie side by side torch's matrix product takes less time than its
convolution, which prepares its weights anew at each call: measured with one thread, forward and
backward, batch 64 on maps from 8x8 to 1x1, 1.1 to 4x; batch 8 on the maps of ConvNeXt-T at 224,
1.0 to 1.4x.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEWEST_CHANNELS = 8  # patches of three colours are faster as a convolution


class LinearConv2d(nn.Conv2d):
    """A convolution without overlap, as a matrix product where channels come last in memory.

    The same parameters and state dict as the `Conv2d` it takes the place of, and the same outputs
    up to rounding. Maps (N, C, H, W) to (N, C', H', W').
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        by_position = input.is_contiguous(memory_format=torch.channels_last)
        if input.device.type != "cpu" or not by_position:
            return super().forward(input)
        side, stride = self.kernel_size[0], self.stride[0]
        maps = input.permute(0, 2, 3, 1)
        if side > 1:
            maps = _patches(maps, side)
        elif stride > 1:
            maps = maps[:, ::stride, ::stride]
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(maps, weight, self.bias).permute(0, 3, 1, 2)


def _patches(maps: Tensor, side: int) -> Tensor:
    """(N, H, W, C) to (N, H / side, W / side, side * side * C); what is over is cut off."""
    count, height, width, channels = maps.shape
    down, across = height // side, width // side
    maps = maps[:, : down * side, : across * side]
    squares = maps.reshape(count, down, side, across, side, channels).transpose(2, 3)
    return squares.reshape(count, down, across, side * side * channels)
