"""What a study will cost: arithmetic done again by hand, and warnings that are earned."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.dense import make_pairs
from support.mpii import make_split
from support.runs import make_tiny_run

from convnext_study.errors import UserError
from convnext_study.experiments.caveats import caveats
from convnext_study.experiments.data_identity import DatasetSize, dataset_size
from convnext_study.experiments.estimate import Hardware, estimate
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.roadmap import get_roadmap
from convnext_study.training.loop import train

T = get_roadmap("t")
IMAGENET = DatasetSize("folder:imagenet", 1_281_167, 50_000, 1000, 224)
SIZES = {IMAGENET.uri: IMAGENET}
RESNET50_MACS = 4_089_184_256  # multiply-accumulates at 224x224, fvcore's count


def runs_of(*names: str, seeds: int = 3, **changes: Any) -> list[Any]:
    variants = [T.variant(name) for name in names] if names else T.variants()
    return roadmap_runs(
        T, variants, data="folder:imagenet", seeds=range(seeds), changes=changes or None
    )


def warned(runs: list[Any], hardware: Hardware, dataset: DatasetSize = IMAGENET) -> list[str]:
    sizes = {IMAGENET.uri: dataset}
    return caveats(runs, estimate(runs, sizes, hardware), sizes)


def test_the_arithmetic_of_resnet50() -> None:
    hardware = Hardware("a100", gpus=8, mfu=0.2)
    (plan,) = estimate(runs_of("resnet50", seeds=1), SIZES, hardware)
    images = 1_281_167 // 4096 * 4096 * 300
    assert plan.images == images
    assert plan.macs == RESNET50_MACS
    assert plan.train_flops == pytest.approx(3 * 2 * RESNET50_MACS * images)
    assert plan.eval_flops == pytest.approx(2 * RESNET50_MACS * 50_000 * 300)
    seconds = (plan.train_flops + plan.eval_flops) / (156e12 * 0.2)
    assert plan.gpu_hours == pytest.approx(seconds / 3600)
    assert plan.wall_hours == pytest.approx(plan.gpu_hours / 8)


def test_peaks_follow_the_precision() -> None:
    hardware = Hardware("a100")
    (half,) = estimate(runs_of("gelu", seeds=1, precision="bf16"), SIZES, hardware)
    (full,) = estimate(runs_of("gelu", seeds=1), SIZES, hardware)
    assert (half.peak_tflops, full.peak_tflops) == (312.0, 156.0)
    assert full.gpu_hours == pytest.approx(2 * half.gpu_hours)
    with pytest.raises(UserError, match=r"did you mean a100\?"):
        Hardware("a10")


@pytest.mark.parametrize(
    ("devices", "micro", "split"),
    [(1, None, (4096, 4096, 1)), (8, None, (512, 512, 1)), (8, 100, (512, 64, 8))],
)
def test_the_batch_is_split(devices: int, micro: int | None, split: tuple[int, int, int]) -> None:
    hardware = Hardware("a100", gpus=devices, micro_batch_size=micro)
    (plan,) = estimate(runs_of("gelu", seeds=1), SIZES, hardware)
    assert (plan.batch_per_device, plan.micro_batch_size, plan.accum_steps) == split


def test_the_papers_own_plan_is_not_warned_about() -> None:
    assert warned(runs_of(), Hardware("a100", gpus=8)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 100}, "recipe modern[epochs=100]: 100 epochs, published 300"),
        ({"global_batch_size": 1024}, "global batch 1024, published 4096"),
        ({"image_size": 160}, "images of 160, published 224"),
        ({"ema": 0.9999, "eval_weights": "ema"}, "EMA is on, off on the paper's road (its result"),
        ({"ema": 0.9999}, "EMA is on, off on the paper's road (not its result"),
        ({"mixup": 0.2, "lr": 0.001}, "differs from modern also in lr, mixup"),
    ],
)
def test_another_recipe_is_told(changes: dict[str, Any], says: str) -> None:
    (warning,) = warned(runs_of("gelu", **changes), Hardware("a100"))
    assert says in warning


def test_a_small_batch_for_batch_norm_is_told() -> None:
    small = Hardware("a100", gpus=8, micro_batch_size=16)
    (warning,) = warned(runs_of("gelu", "layer_norm"), small)
    assert warning.startswith("BatchNorm sees 16 images at a time, under 32, in 1 rows (gelu")
    assert warned(runs_of("layer_norm"), small) == []
    assert warned(runs_of("gelu", sync_bn=True), small) == []


def test_other_data_and_few_seeds_are_told() -> None:
    (data,) = warned(runs_of("gelu"), Hardware("a100"), DatasetSize("folder:x", 5000, 50, 10, 224))
    assert "are not ImageNet-1K's" in data
    (seeds,) = warned(runs_of("gelu", seeds=1), Hardware("a100"))
    assert seeds.startswith("1 seed(s)")


def test_disk_is_what_a_run_leaves(tmp_path: Path) -> None:
    run = make_tiny_run(epochs=2, ema=0.9)
    sizes = dataset_size("digits")
    (plan,) = estimate([run], {"digits": sizes}, Hardware("a100"))
    train(run, tmp_path)
    left = sum(path.stat().st_size for path in tmp_path.iterdir())
    # Names and headers in the two checkpoints, some 100 kB, are not in the estimate.
    assert plan.disk <= left <= plan.disk * 1.1 + 200_000


def test_files_are_counted(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{number}.png")
    sizes = dataset_size(f"folder:{tmp_path}")
    assert (sizes.train, sizes.val, sizes.classes) == (6, 4, 2)
    assert dataset_size("cifar10:gone").train == 50_000


def test_images_with_maps_and_people_are_counted(tmp_path: Path) -> None:
    for uri, counted in (
        ("digit-canvas:32,12,5", (12, 5, 11, 32)),
        (f"pairs:{make_pairs(tmp_path / 'pairs', 3)}", (3, 3, 3, 64)),  # padded
        (f"mpii:{make_split(tmp_path / 'mpii')}", (8, 4, 16, 256)),
    ):
        assert dataset_size(uri) == DatasetSize(uri, *counted)
