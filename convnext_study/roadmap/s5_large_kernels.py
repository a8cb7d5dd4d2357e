"""Section 2.5, large kernel sizes: first the depthwise convolution moves up, then it grows."""

from convnext_study.roadmap.roadmap import Step

MOVE_UP_DEPTHWISE = Step(
    name="move_up_depthwise",
    label="move up depthwise conv",
    section="2.5",
    rationale=(
        "The depthwise convolution comes first in the block, on its few input channels, as "
        "self-attention comes before the MLP. Accuracy drops for now; a large kernel becomes cheap."
    ),
    overrides={"spatial_first": True},
)


def _kernel(size: int, *, adopted: bool) -> Step:
    kept = "Adopted: larger ones gained nothing." if adopted else "Tried and not adopted."
    return Step(
        name=f"kernel_{size}",
        label=f"kernel size → {size}",
        section="2.5",
        rationale=f"The depthwise kernel grows from 3x3 to {size}x{size}. {kept}",
        overrides={"kernel": size},
        adopted=adopted,
    )


KERNEL_5 = _kernel(5, adopted=False)
KERNEL_7 = _kernel(7, adopted=True)
KERNEL_9 = _kernel(9, adopted=False)
KERNEL_11 = _kernel(11, adopted=False)
