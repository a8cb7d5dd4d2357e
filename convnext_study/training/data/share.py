"""Which part of the optimizer's batch this process takes, and in how many pieces.

The pieces of all processes together are the undivided batch, whatever the split.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cat

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


def micro_batches(batch: int, share: Share) -> int:
    """Pieces in which one process takes its part of a global batch: the fewest equal ones.

    Raises BadRequest where the batch does not divide among the processes.
    """
    mine, rest = divmod(batch, share.world)
    if rest:
        raise BadRequest(
            f"global_batch {batch} does not divide among world {share.world} processes (micro "
            f"{share.micro}); nearest that do: {_multiples_near(batch, share.world)}"
        )
    most = share.micro or mine
    return next(
        pieces for pieces in range(1, mine + 1) if mine % pieces == 0 and mine <= pieces * most
    )


def pieces_of(indices: Tensor, batch: int, share: Share) -> list[Tensor]:
    """This process's pieces of one global batch, given as the (n,) places of its images.

    A piece holds as many images from the front of the batch as from its back, mirrored: timm's
    Mixup and CutMix mix an image with the one mirrored in the batch, so that with one draw a
    global batch the pairs are the same whatever the split.
    """
    mine = micro_batches(batch, share)
    pieces, count = mine * share.world, len(indices)
    if count % pieces:  # a data set smaller than the batch
        raise BadRequest(
            f"global_batch {batch}: the data has only {count} training images, which do not "
            f"divide into {pieces} pieces (world {share.world}, micro {share.micro}); make it "
            f"smaller"
        )
    size = count // pieces
    front, back = size - size // 2, size // 2
    return [
        cat(
            [
                indices[piece * front : (piece + 1) * front],
                indices[count - (piece + 1) * back : count - piece * back],
            ]
        )
        for piece in range(share.rank * mine, (share.rank + 1) * mine)
    ]


def part_of(count: int, share: Share) -> range:
    """The validation images of this process: parts of ``count`` in the order of the ranks."""
    return range(count * share.rank // share.world, count * (share.rank + 1) // share.world)


def _multiples_near(batch: int, world: int) -> str:
    below, above = batch // world * world, (batch // world + 1) * world
    return f"{below} and {above}" if below else str(above)
