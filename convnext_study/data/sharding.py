"""Which part of the optimizer's batch this process takes, and in how many pieces.

The pieces of all processes together are always the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from torch import Tensor, arange, cat, split

from convnext_study.errors import UserError


@dataclass(frozen=True)
class BatchSharding:
    """Process ``rank`` of ``world_size``, with at most ``micro_batch_size`` images at a time."""

    rank: int = 0
    world_size: int = 1
    micro_batch_size: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UserError(
                f"rank {self.rank}: there are {self.world_size} processes, numbered from 0"
            )
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise UserError(f"micro batch {self.micro_batch_size}: must be at least 1 image")

    def __str__(self) -> str:
        """For error messages: the number of processes and the largest micro batch."""
        processes = "one process" if self.world_size == 1 else f"{self.world_size} processes"
        limit = self.micro_batch_size
        return processes if limit is None else f"{processes}, at most {limit} image(s) at a time"


WHOLE = BatchSharding()


def accum_steps(batch: int, sharding: BatchSharding, *, even: bool = False) -> int:
    """The number of pieces of a process's part of a global batch: the fewest equal ones that fit.

    Args:
        batch: images of one optimizer step.
        sharding: this process.
        even: each piece has an even number of images, since Mixup and CutMix mix them in pairs.

    Raises UserError if the batch does not divide so.
    """
    mine, remainder = divmod(batch, sharding.world_size)
    what = f"global_batch_size {batch}, {sharding}"
    if remainder:
        raise UserError(
            f"global_batch_size {batch} cannot be divided among {sharding.world_size} processes; "
            f"the nearest that can: {_multiples_near(batch, sharding.world_size)}"
        )
    if even and mine % 2:
        raise UserError(
            f"{what}: Mixup and CutMix mix images in pairs, but each process has {mine}; nearest "
            "global_batch_size with whole pairs: "
            f"{_multiples_near(batch, 2 * sharding.world_size)}"
        )
    limit = sharding.micro_batch_size or mine
    if even and limit < 2:
        raise UserError(f"{what}: Mixup and CutMix mix images in pairs; use a micro batch of 2")
    return next(
        pieces
        for pieces in range(1, mine + 1)
        if mine % pieces == 0 and mine <= pieces * limit and not (even and mine // pieces % 2)
    )


def split_batch(
    indices: Tensor, batch: int, sharding: BatchSharding, group: int | None = None
) -> list[Tensor]:
    """This process's pieces of one global batch of the images ``indices``, (n,).

    timm's Mixup and CutMix mix an image with the one at the mirrored position in the batch. A
    piece has as many images from the front of the batch as from its back, mirrored; if images are
    mixed in groups of ``group`` neighbours, it has whole pairs of each group, one group after the
    other. So the pairs do not depend on the split.
    """
    mine = accum_steps(batch, sharding, even=group is not None)
    pieces, count = mine * sharding.world_size, len(indices)
    size, remainder = divmod(count, pieces)
    if remainder or (group is not None and size % 2):  # a data set smaller than the batch
        pairs = "" if group is None else " of pairs, which Mixup and CutMix mix,"
        raise UserError(
            f"global_batch_size {batch}: the data has only {count} training images, which cannot "
            f"be divided into {pieces} equal pieces{pairs} for {sharding}; use a smaller batch"
        )
    own = range(sharding.rank * mine, (sharding.rank + 1) * mine)
    if group is not None:
        return [indices[_pairs(count, group, piece * size // 2, size // 2)] for piece in own]
    front, back = size - size // 2, size // 2
    return [
        cat(
            [
                indices[piece * front : (piece + 1) * front],
                indices[count - (piece + 1) * back : count - piece * back],
            ]
        )
        for piece in own
    ]


def _pairs(count: int, group: int, first: int, pairs: int) -> Tensor:
    """Positions of ``pairs`` pairs of ``count`` images: per group its front, then its back.

    Pairs are numbered over all groups, in each group from the outermost one inwards.
    """
    positions: list[Tensor] = []
    before = 0
    for members in split(arange(count), group):
        half = len(members) // 2
        start, end = max(first - before, 0), min(first + pairs - before, half)
        if start < end:
            back = len(members)
            positions += [members[start:end], members[back - end : back - start]]
        before += half
    return cat(positions)


def val_indices(count: int, sharding: BatchSharding) -> range:
    """The validation images of this process: contiguous parts of ``count``, ordered by rank."""
    return range(
        count * sharding.rank // sharding.world_size,
        count * (sharding.rank + 1) // sharding.world_size,
    )


def most_batches(count: int, batch: int, sharding: BatchSharding) -> int:
    """The largest number of batches that one process has of ``count`` validation images."""
    return max(
        ceil(len(val_indices(count, BatchSharding(rank, sharding.world_size))) / batch)
        for rank in range(sharding.world_size)
    )


def _multiples_near(batch: int, world_size: int) -> str:
    below, above = batch // world_size * world_size, (batch // world_size + 1) * world_size
    return f"{below} and {above}" if below else str(above)
