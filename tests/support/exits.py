"""A small network with exits, for the tests of tasks with a label for every pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from convnext_study import cost
from convnext_study.recipes import MODERN_SMALL
from convnext_study.runs.records import ModelRef, Run, TaskRef


class TwoExits(nn.Module):
    """Logits at half and at a quarter of the size; with one exit only the last ones."""

    def __init__(self, num_classes: int, exits: int = 2, width: int = 8) -> None:
        super().__init__()
        self.exits = exits
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for _ in range(exits))

    def forward(self, x: Tensor) -> Any:
        early = self.stem(x)
        late = self.body(early)
        if self.exits == 1:
            return self.heads[0](late)
        return [head(one) for head, one in zip(self.heads, (early, late), strict=True)]

    def exit_costs(self, image_shape: tuple[int, int, int]) -> list[cost.Cost]:
        """Of all that is computed up to each exit."""
        first = nn.Sequential(self.stem, self.heads[0])
        return [cost.count(first, image_shape), cost.count(self, image_shape)]


class Constant(nn.Module):
    """Says one class of every pixel at its exits, one after the other."""

    def __init__(self, num_classes: int, says: tuple[int, ...]) -> None:
        super().__init__()
        self.says, self.num_classes = says, num_classes

    def forward(self, x: Tensor) -> list[Tensor]:
        blank = torch.zeros(len(x), self.num_classes, *(side // 4 for side in x.shape[2:]))
        return [blank.index_fill(1, torch.tensor([one]), 1.0) for one in self.says]


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """A `TwoExits` for a run."""
    return TwoExits(num_classes, **args)


def exit_run(
    data: str = "digit-canvas:32,32,10",
    model: dict[str, Any] | None = None,
    task: str = "segmentation",
    recipe: dict[str, Any] | None = None,
    **args: Any,
) -> Run:
    """Two epochs of two steps on canvases, with the task's arguments."""
    fields = {"epochs": 2, "warmup_epochs": 0, "global_batch_size": 16, "label_smoothing": 0.0}
    fields |= recipe or {}
    return Run(
        study="test",
        name="exits",
        model=ModelRef(builder="support.exits:build", args=model or {}),
        recipe=MODERN_SMALL.replace(**fields).model_dump(mode="json"),
        data=data,
        seed=0,
        task=TaskRef(name=task, args=args),
    )
