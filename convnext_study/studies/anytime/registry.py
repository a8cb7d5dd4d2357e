"""The anytime networks as models in timm: ``timm.create_model("anytime_hrnet_w48")``.

Keywords set fields of the spec: ``create_model("anytime_hrnet_w48", heads="original",
masks="none")`` is EE, ``exits=(4,)`` the plain network, ``backbone="regnety_002"`` any other.

They are not in `timm.list_models`, as no classifiers are: `MODELS` has their names.

What timm's users expect of a model holds as far as it makes sense for dense predictions at several
exits: `create_model`, ``num_classes``, ``in_chans``, ``checkpoint_path``, `reset_classifier`,
`get_classifier`. ``forward`` gives a list, the logits of each exit. There is nothing to pool
(``global_pool``), no ``features_only`` and no `forward_head`.
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
        "first_conv": first_conv,
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
    crop = tuple(published()["recipe"]["crop"])
    models = {
        f"anytime_{one['timm']}": _entry(
            one["timm"], CITYSCAPES_CLASSES, (crop[0], crop[1]), "backbone.conv1"
        )
        for one in published()["backbone"].values()
    }
    for name in HRNETS:
        models[f"anytime_{name}"] = _entry(name, DIGITS_CLASSES, (64, 64), "backbone.conv1")
    for name in _OTHERS:
        first = "backbone.net.conv1" if name.startswith("resnet") else "backbone.net.stem_0"
        models[f"anytime_{name}"] = _entry(name, CITYSCAPES_CLASSES, (224, 224), first)
    for name, variant in VARIANTS.items():
        side = ROADMAPS[variant.regime].image_size
        models[f"anytime_{name}"] = _entry(
            name, CITYSCAPES_CLASSES, (side, side), "backbone.net.stem_conv"
        )
    return models


MODELS = _models()
