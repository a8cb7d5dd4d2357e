"""The steps of section 2 of "A ConvNet for the 2020s", in the paper's order."""

from convnext_study.roadmap.roadmap import Step

# 2.1, training techniques: the same network, trained like Transformers.

ENHANCED_RECIPE = Step(
    name="resnet50",
    label="ResNet-50 (enhanced recipe)",
    section="2.1",
    rationale=(
        "The network stays the same. The recipe becomes that of vision Transformers: in the "
        "paper AdamW, 300 epochs, Mixup, CutMix, RandAugment, Random Erasing, stochastic depth, "
        "label smoothing. Every later row is trained this way, so that only the network differs."
    ),
    recipe="modern",
)

# 2.2, macro design: the depth of each stage, and the stem.

STAGE_RATIO = Step(
    name="stage_ratio",
    label="stage ratio",
    section="2.2",
    rationale=(
        "Swin Transformer spends most of its blocks in stage 3: 1:1:3:1 over the four stages, "
        "1:1:9:1 in its larger versions. The depths of the ResNet follow."
    ),
    overrides={"depths": (3, 3, 9, 3)},
)

PATCHIFY_STEM = Step(
    name="patchify_stem",
    label="“patchify” stem",
    section="2.2",
    rationale=(
        "ResNet's 7x7 convolution with its pooling becomes one convolution over non-overlapping "
        "patches, as in a vision Transformer."
    ),
    overrides={"stem": "patchify"},
)

# 2.3, ResNeXt-ify: more groups, expand width.

DEPTHWISE_CONV = Step(
    name="depthwise_conv",
    label="depthwise conv",
    section="2.3",
    rationale=(
        "The 3x3 convolution gets one group per channel. It then mixes only in space and the 1x1 "
        "convolutions only across channels, like self-attention and MLP. Cheaper, but less "
        "accurate."
    ),
    overrides={"depthwise": True},
)

INCREASE_WIDTH = Step(
    name="increase_width",
    label="increase width",
    section="2.3",
    rationale=(
        "The saved computation is spent on channels: in the paper, as many as in the Swin "
        "Transformer of that size."
    ),
    overrides={"width": 96},
)

# 2.4, inverted bottleneck: wide inside, narrow outside, like a Transformer's MLP.

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

# 2.5, large kernel sizes: first the depthwise convolution moves up, then it grows.

MOVE_UP_DEPTHWISE = Step(
    name="move_up_depthwise",
    label="move up depthwise conv",
    section="2.5",
    rationale=(
        "The depthwise convolution comes first in the block, on its few input channels, as "
        "self-attention comes before the MLP. Accuracy drops for now, but a large kernel becomes "
        "cheap."
    ),
    overrides={"spatial_first": True},
)


def _kernel(size: int, *, adopted: bool) -> Step:
    verdict = "Adopted: larger ones gained nothing." if adopted else "Tried and not adopted."
    return Step(
        name=f"kernel_{size}",
        label=f"kernel size → {size}",
        section="2.5",
        rationale=f"The depthwise kernel grows from 3x3 to {size}x{size}. {verdict}",
        overrides={"kernel": size},
        adopted=adopted,
    )


KERNELS = tuple(_kernel(size, adopted=size == 7) for size in (5, 7, 9, 11))

# 2.6, micro design: activations, norms and downsampling.

GELU = Step(
    name="gelu",
    label="ReLU → GELU",
    section="2.6",
    rationale="Every ReLU becomes a GELU, as in Transformers. No change in accuracy in the paper.",
    overrides={"activation": "gelu"},
)

FEWER_ACTIVATIONS = Step(
    name="fewer_activations",
    label="fewer activations",
    section="2.6",
    rationale=(
        "Of the block's three activations only the one between its two 1x1 convolutions is kept, "
        "as in a Transformer's MLP."
    ),
    overrides={"activations": 1},
)

FEWER_NORMS = Step(
    name="fewer_norms",
    label="fewer norms",
    section="2.6",
    rationale="Of the block's three norms only the one before its 1x1 convolutions is kept.",
    overrides={"norms": 1},
)

LAYER_NORM = Step(
    name="layer_norm",
    label="BN → LN",
    section="2.6",
    rationale=(
        "BatchNorm becomes LayerNorm over the channels of each position, so that an image is no "
        "longer normalised by its neighbours in the batch."
    ),
    overrides={"norm": "layer"},
)

SEPARATE_DOWNSAMPLING = Step(
    name="separate_downsampling",
    label="separate d.s. conv (ConvNeXt-T)",
    section="2.6",
    rationale=(
        "The stride moves out of each stage's first block into a 2x2 stride-2 convolution between "
        "the stages. Norms before it, after the stem and after global pooling keep training stable."
    ),
    overrides={"downsampling": "separate"},
)
