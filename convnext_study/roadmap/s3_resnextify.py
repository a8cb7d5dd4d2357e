"""Section 2.3, ResNeXt-ify: more groups, expand width."""

from convnext_study.roadmap.roadmap import Step

DEPTHWISE_CONV = Step(
    name="depthwise_conv",
    label="depthwise conv",
    section="2.3",
    rationale=(
        "The 3x3 convolution gets one group per channel. It then mixes in space only and the 1x1 "
        "convolutions across channels, as self-attention and MLP do. Cheaper, and less accurate."
    ),
    overrides={"depthwise": True},
)

INCREASE_WIDTH = Step(
    name="increase_width",
    label="increase width",
    section="2.3",
    rationale=(
        "The saved computation is spent on channels: in the paper, as many as the Swin "
        "Transformer of that size has."
    ),
    overrides={"width": 96},
)
