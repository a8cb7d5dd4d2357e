"""The resources and settings of the machine that a run may use."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from convnext_study.recipes import images_at_a_time

if TYPE_CHECKING:
    import torch

    from convnext_study.recipes import Recipe

# With fewer images at a time than this, BatchNorm's statistics are noisy.
SMALL_BATCH = 32


def uses_tf32(recipe: Recipe, requested: bool | None) -> bool:
    """Whether GPUs round the factors of float32 products: as requested, else for recipes for
    ImageNet, since the paper's version of torch did."""
    return images_at_a_time(recipe) is not None if requested is None else requested


def batch_norm_warning(images: int, published: int | None) -> str:
    """A warning about the number of images that BatchNorm sees at a time; empty if it is fine.

    ``published`` is the number in the paper's training, if known.
    """
    if published is not None and images != published:
        side = "under" if images < published else "over"
        return (
            f"BatchNorm sees {images} images at a time, {side} the {published} of the published "
            "training: these rows are not comparable with the paper's; use --micro-batch-size"
        )
    if images < SMALL_BATCH:
        return (
            f"BatchNorm sees {images} images at a time, under {SMALL_BATCH}, which handicaps its "
            "networks against those with LayerNorm; use a larger micro-batch or sync_bn"
        )
    return ""


@dataclass(frozen=True)
class Runtime:
    """What a run may use of the machine. None of it changes a result beyond rounding.

    Args:
        device: where the network is trained.
        threads: of this process.
        workers: processes that read images for this process.
        download: whether to download a missing data set.
        channels_last: use the channels-last memory format, which is faster for convolutions and
            LayerNorm: 1.3 to 2 times the training speed on the nano road.
        rank: this process's index among those that share the run.
        world_size: the number of those processes.
        micro_batch_size: the most images per forward pass of a process; larger shares of the
            global batch are accumulated. None: as many as in the published training, if the recipe
            is one; else all.
        compile: use ``torch.compile``.
        grad_checkpointing: run blocks again in the backward pass, to save memory.
        corrupt_images: ``stop`` at an unreadable image, or ``skip`` and count it.
        checkpoint_seconds: save within an epoch at least this often.
        deterministic: use only algorithms that give the same bits every time, on GPUs too.
        tf32: let GPUs round the factors of float32 products to 10 bits, which is faster. None:
            see `uses_tf32`.
        cudnn_benchmark: let cuDNN try its algorithms for each shape and use the fastest.
    """

    device: str = "cpu"
    threads: int = 1
    workers: int = 0
    download: bool = False
    channels_last: bool = True
    rank: int = 0
    world_size: int = 1
    micro_batch_size: int | None = None
    compile: bool = False
    grad_checkpointing: bool = False
    corrupt_images: Literal["stop", "skip"] = "stop"
    checkpoint_seconds: float = 600.0
    deterministic: bool = False
    tf32: bool | None = None
    cudnn_benchmark: bool = False

    def settings(self) -> dict[str, Any]:
        """What a start's event records of it: everything but rank and world size."""
        fields = dataclasses.asdict(self)
        del fields["rank"], fields["world_size"]
        return fields

    def apply(self) -> None:
        """Set torch's global switches; they stay set after the run."""
        import torch

        torch.set_num_threads(self.threads)
        if self.deterministic:  # read when the device is first used
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if torch.are_deterministic_algorithms_enabled() != self.deterministic:  # takes 1.6 s
            torch.use_deterministic_algorithms(self.deterministic)
        torch.backends.cudnn.benchmark = self.cudnn_benchmark and not self.deterministic
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bool(self.tf32)

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of images and weights: channels last, or torch's default."""
        import torch

        return torch.channels_last if self.channels_last else torch.contiguous_format
