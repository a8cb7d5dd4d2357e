"""Attention among paths and among channels. Both map (N, C, H, W) to the same shape."""

import torch
from torch import Tensor, nn

from convnext_study.studies.multipath.spec import SE_REDUCTION


class PathAttention(nn.Module):
    """One weight a path, from the global means of all paths (our reconstruction).

    The paths lie one after the other in the channels, so that weighing them after they are
    concatenated is the same as before.
    """

    def __init__(self, paths: int) -> None:
        super().__init__()
        self.paths = paths
        self.fc1 = nn.Linear(paths, paths)
        self.fc2 = nn.Linear(paths, paths)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each path of (N, paths * width, H, W)."""
        means = x.mean((2, 3)).reshape(x.shape[0], self.paths, -1)
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(means.mean(2)))))
        return x * weights.unsqueeze(2).expand_as(means).flatten(1)[:, :, None, None]


class SqueezeExcite(nn.Module):
    """One weight a channel (Hu et al., 2018), by linear layers with bias, 16 to 1 in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // SE_REDUCTION)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of (N, C, H, W)."""
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3))))))
        return x * weights[:, :, None, None]


def make_attention(kind: str, paths: int, channels: int) -> nn.Module:
    """``none``, ``path`` or ``se``, as in the spec."""
    if kind == "path":
        return PathAttention(paths)
    return SqueezeExcite(channels) if kind == "se" else nn.Identity()
