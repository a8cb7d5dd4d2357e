"""The README of an exported network: what it is, how to load it, what was measured with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convnext_study import cost
from convnext_study.roadmap import ROADMAPS, Variant
from convnext_study.roadmap.paper import published_row

if TYPE_CHECKING:
    from torch import nn

    from convnext_study.models.roadmap_net import RoadmapNet

_HEAD = """\
---
license: apache-2.0
library_name: timm
pipeline_tag: image-classification
tags:
- image-classification
- timm
- convnext
---
# {row}

{label}: {why}

A row of the road map "{title}". The step is from section {section} of "A ConvNet for the 2020s"
(Liu et al., CVPR 2022).

## Use

timm knows this network only after the package `convnext_study` has been imported, so import that
first:

```python
import convnext_study  # registers roadmap_* with timm
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # FOLDER: where this file is
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config, is_training=False)
```
"""


def model_card(
    net: RoadmapNet,
    image: tuple[int, int, int],
    row: str,
    changes: Mapping[str, Any],
    results: Mapping[str, Any] | None,
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        net: the network.
        image: channels, height, width of the images it is meant for.
        row: its name in timm.
        changes: fields in which it differs from that row.
        results: what was measured with these weights, if anything.
    """
    from convnext_study.models.registry import VARIANTS

    variant = VARIANTS[row]
    assert variant.step is not None  # noqa: S101  a model is named after a step
    head = _HEAD.format(
        row=row,
        label=variant.label,
        why=variant.step.rationale,
        title=ROADMAPS[variant.regime].title,
        section=variant.step.section,
    )
    return "\n".join(
        [head, *_network(net, image, changes), *_results(results), *_paper(variant, changes)]
    )


def plain_card(
    net: nn.Module, image: tuple[int, int, int], results: Mapping[str, Any] | None
) -> str:
    """The card of a network that is no row of a road map; ``net``, ``image`` and ``results`` are
    as in `model_card`."""
    head = f"# {type(net).__name__}\n\n## Use\n"
    return "\n".join([head, *_counts(net, image), "", *_results(results)])


def _counts(net: nn.Module, image: tuple[int, int, int]) -> list[str]:
    counted = cost.count(net, image)
    return [
        "## Network",
        "",
        f"- {counted.params / 1e6:.4g} M parameters",
        f"- {counted.macs / 1e9:.4g} G multiply-accumulates (convolution and linear layers) "
        f"for an image of {' x '.join(map(str, image))}",
    ]


def _network(net: RoadmapNet, image: tuple[int, int, int], changes: Mapping[str, Any]) -> list[str]:
    lines = [*_counts(net, image), f"- {net.num_classes} classes"]
    if changes:
        differs = ", ".join(f"`{name}` = {value}" for name, value in changes.items())
        lines.append(f"- differs from the row in {differs}")
    spec = json.dumps(net.spec.to_dict())
    return [*lines, "", "All of its fields:", "", "```json", spec, "```", ""]


def _results(results: Mapping[str, Any] | None) -> list[str]:
    lines = ["## Results of these weights", ""]
    if not results:
        return [*lines, "None were given when they were saved.", ""]
    rows = [f"| {name} | {value} |" for name, value in results.items()]
    return [*lines, "| | |", "|---|---|", *rows, ""]


def _paper(variant: Variant, changes: Mapping[str, Any]) -> list[str]:
    """The paper's row, unless this network is another one (layer scale is part of its recipe)."""
    paper = published_row(variant.regime, variant.name)
    if paper is None or set(changes) - {"layer_scale"}:
        return []
    deviation = "" if paper.std is None else f" ± {paper.std}"
    lines = [
        "## The paper's numbers",
        "",
        "Reported by its authors for their own training of this row on ImageNet-1K. They were not "
        "measured with these weights:",
        "",
        f"- top-1 {paper.top1}{deviation} %",
        f"- {paper.gflops} GFLOPs, as printed",
    ]
    return [*lines, *([f"- erratum: {paper.erratum}"] if paper.erratum else []), ""]
