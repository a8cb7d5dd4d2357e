"""The anytime networks as models in timm: ``timm.create_model("anytime_hrnet_w48")``.

Keywords set fields of the spec: ``create_model("anytime_hrnet_w48", heads="original",
masks="none")`` is EE, ``exits=(4,)`` the plain network, ``backbone="regnety_002"`` any other.

They are no classifiers and hence not in `timm.list_models`: `MODELS` has their names. ``forward``
returns the logits of each exit; ``global_pool``, ``features_only`` and `forward_head` are missing.
"""

from __future__ import annotations

from typing import Any

from convnext_study.models.registry import VARIANTS, ModelEntry
from convnext_study.roadmap import ROADMAPS
from convnext_study.studies.anytime.spec import BATCHNORM_MOMENTUM, HRNETS, AnytimeSpec, published

DIGITS_CLASSES, CITYSCAPES_CLASSES = 11, 19
LOGITS_STRIDE = 4
_OTHERS = ("convnext_atto", "convnext_nano", "convnext_tiny", "resnet18", "resnet50")


def _entry(backbone: str, classes: int, size: tuple[int, int], first_conv: str) -> ModelEntry:
    spec = AnytimeSpec(backbone=backbone, masks="confidence", head_momentum=BATCHNORM_MOMENTUM)
    cfg: dict[str, Any] = {
        "num_classes": classes,
        "input_size": (3, *size),
        "pool_size": (size[0] // LOGITS_STRIDE, size[1] // LOGITS_STRIDE),
        "crop_pct": 1.0,
        "first_conv": f"backbone.{first_conv}",
        "classifier": tuple(
            f"heads.{exit}.{'3' if exit == spec.exits[-1] else f'convs.{2 * (4 - exit) - 1}'}"
            for exit in spec.exits
        ),
        "paper_ids": "arXiv:2104.00749",
    }
    return ModelEntry(
        network="convnext_study.studies.anytime.network:AnytimeNet",
        spec=spec,
        description=f"{backbone} with exits, redesigned heads and confidence adaptivity (ADP-C)",
        cfg=cfg,
        listed=False,
    )


def _models() -> dict[str, ModelEntry]:
    rows, columns = published()["recipe"]["crop"]
    entries = [
        _entry(str(backbone["timm"]), CITYSCAPES_CLASSES, (rows, columns), "conv1")
        for backbone in published()["backbone"].values()
    ]
    entries += [_entry(name, DIGITS_CLASSES, (64, 64), "conv1") for name in HRNETS]
    for name in _OTHERS:
        first = "net.conv1" if name.startswith("resnet") else "net.stem_0"
        entries.append(_entry(name, CITYSCAPES_CLASSES, (224, 224), first))
    for name, variant in VARIANTS.items():
        side = ROADMAPS[variant.regime].image_size
        entries.append(_entry(name, CITYSCAPES_CLASSES, (side, side), "net.stem_conv"))
    return {f"anytime_{entry.spec.backbone}": entry for entry in entries}


MODELS = _models()
