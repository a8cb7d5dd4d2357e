"""Export weights as files and folders that timm loads, with a card that says what they are, how to
load them and what was measured with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from convnext_study import cost
from convnext_study.errors import UserError
from convnext_study.roadmap import ROADMAPS, Variant
from convnext_study.roadmap.paper import published_row
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.files import write_bytes

if TYPE_CHECKING:
    from torch import nn

    from convnext_study.models.roadmap_net import RoadmapNet


class ExportError(UserError):
    """Weights cannot be written; the message says why."""


def save_checkpoint(net: RoadmapNet, path: Path) -> None:
    """Write a network's weights as safetensors, for ``timm.create_model(NAME, checkpoint_path=)``.

    The file's metadata contains the spec as JSON. The file is written atomically.
    """
    from safetensors.torch import save

    tensors = {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_bytes(path, save(tensors, {"format": "pt", "spec": json.dumps(net.spec.to_dict())}))


def save_for_hf(net: RoadmapNet, folder: Path, data: Mapping[str, Any]) -> None:
    """Write weights and timm's ``config.json`` for ``timm.create_model("local-dir:FOLDER",
    pretrained=True)``.

    Fields in which the network differs from its row become ``model_args``. ``data`` are entries of
    timm's data config that these weights set differently from the row.
    """
    import timm.models
    from timm.models import get_pretrained_cfg

    row = row_of(net)
    model: Any = net
    config = getattr(net, "pretrained_cfg", None) or get_pretrained_cfg(row).to_dict()
    if tuple(data["input_size"][1:]) != tuple(config["input_size"][1:]):
        config = config | {"pool_size": None}
    model.pretrained_cfg = {**config, **data, "architecture": row}
    arguments = {
        **changes_of(net.spec, row),
        "num_classes": net.num_classes,
        "in_chans": net.in_chans,
        "global_pool": net.head.pool_type,
        "output_stride": net.output_stride,
    }
    timm.models.save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True)


def is_row(net: nn.Module) -> TypeGuard[RoadmapNet]:
    """Whether a network's spec describes it completely: a pruned one has fewer channels."""
    import torch

    from convnext_study.models.roadmap_net import RoadmapNet

    if not isinstance(net, RoadmapNet):
        return False
    with torch.device("meta"):
        unpruned = RoadmapNet(net.spec, num_classes=net.num_classes, in_chans=net.in_chans)
    shapes, expected = (
        {name: value.shape for name, value in n.state_dict().items()} for n in (net, unpruned)
    )
    return shapes == expected


def row_of(net: RoadmapNet) -> str:
    """The timm name of a network's row, or of the row that it differs least from."""
    from convnext_study.models.registry import VARIANTS

    architecture = (getattr(net, "pretrained_cfg", None) or {}).get("architecture")
    if architecture in VARIANTS:
        return str(architecture)
    return min(VARIANTS, key=lambda name: len(changes_of(net.spec, name)))


def changes_of(spec: NetSpec, row: str) -> dict[str, Any]:
    """The fields in which a network differs from a row."""
    from convnext_study.models.registry import VARIANTS

    defaults = VARIANTS[row].spec.to_dict()
    return {name: value for name, value in spec.to_dict().items() if value != defaults[name]}


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
    results: Mapping[str, Any],
    use: str,
    config: Mapping[str, Any] | None = None,
) -> str:
    """The model card in Markdown; for a row, with the front matter that model hubs read.

    Args:
        net: the network.
        image: channels, height and width of its input images.
        results: metrics of these weights, if any.
        use: instructions for loading it.
        config: of its input images, unless a file beside the card contains it.
    """
    from convnext_study.models.registry import VARIANTS

    head, variant, changes = f"# {type(net).__name__}\n", None, dict[str, Any]()
    if is_row(net):
        variant, changes = VARIANTS[row_of(net)], changes_of(net.spec, row_of(net))
    if variant is not None and variant.step is not None:  # a model is named after a step
        head = _HEAD.format(
            row=variant.model,
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
        model: Any = net
        lines.append(f"- {model.num_classes} classes")
        if changes:
            differences = ", ".join(f"`{name}` = {value}" for name, value in changes.items())
            lines.append(f"- differs from the row in {differences}")
        spec = json.dumps(model.spec.to_dict())
        lines += ["", "All of its fields:", "", "```json", spec, "```"]
    lines += ["", *_results(results), *(_paper(variant, changes) if variant else [])]
    return "\n".join(lines)


def _results(results: Mapping[str, Any]) -> list[str]:
    lines = ["## Results of these weights", ""]
    if not results:
        return [*lines, "None were given when they were saved.", ""]
    rows = [f"| {name} | {value} |" for name, value in results.items()]
    return [*lines, "| | |", "|---|---|", *rows, ""]


def _paper(variant: Variant, changes: Mapping[str, Any]) -> list[str]:
    """The paper's row, unless this network differs (layer scale is part of the paper's recipe)."""
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
