"""Section 2.4, inverted bottleneck: wide inside, narrow outside, like a Transformer's MLP."""

from convnext_study.roadmap.roadmap import Step

INVERT_DIMENSIONS = Step(
    name="invert_dimensions",
    label="inverting dimensions",
    section="2.4",
    rationale=(
        "The block was four times as wide outside as inside; now it is four times as wide inside. "
        "The depthwise convolution costs more, but the strided shortcuts shrink, and the whole "
        "network costs less."
    ),
    overrides={"inverted": True},
)
