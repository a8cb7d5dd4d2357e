"""Human pose estimation by heatmaps, with a network that has one output or several exits.

A **reconstruction**: that anytime networks were trained on MPII is published, but not how.
Heatmaps, their loss and the metric are those of HRNet (Sun et al., 2019), except that Gaussians
are centred at subpixel positions and not truncated; the sum over exits is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from convnext_study.data import open_data
from convnext_study.data.sources import JOINTS
from convnext_study.data.transforms.joint import CropPerson, PersonCrop
from convnext_study.data.workers import Transform
from convnext_study.runs.metrics import Metric, NoResultError
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks.base import Evidence, Weights, parse
from convnext_study.training.tasks.exits import ExitsTask, exit_metrics

PRIMARY = "pckh"
SIGMA = 2.0  # of the Gaussians, in cells of the heatmap
NEAR = 0.5  # of the head's size: a joint this near is right


class PoseArgs(BaseModel):
    """Arguments of the task ``pose``.

    Args:
        size: side of the square input; None: the data's.
        exit_weights: the weight of each exit's loss in their sum; None: all 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int | None = Field(default=None, ge=1)
    exit_weights: Weights | None = None


class Pose(ExitsTask):
    """Mean squared error of heatmaps; PCKh@0.5 of each exit.

    PCKh (Andriluka et al., 2014): the share of labelled joints predicted within half the head
    size, over all joints but pelvis and thorax.
    """

    def __init__(self, run: Run, runtime: Runtime) -> None:
        self.args = parse(PoseArgs, run.task)
        data = open_data(run.data, JOINTS, corrupt_images=runtime.corrupt_images)
        super().__init__(run, runtime, data, self.args.exit_weights)
        self.size = self.args.size or self.data.size
        self._cut = PersonCrop(self.size, flip=self.recipe.flip)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input."""
        return (3, self.size, self.size)

    def image_losses(self, exits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Each person's loss, (n,): the weighted sum over exits of half the mean squared error
        over joints and cells; unlabelled joints and those outside the square count as no error."""
        losses = torch.zeros(len(labels), device=labels.device)
        for weight, maps in zip(self.exit_weights(len(exits)), exits, strict=True):
            targets, seen = gaussians(labels, maps.shape[2:], self.size, SIGMA)
            errors = (maps.float() - targets).square().mean((2, 3)) * seen
            losses = losses + weight * errors.mean(1) / 2
        return losses

    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """``joints``, (n, exits, 2): how many are right, and how many count."""
        measured = list(self.data.measured)
        head = labels[:, -1, 3]
        counted = (labels[:, measured, 2] > 0) & (head > 0)[:, None]  # also False for NaN
        counts = []
        for maps in exits:
            distances = (peaks(maps, self.size) - labels[:, :-1, :2]).norm(dim=2)[:, measured]
            right = counted & (distances <= NEAR * head[:, None])
            counts.append(torch.stack([right.sum(1), counted.sum(1)], 1))
        return {"joints": torch.stack(counts, 1)}

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """PCKh of each exit, and their mean, the primary metric; people of an image are grouped.

        Raises NoResultError if no joint counts.
        """
        counts = evidence["joints"]
        if not counts[..., 1].any():
            raise NoResultError(
                f"{self.data.uri}: no person in the validation part has both a labelled joint "
                "that counts and a known head size, so PCKh has nothing to measure; label some"
            )
        return exit_metrics(counts[:, :, None], PRIMARY, "PCKh", self.groups_of(evidence))

    def transforms(self) -> tuple[Transform, Transform]:
        """Crops around people: augmented in training, plain in validation."""
        cut, mirrored = self._cut, self.data.mirrored
        return (
            CropPerson(cut, mirrored, draws=True),
            CropPerson(cut, mirrored, draws=False),
        )


def gaussians(rows: Tensor, cells: Sequence[int], size: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Heatmaps (n, joints, h, w) with a peak of 1 at each joint, and which joints are seen,
    (n, joints): those that are labelled and within three sigma of the square.

    Args:
        rows: (n, joints + 1, 4), positions in pixels of a square of side ``size``.
        cells: height and width of the heatmaps.
        size: side of the square.
        sigma: in cells.
    """
    height, width = cells
    scale = torch.tensor([width / size, height / size], device=rows.device)
    positions = rows[:, :-1, :2] * scale
    across, down = (
        torch.arange(count, device=rows.device) + 0.5 - positions[..., axis, None]
        for axis, count in ((0, width), (1, height))
    )
    maps = torch.exp(-(down[..., :, None] ** 2 + across[..., None, :] ** 2) / (2 * sigma**2))
    extent = torch.tensor([width, height], device=rows.device)
    inside = ((positions > -3 * sigma) & (positions < extent + 3 * sigma)).all(2)
    return maps, inside & (rows[:, :-1, 2] > 0)


def peaks(maps: Tensor, size: int) -> Tensor:
    """Where heatmaps (n, joints, h, w) are largest: (n, joints, 2), x and y, in pixels of a square
    of side ``size``; shifted a quarter cell towards the larger neighbour, as in HRNet."""
    height, width = maps.shape[2:]
    flat = maps.float().flatten(2)
    best = flat.argmax(2)
    column, row = best % width, best // width

    def lean(index: Tensor, extent: int, step: int) -> Tensor:
        interior = (index > 0) & (index < extent - 1)
        after, before = (
            flat.gather(2, (best + sign * step).clamp(0, height * width - 1)[..., None])[..., 0]
            for sign in (1, -1)
        )
        return torch.where(interior, (after - before).sign() / 4, 0.0)

    x = (column + 0.5 + lean(column, width, 1)) * (size / width)
    y = (row + 0.5 + lean(row, height, width)) * (size / height)
    return torch.stack([x, y], 2)
