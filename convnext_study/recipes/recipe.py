"""The definition of a recipe: all training settings, validated, with defaults and units."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from convnext_study.errors import UserError, first_fault

# Limits beyond which nothing is trained, small enough that products do not overflow.
LEAST_PIXELS = 2  # of a side: torch cannot resize an image to a single pixel
MOST_PIXELS, MOST_IMAGES, MOST_EPOCHS = 8192, 10_000_000, 1_000_000
Beta = Annotated[float, Field(ge=0, lt=1)]


class RecipeError(UserError):
    """A recipe cannot be used; the message names the recipe and the field."""


class Recipe(BaseModel):
    """Training settings. Lengths are in epochs, rates and probabilities are fractions.

    ``lr`` and ``min_lr`` apply at ``lr_base_size`` images per step and are scaled linearly to
    ``global_batch_size`` (the images of one optimizer step, over all processes).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    epochs: int = Field(ge=1, le=MOST_EPOCHS)
    optimizer: Literal["adamw", "sgd"]
    lr: float = Field(gt=0, le=1e4)
    lr_base_size: int = Field(ge=1, le=MOST_IMAGES)
    global_batch_size: int = Field(ge=1, le=MOST_IMAGES)
    weight_decay: float = Field(ge=0, le=1e3)
    weight_decay_1d: bool = False  # also decay biases, norms and layer scale
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False  # for sgd
    schedule: Literal["cosine", "step", "poly", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0, ge=0, le=MOST_EPOCHS)
    min_lr: float = Field(default=0.0, ge=0)
    # For the step schedule, which multiplies lr by gamma: every N epochs or at these epochs, by the
    # same factor or by one per milestone.
    milestones: int | tuple[int, ...] = 30
    gamma: float | tuple[float, ...] = 0.1
    power: float = Field(default=0.9, gt=0, le=100)  # for the poly schedule
    image_size: int | None = Field(
        default=None, ge=LEAST_PIXELS, le=MOST_PIXELS
    )  # None: the data's own
    # Progressive resizing: the side of training images in the first ``early_epochs`` epochs.
    early_image_size: int | None = Field(default=None, ge=LEAST_PIXELS, le=MOST_PIXELS)
    early_epochs: int = Field(default=0, ge=0, le=MOST_EPOCHS)
    crop: Literal["random_resized", "random_crop", "none"] = "random_resized"
    flip: bool = True  # horizontal; if the data allows it
    rand_augment: str | None = None  # timm's notation
    color_jitter: float = Field(default=0.0, ge=0, le=10)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    random_erasing: float = Field(default=0.0, ge=0, le=1)
    mixup: float = Field(default=0.0, ge=0, le=1e3)
    cutmix: float = Field(default=0.0, ge=0, le=1e3)
    mixup_prob: float = Field(default=1.0, ge=0, le=1)
    mixup_switch_prob: float = Field(default=0.5, ge=0, le=1)
    # Images that share one draw of Mixup or CutMix. The released code draws once per batch of a
    # process, 128 images in its commands for ConvNeXt-T (facebookresearch/ConvNeXt, TRAINING.md).
    mix_group_size: int = Field(default=128, ge=2, le=MOST_IMAGES, multiple_of=2)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    clip_grad: float = Field(default=0.0, ge=0, le=1e6)  # largest norm; 0: none
    ema: float = Field(default=0.0, ge=0, lt=1)  # 0: off
    eval_weights: Literal["raw", "ema"] = "raw"  # the weights whose accuracy is the run's result
    precision: Literal["float32", "bf16", "fp16"] = "float32"  # autocast
    sync_bn: bool = False  # BatchNorm over all processes
    crop_pct: float = Field(default=0.875, ge=0.05, le=1)
    init: Literal["trunc_normal", "kaiming"] = "trunc_normal"

    @model_validator(mode="after")
    def _check_result(self) -> Recipe:
        if self.eval_weights == "ema" and not self.ema:
            raise ValueError("eval_weights is ema, but ema is off; set ema too, such as 0.9999")
        if self.min_lr > self.lr:
            raise ValueError(
                f"min_lr {self.min_lr:g} is above lr {self.lr:g}; use a smaller min_lr"
            )
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs sgd with momentum; remove it, or set both")
        if bool(self.early_epochs) != bool(self.early_image_size):
            raise ValueError(
                "early_image_size and early_epochs belong together; set both or neither"
            )
        gamma, drops = self.gamma, self.milestones
        if isinstance(gamma, tuple) and (isinstance(drops, int) or len(drops) != len(gamma)):
            raise ValueError("gamma has several values; give one for each milestone")
        return self

    @field_validator("milestones")
    @classmethod
    def _check_milestones(cls, milestones: int | tuple[int, ...]) -> int | tuple[int, ...]:
        epochs = (milestones,) if isinstance(milestones, int) else milestones
        increasing = all(a < b for a, b in pairwise(epochs))
        if not epochs or epochs[0] < 1 or epochs[-1] > MOST_EPOCHS or not increasing:
            raise ValueError(
                f"give a number of epochs from 1 to {MOST_EPOCHS}, or an increasing list"
            )
        return milestones

    @field_validator("gamma")
    @classmethod
    def _check_gamma(cls, gamma: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if isinstance(gamma, float) and not 0 < gamma < 1:
            raise ValueError("give a number between 0 and 1, or one above 0 for each milestone")
        if isinstance(gamma, tuple) and not all(0 < factor <= 100 for factor in gamma):
            raise ValueError("give numbers above 0 and at most 100")
        return gamma

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, by Mixup or CutMix."""
        return bool(self.mixup or self.cutmix)

    def at_epoch(self, epoch: int) -> Recipe:
        """The recipe with the image size of an epoch (from 0)."""
        if epoch >= self.early_epochs:
            return self
        return self.model_copy(update={"image_size": self.early_image_size})

    def for_images(self, count: int) -> Recipe:
        """The recipe for ``count`` training images: if they are fewer than a batch, each step uses
        all of them, with the learning rate scaled accordingly."""
        if count >= self.global_batch_size:
            return self
        return self.model_copy(update={"global_batch_size": count})

    def replace(self, **fields: Any) -> Recipe:
        """The recipe with some fields changed, as noted in its name. Raises RecipeError."""
        fields = {name: value for name, value in fields.items() if value is not None}
        if not fields:
            return self
        note = ",".join(f"{name}={value}" for name, value in fields.items())
        return make_recipe({**self.model_dump(), **fields, "name": f"{self.name}[{note}]"})


def make_recipe(fields: dict[str, Any]) -> Recipe:
    """A recipe from plain values. Raises RecipeError, one line that names the field."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        name = " ".join(str(fields.get("name", "?")).split())
        raise RecipeError(f"recipe {name}: {first_fault(error, Recipe.model_fields)}") from None
