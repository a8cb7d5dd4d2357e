"""Estimates what a study will cost, before anything runs.

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
from convnext_study.cost.memory import saved_bytes, state_bytes
from convnext_study.data.sources import DatasetSize
from convnext_study.errors import UserError, did_you_mean
from convnext_study.models.builders import ROADMAP_BUILDER, get_builder
from convnext_study.results.subset_results import RECIPE
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.records import EXPECTED_EPOCHS, NETWORK_IS_BOUND, ModelRef, Run
from convnext_study.training.runtime import uses_tf32

if TYPE_CHECKING:
    from convnext_study.cost import Cost
    from convnext_study.recipes import Recipe

RULE = "training FLOPs = 3 x forward MACs x 2 per image; evaluation = forward MACs x 2"
BOUND = (
    "<=: an upper bound. The parent run determines the network; the largest possible one is "
    "counted, for the epochs shown, which grow only if the network shrinks"
)
HOURS = 3600.0
# Utilisation of the peak, from the paper's own throughput of ConvNeXt-T. Table 12, A100, TF32,
# channels last: 1943.5 images/s, 2 x 4.46e9 x 1943.5 = 17.3e12, 11 % of the peak: depthwise and
# normalisation layers wait for memory. Table 1, V100, float32: 774.7 images/s, 44 % of its peak.
MFU, FLOAT32_MFU = 0.1, 0.4
COMPARED_GPUS = ("a100", "h100", "rtx4090")
LOG_LINE = 300  # bytes per epoch
USABLE = 0.9  # of a GPU's memory: the rest is for its driver and for libraries' temporary buffers
# Images/s that one core reads at 224 pixels from JPEG files like ImageNet's (500x375, 115 kB), and
# from those that `pack` makes of them (docs/performance.md): with crop and flip only, and with
# RandAugment.
READ_RATES = {"files": (460, 275), "packed": (1030, 440)}


@dataclass(frozen=True)
class Gpu:
    """Peak dense rates (no structured sparsity) in 1e12 operations per second; memory in GB."""

    name: str
    float32: float
    tf32: float | None  # float32 products with factors rounded to 10 bits; None: not supported
    half: float  # bf16 or fp16 with float32 sums
    memory: int


# The makers' data sheets: A100, H100, H200 (SXM), L40S, V100 (SXM2); Ada and Ampere GA102 white
# papers for the RTX cards; MI300X. If a sheet gives the rate with sparsity, it is halved.
GPUS = {
    "v100": Gpu("V100", 15.7, None, 125.0, 32),
    "a100": Gpu("A100", 19.5, 156.0, 312.0, 80),
    "a100-40": Gpu("A100 of 40 GB", 19.5, 156.0, 312.0, 40),
    "h100": Gpu("H100", 66.9, 494.7, 989.4, 80),
    "h200": Gpu("H200", 66.9, 494.7, 989.4, 141),
    "l40s": Gpu("L40S", 91.6, 183.0, 362.05, 48),
    "rtx3090": Gpu("RTX 3090", 35.6, 35.6, 71.0, 24),
    "rtx4090": Gpu("RTX 4090", 82.6, 82.6, 165.2, 24),
    "mi300x": Gpu("MI300X", 163.4, 653.7, 1307.4, 192),
}


DEFAULT_GPU = "a100"  # if no kind is named


@dataclass(frozen=True)
class Hardware:
    """``gpus`` of one kind share a run. Raises UserError for a kind that is not in `GPUS`.

    ``mfu`` is the share of the peak that is reached; None: the paper's for that arithmetic.
    ``tf32`` is the training's setting; None: the paper's, for its recipes.
    """

    gpu: str
    gpus: int = 1
    mfu: float | None = None
    micro_batch_size: int | None = None
    tf32: bool | None = None

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise UserError(f"gpu: {self.gpu!r}{did_you_mean(self.gpu, [*GPUS])}")

    def peak(self, recipe: Recipe) -> tuple[float, float]:
        """A device's peak rate in 1e12 operations per second, and the share of it that is used."""
        gpu = GPUS[self.gpu]
        if recipe.precision != "float32":
            return gpu.half, self.mfu or MFU
        if gpu.tf32 and uses_tf32(recipe, self.tf32):
            return gpu.tf32, self.mfu or MFU
        return gpu.float32, self.mfu or FLOAT32_MFU


@dataclass(frozen=True)
class CostEstimate:
    """The cost of one run. FLOPs are floating point operations, disk is in bytes.

    ``is_bound``: its parent decides its network; this is the most that it can cost.
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
    mfu: float
    gpu_hours: float
    wall_hours: float
    disk: int
    global_batch_size: int
    batch_per_device: int
    micro_batch_size: int
    accum_steps: int
    image_bytes: int | None  # kept per image for the backward pass; None: not known
    memory: int | None  # bytes of the GPU at the micro-batch
    images_that_fit: int | None  # at a time
    images_per_second: float  # per GPU
    cores: float | None  # needed to read as fast; None if images are in memory
    is_bound: bool = False

    @property
    def flops(self) -> float:
        """Those of training and evaluation."""
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
    """The cost of each run on its data; ``sizes`` are by URI.

    Raises UserError for a batch that the devices cannot share, and for a network that cannot be
    built.
    """
    return [_estimate_run(run, sizes[run.data], hardware) for run in runs]


def _estimate_run(run: Run, dataset: DatasetSize, hardware: Hardware) -> CostEstimate:
    from convnext_study.data.loader import steps_per_epoch
    from convnext_study.data.sharding import BatchSharding, accum_steps
    from convnext_study.recipes import images_at_a_time, make_recipe

    recipe = make_recipe(run.recipe).for_images(dataset.train)
    recipe = recipe.model_copy(update={"epochs": run.metadata.get(EXPECTED_EPOCHS, recipe.epochs)})
    size = recipe.image_size or dataset.image_size
    cost = _count(run.model, size, dataset.classes)
    micro_batch = images_at_a_time(recipe, hardware.micro_batch_size)
    sharding = BatchSharding(0, hardware.gpus, micro_batch)
    accum = accum_steps(recipe.global_batch_size, sharding, even=recipe.mixes)
    steps = steps_per_epoch(dataset.train, recipe.global_batch_size) * recipe.epochs
    images = steps * recipe.global_batch_size
    early = min(recipe.early_epochs, recipe.epochs)
    early_macs = _count(run.model, recipe.at_epoch(0).image_size or size, dataset.classes).macs
    macs = (early * early_macs + (recipe.epochs - early) * cost.macs) / recipe.epochs  # the mean
    train_flops = 6.0 * macs * images
    # Raw and averaged weights are both evaluated.
    evaluations = (1 if dataset.val_once else recipe.epochs) * (2 if recipe.ema else 1)
    eval_flops = 2.0 * cost.macs * dataset.val * evaluations
    peak, mfu = hardware.peak(recipe)
    hours = (train_flops + eval_flops) / (peak * 1e12 * mfu) / HOURS
    rate = peak * 1e12 * mfu / (6.0 * macs)
    per_device = recipe.global_batch_size // hardware.gpus
    return CostEstimate(
        run=run.id,
        step=run.name,
        seed=run.seed,
        recipe=recipe.name,
        precision=recipe.precision,
        norm=_norm(run.model),
        epochs=recipe.epochs,
        image_size=size,
        params=cost.params,
        macs=cost.macs,
        images=images,
        train_flops=train_flops,
        eval_flops=eval_flops,
        peak_tflops=peak,
        mfu=mfu,
        gpu_hours=hours,
        wall_hours=hours / hardware.gpus,
        disk=_disk(cost.params, dataset, recipe),
        global_batch_size=recipe.global_batch_size,
        batch_per_device=per_device,
        micro_batch_size=per_device // accum,
        accum_steps=accum,
        **_memory(run.model, recipe, (size, cost.params, per_device // accum), hardware),
        images_per_second=rate,
        cores=_cores(run.data, recipe, rate),
        is_bound=bool(run.metadata.get(NETWORK_IS_BOUND)),
    )


def _count(model: ModelRef, image_size: int, classes: int) -> Cost:
    """The cost per image. Raises UserError for a network that cannot be built or counted."""
    if model.builder == ROADMAP_BUILDER:  # without importing torch, which takes seconds
        return closed_form(NetSpec.from_dict(model.args), image_size, classes)
    return _count_built(model.builder, json.dumps(model.args), image_size, classes)


@dataclass(frozen=True)
class Cheaper:
    """All runs of a study with another choice of recipe: its share of the cost, and hours on one
    GPU and on eight, by the name of the GPU."""

    recipe: str
    source: str
    share: float
    hours: dict[str, tuple[float, float]]


def cheaper(
    runs: Sequence[Run], sizes: Mapping[str, DatasetSize], hardware: Hardware
) -> list[Cheaper]:
    """The published recipes and those for less compute, on three kinds of GPUs; empty unless all
    runs are rows of a published road."""
    from convnext_study.recipes import CHEAP, PUBLISHED, recipe_for

    own = [run.metadata.get(RECIPE) for run in runs]
    if not all(run.metadata.get("published") for run in runs) or not set(own) <= set(PUBLISHED):
        return []
    gpus = list(dict.fromkeys((hardware.gpu, *COMPARED_GPUS)))[: len(COMPARED_GPUS)]
    choices: list[Cheaper] = []
    published_flops = 0.0
    for choice, source in [
        ("published", "the paper's"),
        *((recipe.name, recipe.source) for recipe in CHEAP),
    ]:
        changed = [
            run.model_copy(
                update={
                    "recipe": recipe_for(run.metadata[RECIPE], choice)
                    .replace(precision=run.recipe["precision"])
                    .model_dump(mode="json")
                }
            )
            for run in runs
        ]
        hours = {}
        for gpu in gpus:
            costs = estimate(changed, sizes, Hardware(gpu, 1, hardware.mfu, None, hardware.tf32))
            total = sum(cost.gpu_hours for cost in costs)
            hours[GPUS[gpu].name] = (total, total / 8)
            flops = sum(cost.flops for cost in costs)
        published_flops = published_flops or flops
        choices.append(Cheaper(choice, source, flops / published_flops, hours))
    return choices


def _memory(
    model: ModelRef, recipe: Recipe, sizes: tuple[int, int, int], hardware: Hardware
) -> dict[str, int | None]:
    """GPU memory of a road map's network; ``sizes`` are image size, parameters, images."""
    size, params, images = sizes
    if model.builder != ROADMAP_BUILDER:
        return {"image_bytes": None, "memory": None, "images_that_fit": None}
    spec = NetSpec.from_dict(model.args)
    per_image = saved_bytes(spec, size, half=recipe.precision != "float32")
    state = state_bytes(params, recipe.optimizer, averaged=bool(recipe.ema))
    free = USABLE * 1e9 * GPUS[hardware.gpu].memory - state
    fit = max(int(free // per_image), 0)
    return {"image_bytes": per_image, "memory": state + images * per_image, "images_that_fit": fit}


def _cores(uri: str, recipe: Recipe, rate: float) -> float | None:
    """The cores needed to read ``rate`` images/s from files: independent of the image size, since
    decoding takes most of the time."""
    scheme = uri.partition(":")[0]
    if scheme not in ("folder", "packed", "timm"):
        return None
    plain, augmented = READ_RATES["packed" if scheme == "packed" else "files"]
    return rate / (augmented if recipe.rand_augment else plain)


def _norm(model: ModelRef) -> str:
    """The norm of a road map's network; empty for others, where it is not known."""
    return NetSpec.from_dict(model.args).norm if model.builder == ROADMAP_BUILDER else ""


@functools.cache
def _count_built(builder: str, args: str, image_size: int, classes: int) -> Cost:
    from convnext_study import cost

    net = get_builder(builder)(
        json.loads(args), num_classes=classes, drop_path=0.0, init="trunc_normal"
    )
    return cost.count(net, (3, image_size, image_size))


def _disk(params: int, dataset: DatasetSize, recipe: Recipe) -> int:
    """Bytes that a run leaves: two checkpoints, its log, and in hex a bit per test image."""
    copies = 1 + {"adamw": 2, "sgd": 1}[recipe.optimizer] + bool(recipe.ema)
    return 2 * 4 * copies * params + LOG_LINE * recipe.epochs + dataset.val // 4
