"""What a study will cost, and what of it will not compare with the paper, before anything runs.

Training FLOPs are 3 x the forward multiply-accumulates x 2: the backward pass takes twice the
forward's, and a multiply-accumulate is two operations. Evaluation is a forward pass.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnext_study.cost.closed_form import closed_form
from convnext_study.errors import UserError, did_you_mean
from convnext_study.experiments.data_identity import DatasetSize
from convnext_study.models.builders import ROADMAP_BUILDER, get_builder
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.records import EXPECTED_EPOCHS, NETWORK_IS_BOUND, ModelRef, Run

if TYPE_CHECKING:
    from convnext_study.cost import Cost
    from convnext_study.recipes import Recipe

RULE = "training FLOPs = 3 x forward MACs x 2 for each image; evaluation = forward MACs x 2"
BOUND = (
    "<=: the run it starts from decides the network; the largest that it can be is counted, for "
    "the epochs shown, which grow only as the network shrinks"
)
HOURS = 3600.0
# Utilisation of the peak. The paper's own throughput (Table 12: ConvNeXt-T, A100, TF32, channels
# last, 1943.5 images/s) is 2 x 4.46e9 x 1943.5 = 17.3e12, 11 % of the peak: depthwise and
# normalising layers wait for memory. What is printed for large Transformers, 40 %, is not for this.
MFU = 0.1
LOG_LINE = 300  # bytes an epoch


@dataclass(frozen=True)
class Gpu:
    """Peak dense rates (no structured sparsity) in 1e12 operations a second."""

    name: str
    tf32: float  # what float32 convolutions use
    half: float  # bf16 or fp16 with float32 sums


# The makers' data sheets: A100, H100, H200 (SXM), L40S, V100 (SXM2); Ada and Ampere GA102 white
# papers for the RTX cards; MI300X. Where a sheet prints the rate with sparsity it is halved.
GPUS = {
    "v100": Gpu("V100", 15.7, 125.0),  # no TF32: its float32 rate
    "a100": Gpu("A100", 156.0, 312.0),
    "h100": Gpu("H100", 494.7, 989.4),
    "h200": Gpu("H200", 494.7, 989.4),
    "l40s": Gpu("L40S", 183.0, 362.05),
    "rtx3090": Gpu("RTX 3090", 35.6, 71.0),
    "rtx4090": Gpu("RTX 4090", 82.6, 165.2),
    "mi300x": Gpu("MI300X", 653.7, 1307.4),
}


@dataclass(frozen=True)
class Hardware:
    """``gpus`` of one kind share a run. Raises UserError for a kind that is not in `GPUS`."""

    gpu: str
    gpus: int = 1
    mfu: float = MFU
    micro_batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise UserError(f"gpu: {self.gpu!r}{did_you_mean(self.gpu, [*GPUS])}")

    def tflops(self, precision: str) -> float:
        """One device's peak throughput in 1e12 operations a second."""
        gpu = GPUS[self.gpu]
        return gpu.tf32 if precision == "float32" else gpu.half


@dataclass(frozen=True)
class CostEstimate:
    """What one run will cost. FLOPs are floating point operations, disk is in bytes.

    ``is_bound``: the run that it starts from decides its network; this is the most it can cost.
    """

    run: str
    step: str
    seed: int
    recipe: str
    precision: str
    norm: str
    epochs: int
    image_size: int
    params: int
    macs: int
    images: int  # read in training
    train_flops: float
    eval_flops: float
    peak_tflops: float
    gpu_hours: float
    wall_hours: float
    disk: int
    global_batch_size: int
    batch_per_device: int
    micro_batch_size: int
    accum_steps: int
    is_bound: bool = False

    @property
    def flops(self) -> float:
        """Training's and evaluation's."""
        return self.train_flops + self.eval_flops

    @property
    def batch_split(self) -> str:
        """Global batch = devices x accumulation x micro batch."""
        devices = self.global_batch_size // self.batch_per_device
        return (
            f"{self.global_batch_size} = {devices} x {self.accum_steps} x {self.micro_batch_size}"
        )


def estimate(
    runs: Sequence[Run], sizes: Mapping[str, DatasetSize], hardware: Hardware
) -> list[CostEstimate]:
    """What each run will cost on its data, whose ``sizes`` are given by URI.

    Raises UserError for a batch that the devices cannot share, and for a network that cannot be
    built.
    """
    return [_one(run, sizes[run.data], hardware) for run in runs]


def _one(run: Run, dataset: DatasetSize, hardware: Hardware) -> CostEstimate:
    from convnext_study.data.loader import steps_per_epoch
    from convnext_study.data.sharding import BatchSharding, accum_steps
    from convnext_study.recipes import make_recipe

    recipe = make_recipe(run.recipe).for_images(dataset.train)
    recipe = recipe.model_copy(update={"epochs": run.metadata.get(EXPECTED_EPOCHS, recipe.epochs)})
    size = recipe.image_size or dataset.image_size
    counted = _count(run.model, size, dataset.classes)
    sharding = BatchSharding(0, hardware.gpus, hardware.micro_batch_size)
    pieces = accum_steps(recipe.global_batch_size, sharding, even=recipe.mixes)
    steps = steps_per_epoch(dataset.train, recipe.global_batch_size) * recipe.epochs
    images = steps * recipe.global_batch_size
    train_flops = 6.0 * counted.macs * images
    # Raw and averaged weights are both evaluated.
    eval_flops = 2.0 * counted.macs * dataset.val * recipe.epochs * (2 if recipe.ema else 1)
    peak = hardware.tflops(recipe.precision)
    hours = (train_flops + eval_flops) / (peak * 1e12 * hardware.mfu) / HOURS
    mine = recipe.global_batch_size // hardware.gpus
    return CostEstimate(
        run=run.id,
        step=run.name,
        seed=run.seed,
        recipe=recipe.name,
        precision=recipe.precision,
        norm=_norm(run.model),
        epochs=recipe.epochs,
        image_size=size,
        params=counted.params,
        macs=counted.macs,
        images=images,
        train_flops=train_flops,
        eval_flops=eval_flops,
        peak_tflops=peak,
        gpu_hours=hours,
        wall_hours=hours / hardware.gpus,
        disk=_disk(counted.params, dataset, recipe),
        global_batch_size=recipe.global_batch_size,
        batch_per_device=mine,
        micro_batch_size=mine // pieces,
        accum_steps=pieces,
        is_bound=bool(run.metadata.get(NETWORK_IS_BOUND)),
    )


def _count(model: ModelRef, image_size: int, classes: int) -> Cost:
    """The cost of one image. Raises UserError for a network that cannot be made or counted."""
    if model.builder == ROADMAP_BUILDER:  # without the seconds that importing torch takes
        return closed_form(NetSpec.from_dict(model.args), image_size, classes)
    return _count_built(model.builder, json.dumps(model.args), image_size, classes)


def _norm(model: ModelRef) -> str:
    """The road map's networks say which; of others it is not known."""
    return NetSpec.from_dict(model.args).norm if model.builder == ROADMAP_BUILDER else ""


@functools.cache
def _count_built(builder: str, args: str, image_size: int, classes: int) -> Cost:
    from convnext_study import cost

    net = get_builder(builder)(
        json.loads(args), num_classes=classes, drop_path=0.0, init="trunc_normal"
    )
    return cost.count(net, (3, image_size, image_size))


def _disk(params: int, dataset: DatasetSize, recipe: Recipe) -> int:
    """Bytes a run leaves: its two newest checkpoints, its log, and a bit for each test image."""
    copies = 1 + {"adamw": 2, "sgd": 1}[recipe.optimizer] + bool(recipe.ema)
    return 2 * 4 * copies * params + LOG_LINE * recipe.epochs + dataset.val // 4
