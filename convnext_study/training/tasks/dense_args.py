"""What a run may say of a task with a label for every pixel."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convnext_study.errors import did_you_mean
from convnext_study.imports import TaskError


class SegmentationArgs(BaseModel):
    """Arguments of the task ``segmentation``.

    Args:
        crop: height and width of training images; None: those of the validation images.
        scales: training images are first scaled by one of these.
        class_weights: of each class in the loss; None: all 1.
        exit_weights: of each exit's loss in their sum; None: all 1.
        eval_batch: validation images that are taken at a time, where all have one size.
        divisor: of the sides of validation images, which are padded to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    class_weights: tuple[float, ...] | None = None
    exit_weights: tuple[float, ...] | None = None
    eval_batch: int = Field(default=32, ge=1)
    divisor: int = Field(default=32, ge=1)


def segmentation_args(values: dict[str, Any]) -> SegmentationArgs:
    """The arguments of a record. Raises TaskError, one line that names the one at fault."""
    try:
        return SegmentationArgs.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        hint = ""
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(where, list(SegmentationArgs.model_fields))
        raise TaskError(f"task segmentation: {where}: {first['msg'].lower()}{hint}") from None
