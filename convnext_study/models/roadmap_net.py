"""The network of a spec, built from its list of layers: the only place that makes road-map layers.

It has timm's interface of a model (`models/timm_model.py`); `models/registry.py` lists its models.
"""

from __future__ import annotations

from convnext_study.models.blocks import Head, drop_path_rates, roadmap_stage
from convnext_study.models.layer_specs import list_layers
from convnext_study.models.layers import make_layer, sequence
from convnext_study.models.timm_model import TimmModel
from convnext_study.roadmap.spec import NetSpec


class RoadmapNet(TimmModel):
    """Any network of the road map, its side branches and their subsets.

    Maps images (N, in_chans, H, W) to logits (N, num_classes).

    Args:
        spec: what to build.
        num_classes: 0 for no classifier; the network then returns pooled features.
        in_chans: channels of the image.
        global_pool: avg, max, avgmax, or '' for a map of logits at each position.
        output_stride: 32, 16 or 8; a smaller one turns the last strides into dilation.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, increasing linearly from 0 at the first.

    Raises:
        ValueError: an invalid argument, in one line that names it.
    """

    def __init__(
        self,
        spec: NetSpec,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: {output_stride}; use 8, 16 or 32")
        layers = list_layers(
            spec, in_chans=in_chans, num_classes=num_classes, output_stride=output_stride
        )
        norm = [make_layer(layer, spec) for layer in layers.head if layer.kind == "norm"]
        rates = iter(drop_path_rates(drop_path_rate, sum(spec.depths)))
        super().__init__(
            spec,
            sequence(layers.stem, spec),
            (roadmap_stage(stage, spec, rates) for stage in layers.stages),
            Head(layers.head[-1].c_in, num_classes, global_pool, drop_rate, *norm),
            zip(spec.widths(), _reductions(spec, output_stride), strict=True),
            num_classes=num_classes,
            in_chans=in_chans,
            output_stride=output_stride,
            drop_rate=drop_rate,
        )


def _reductions(spec: NetSpec, output_stride: int) -> list[int]:
    """The reduction of each stage's map: the image's side over its side."""
    stem, staged = spec.stem_reduction(), spec.layout == "staged"
    largest = max(output_stride, stem)
    return [min(stem << stage, largest) if staged else stem for stage in range(len(spec.depths))]
