"""What a run may use of the machine that it runs on."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from convnext_study.recipes import images_at_a_time

if TYPE_CHECKING:
    import torch

    from convnext_study.recipes import Recipe

# A BatchNorm that sees fewer images than this normalises with noisy statistics.
SMALL_BATCH = 32


def uses_tf32(recipe: Recipe, requested: bool | None) -> bool:
    """Whether GPUs round the factors of float32 products: as requested, or in recipes for
    ImageNet, since the paper's torch did."""
    return images_at_a_time(recipe) is not None if requested is None else requested


def batch_norm_warning(seen: int, published: int | None) -> str:
    """What is wrong with the images that BatchNorm sees at a time; empty where nothing is.

    ``published`` is how many it saw in the paper's trainings, where that is known.
    """
    if published is not None and seen != published:
        side = "under" if seen < published else "over"
        return (
            f"BatchNorm sees {seen} images at a time, {side} the {published} of the published "
            "training: its rows do not compare with the paper's; use --micro-batch-size"
        )
    if seen < SMALL_BATCH:
        return (
            f"BatchNorm sees {seen} images at a time, under {SMALL_BATCH}: networks with it are "
            "handicapped against those with LayerNorm; use a larger micro-batch or sync_bn"
        )
    return ""


@dataclass(frozen=True)
class Runtime:
    """What a run may use of the machine. None of it changes a result beyond rounding.

    Args:
        device: where the network is.
        threads: of this process.
        workers: processes that read images for this process.
        download: fetch a data set that is missing.
        channels_last: keep the channels of a pixel together in memory, which convolutions and
            LayerNorm like better: 1.3 to 2 times the training speed on the nano road.
        rank: which process this is, of those that share the run.
        world_size: how many those are.
        micro_batch_size: the most images that one process takes at a time; larger shares of the
            global batch are accumulated. None: as many as the published training, where the recipe
            is one; else all.
        compile: use ``torch.compile``.
        grad_checkpointing: run blocks again in the backward pass, to save memory.
        corrupt_images: ``stop`` at an image that cannot be read, or ``skip`` and count it.
        checkpoint_seconds: save within an epoch at least this often.
        deterministic: only algorithms that give the same bits every time, on GPUs too.
        tf32: let GPUs round the factors of float32 products to 10 bits, which is faster. None: as
            `uses_tf32` has it.
        cudnn_benchmark: let cuDNN try its algorithms for each shape and take the fastest.
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
        """What a start's event tells of it: all but the process it is."""
        told = dataclasses.asdict(self)
        del told["rank"], told["world_size"]
        return told

    def apply(self) -> None:
        """Set torch's switches for this whole process; they outlast a run."""
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
        """The memory format of images and weights, channels last or torch's own."""
        import torch

        return torch.channels_last if self.channels_last else torch.contiguous_format
