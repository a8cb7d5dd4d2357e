"""Section 2.1, training techniques: the same network, trained as Transformers are."""

from convnext_study.roadmap.roadmap import Step

ENHANCED_RECIPE = Step(
    name="resnet50",
    label="ResNet-50 (enhanced recipe)",
    section="2.1",
    rationale=(
        "The network stays as it is. The recipe becomes that of vision Transformers: in the paper "
        "AdamW, 300 epochs, Mixup, CutMix, RandAugment, Random Erasing, stochastic depth, label "
        "smoothing. "
        "Every later row is trained this way, so that only the network differs."
    ),
    recipe="modern",
)
