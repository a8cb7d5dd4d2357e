"""Section 2.2, macro design: how deep each stage is, and how the image is first cut up."""

from convnext_study.roadmap.roadmap import Step

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
        "ResNet's 7x7 convolution with its pooling becomes one convolution over patches that do "
        "not overlap, as in a vision Transformer."
    ),
    overrides={"stem": "patchify"},
)
