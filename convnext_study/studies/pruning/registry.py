"""The published networks of the pruning study as models in timm.

``timm.create_model("pruning_resnet56_a")`` builds one, and keywords may set fields of its spec:
``create_model("pruning_vgg16", widths=(8, "M", 16))``.
"""

from __future__ import annotations

from convnext_study.models.registry import ModelEntry
from convnext_study.studies.pruning.published import PublishedNetwork, networks
from convnext_study.studies.pruning.specs import BottleneckSpec, ImageNetBasicSpec, count_stages

PAPER = "arXiv:1810.05270"


def _entry(network: PublishedNetwork) -> ModelEntry:
    is_timms = isinstance(network.spec, ImageNetBasicSpec | BottleneckSpec)
    room = "convnext_study.studies.pruning.networks"
    stages = {"out_indices": tuple(range(count_stages(network.spec))), "flatten_sequential": True}
    return ModelEntry(
        network=f"{room}.timm_resnets:timm_resnet" if is_timms else f"{room}.network:PruningNet",
        spec=network.spec,
        description=f"{network.label}, of the pruning study",
        cfg={
            "num_classes": network.classes,
            "input_size": (3, network.input, network.input),
            "pool_size": None,  # any
            "crop_pct": 0.875 if network.input == 224 else 1.0,
            "first_conv": "conv1" if is_timms else "stem.conv",
            "classifier": "fc" if is_timms else "head.fc",
            "paper_ids": PAPER,
        },
        features={} if is_timms else stages,
    )


MODELS: dict[str, ModelEntry] = {one.model: _entry(one) for one in networks().values()}
