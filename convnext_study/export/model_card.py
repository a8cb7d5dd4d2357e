"""The README of an exported network: what it is, how to load it, what was measured with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from convnext_study import cost
from convnext_study.roadmap import ROADMAPS, Variant
from convnext_study.roadmap.paper import published_row

if TYPE_CHECKING:
    from torch import nn

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

"""
USE_TIMM = """\
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
    net: nn.Module,
    image: tuple[int, int, int],
    results: Mapping[str, Any] | None,
    row: str | None = None,
    *,
    changes: Mapping[str, Any] = MappingProxyType({}),
    use: str = USE_TIMM,
    config: Mapping[str, Any] | None = None,
) -> str:
    """Markdown, for a row with the front matter that model hubs read.

    Args:
        net: the network.
        image: channels, height, width of the images it is meant for.
        results: what was measured with these weights, if anything.
        row: its name in timm; None for a network that is no row of a road map.
        changes: fields in which it differs from that row.
        use: how it is loaded.
        config: of the images it wants, where no file beside the card has it.
    """
    from convnext_study.models.registry import VARIANTS

    variant = VARIANTS[row] if row else None
    head = f"# {type(net).__name__}\n"
    if variant is not None and variant.step is not None:  # a model is named after a step
        head = _HEAD.format(
            row=row,
            label=variant.label,
            why=variant.step.rationale,
            title=ROADMAPS[variant.regime].title,
            section=variant.step.section,
        )
    images = [f"- {name}: {value}" for name, value in (config or {}).items()]
    counted = cost.count(net, image)
    lines = [head, "## Use", "", use, *(["## Images", "", *images, ""] if images else [])]
    lines += [
        "## Network",
        "",
        f"- {counted.params / 1e6:.4g} M parameters",
        f"- {counted.macs / 1e9:.4g} G multiply-accumulates (convolution and linear layers) "
        f"for an image of {' x '.join(map(str, image))}",
    ]
    if variant is not None:
        own: Any = net
        lines.append(f"- {own.num_classes} classes")
        if changes:
            differs = ", ".join(f"`{name}` = {value}" for name, value in changes.items())
            lines.append(f"- differs from the row in {differs}")
        spec = json.dumps(own.spec.to_dict())
        lines += ["", "All of its fields:", "", "```json", spec, "```"]
    lines += ["", *_results(results), *(_paper(variant, changes) if variant else [])]
    return "\n".join(lines)


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
