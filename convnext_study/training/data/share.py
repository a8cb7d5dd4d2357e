"""Which part of the optimizer's batch this process takes, and in how many pieces.

The pieces of all processes together are the undivided batch, whatever the split.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from torch import Tensor, arange, cat, split

from convnext_study.errors import BadRequest


@dataclass(frozen=True)
class Share:
    """Process ``rank`` of ``world``, which takes at most ``micro`` images at a time."""

    rank: int = 0
    world: int = 1
    micro: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise BadRequest(f"rank {self.rank}: there are {self.world} processes, from 0")
        if self.micro is not None and self.micro < 1:
            raise BadRequest(f"micro batch {self.micro}: must be at least 1 image")


WHOLE = Share()


def micro_batches(batch: int, share: Share, *, even: bool = False) -> int:
    """Pieces in which one process takes its part of a global batch: the fewest equal ones.

    Args:
        batch: images of one optimizer step.
        share: this process.
        even: of an even number of images, for Mixup and CutMix mix them in pairs.

    Raises BadRequest where the batch does not divide so.
    """
    mine, rest = divmod(batch, share.world)
    what = f"global_batch {batch}, {share.world} processes, micro batch {share.micro}"
    if rest:
        raise BadRequest(
            f"global_batch {batch} does not divide among world {share.world} processes (micro "
            f"{share.micro}); nearest that do: {_multiples_near(batch, share.world)}"
        )
    if even and mine % 2:
        raise BadRequest(
            f"{what}: Mixup and CutMix mix images in pairs, and each process has {mine}; "
            f"nearest global_batch with pairs for all: {_multiples_near(batch, 2 * share.world)}"
        )
    most = share.micro or mine
    if even and most < 2:
        raise BadRequest(f"{what}: Mixup and CutMix mix images in pairs; use a micro batch of 2")
    return next(
        pieces
        for pieces in range(1, mine + 1)
        if mine % pieces == 0 and mine <= pieces * most and not (even and mine // pieces % 2)
    )


def pieces_of(indices: Tensor, batch: int, share: Share, group: int | None = None) -> list[Tensor]:
    """This process's pieces of one global batch, given as the (n,) places of its images.

    timm's Mixup and CutMix mix an image with the one mirrored in the batch. A piece holds as many
    images from the front of the batch as from its back, mirrored; where they are mixed in groups
    of ``group`` neighbours, it holds whole pairs of each group in the same way, one group after
    the other. So the pairs are the same whatever the split.
    """
    mine = micro_batches(batch, share, even=group is not None)
    pieces, count = mine * share.world, len(indices)
    size, rest = divmod(count, pieces)
    if rest or (group is not None and size % 2):  # a data set smaller than the batch
        pairs = "" if group is None else " of pairs, which Mixup and CutMix mix,"
        raise BadRequest(
            f"global_batch {batch}: the data has only {count} training images, which do not "
            f"divide into {pieces} pieces{pairs} (world {share.world}, micro {share.micro}); make "
            "it smaller"
        )
    own = range(share.rank * mine, (share.rank + 1) * mine)
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
    """Places of some pairs of ``count`` images: of each group its front, then its back mirrored.

    Pairs are counted through the groups, each from its outermost one inwards.
    """
    places: list[Tensor] = []
    before = 0
    for members in split(arange(count), group):
        half = len(members) // 2
        begin, end = max(first - before, 0), min(first + pairs - before, half)
        if begin < end:
            back = len(members)
            places += [members[begin:end], members[back - end : back - begin]]
        before += half
    return cat(places)


def part_of(count: int, share: Share) -> range:
    """The validation images of this process: parts of ``count`` in the order of the ranks."""
    return range(count * share.rank // share.world, count * (share.rank + 1) // share.world)


def most_batches(count: int, batch: int, share: Share) -> int:
    """Batches of the largest process's part of ``count`` validation images."""
    return max(
        ceil(len(part_of(count, Share(rank, share.world))) / batch) for rank in range(share.world)
    )


def _multiples_near(batch: int, world: int) -> str:
    below, above = batch // world * world, (batch // world + 1) * world
    return f"{below} and {above}" if below else str(above)
