"""Every row of every road map as a model in timm: ``timm.create_model("roadmap_t_gelu")``."""

from __future__ import annotations

from convnext_study.models.registry import ModelEntry
from convnext_study.roadmap import ROADMAPS, Roadmap, Variant
from convnext_study.roadmap.spec import STAGES

# The row that a model is. The first row of a road map is the second's network, trained otherwise.
VARIANTS: dict[str, Variant] = {
    variant.model: variant for road in ROADMAPS.values() for variant in road.variants()
}


def _entry(road: Roadmap, variant: Variant) -> ModelEntry:
    size = road.image_size
    pool = size // (variant.spec.stem_stride * 2 ** (STAGES - 1))
    return ModelEntry(
        network="convnext_study.models.roadmap_net:RoadmapNet",
        spec=variant.spec,
        description=f"{variant.label}: {road.title}",
        cfg={
            "num_classes": road.num_classes,
            "input_size": (3, size, size),
            "pool_size": (pool, pool),
            "paper_ids": "arXiv:2201.03545",
        },
        features={"out_indices": tuple(range(STAGES)), "flatten_sequential": True},
    )


MODELS = {name: _entry(ROADMAPS[variant.regime], variant) for name, variant in VARIANTS.items()}
