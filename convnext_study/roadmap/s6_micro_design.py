"""Section 2.6, micro design: activations, norms and downsampling."""

from convnext_study.roadmap.roadmap import Step

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
        "Of the block's three activations only the one between its two 1x1 convolutions stays, "
        "as in a Transformer's MLP."
    ),
    overrides={"activations": 1},
)

FEWER_NORMS = Step(
    name="fewer_norms",
    label="fewer norms",
    section="2.6",
    rationale="Of the block's three norms only the one before its 1x1 convolutions stays.",
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
