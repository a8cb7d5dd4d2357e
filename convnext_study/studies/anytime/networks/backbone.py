"""What a backbone must offer to get exits, and which kind a name stands for."""

from __future__ import annotations

from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.anytime.networks.hrnet import HRNet, hrnet
from convnext_study.studies.anytime.networks.staged import StagedBackbone, staged_backbone
from convnext_study.studies.anytime.spec import AnytimeSpec

Backbone = HRNet | StagedBackbone


def make_backbone(spec: AnytimeSpec, *, in_chans: int, drop_path_rate: float) -> Backbone:
    """The backbone of a spec, with the stages that its exits need.

    Raises SpecError for one that cannot be had.
    """
    stages = spec.exits[-1]
    if spec.backbone.startswith("hrnet_"):
        if drop_path_rate:
            raise SpecError(f"drop_path: {drop_path_rate}; an HRNet has none, use 0")
        return hrnet(spec.backbone, stages, in_chans=in_chans, pretrained=spec.pretrained)
    return staged_backbone(
        spec.backbone,
        stages,
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        pretrained=spec.pretrained,
    )
