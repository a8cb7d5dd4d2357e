"""Weights as files for other people: what timm loads by file and by folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from convnext_study.errors import UserError
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.files import write_bytes

if TYPE_CHECKING:
    from torch import nn

    from convnext_study.models.roadmap_net import RoadmapNet

SUFFIX = ".safetensors"


class ExportError(UserError):
    """Weights cannot be written; the message says why."""


def save_checkpoint(model: nn.Module, path: Path | str) -> None:
    """Write a network's weights for ``timm.create_model(name, checkpoint_path=path)``.

    The file's metadata hold the spec, as JSON. It appears whole or not at all.

    Args:
        model: a `RoadmapNet`, bare or wrapped by `torch.compile` or DistributedDataParallel.
        path: ends in ``.safetensors``.

    Raises:
        ExportError: not a network of this package, or another kind of file.
    """
    from safetensors.torch import save

    path, net = Path(path), unwrapped(model)
    if path.suffix != SUFFIX:
        raise ExportError(f"{path}: weights are written as safetensors; name it *{SUFFIX}")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}
    metadata = {"format": "pt", "spec": json.dumps(net.spec.to_dict())}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(tensors, metadata))
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror})") from error


def save_for_hf(
    model: nn.Module,
    folder: Path | str,
    *,
    results: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> str:
    """Write a folder for ``timm.create_model("local-dir:FOLDER", pretrained=True)``.

    It holds the weights, timm's ``config.json`` and a model card, which says to import this
    package first. Fields in which the network differs from its row travel as ``model_args``.

    Args:
        model: as in `save_checkpoint`; made by timm or not.
        folder: made if missing; of what is in it only these three files are replaced.
        results: what was measured with these weights and where it came from, for the card.
        data: entries of timm's data config that hold for these weights and are not the row's
            (``mean``, ``std``, ``input_size``, ``crop_pct``, ``interpolation``).

    Returns:
        The timm name of the row that the network is, or differs least from.

    Raises:
        ExportError: not a network of this package, or not a folder.
    """
    import timm.models
    import torch

    from convnext_study.export.model_card import model_card

    net, folder = unwrapped(model), Path(folder)
    row = row_of(net)
    # A copy, so that neither memory format nor configuration of the caller's network changes.
    twin: Any = copy.deepcopy(net).to("cpu").to(memory_format=torch.contiguous_format)
    twin.pretrained_cfg = _config(net, row, data or {})
    arguments = _arguments(net, row)
    size = twin.pretrained_cfg["input_size"]
    card = model_card(net, size, results, row, changes=changes_of(net.spec, row))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        timm.models.save_for_hf(twin, str(folder), model_args=arguments, safe_serialization=True)
        write_bytes(folder / "README.md", card.encode())
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error.strerror})") from error
    return row


def unwrapped(model: nn.Module) -> RoadmapNet:
    """The network inside `torch.compile` and DistributedDataParallel.

    Raises ExportError where there is no network of this package.
    """
    from convnext_study.models.roadmap_net import RoadmapNet

    inner: Any = model
    while not isinstance(inner, RoadmapNet):
        wrapped = getattr(inner, "module", None) or getattr(inner, "_orig_mod", None)
        if wrapped is None:
            raise ExportError(
                f"{type(model).__name__}: not a network of the road map; save it by its own means"
            )
        inner = wrapped
    if not is_row(inner):
        raise ExportError(
            "a network of the road map that was pruned, which its fields do not say; write it as "
            "onnx or pt2"
        )
    return inner


def is_row(net: nn.Module) -> TypeGuard[RoadmapNet]:
    """Whether a network's fields say all of it: one that was pruned has fewer channels."""
    import torch

    from convnext_study.models.roadmap_net import RoadmapNet

    if not isinstance(net, RoadmapNet):
        return False
    with torch.device("meta"):
        whole = RoadmapNet(net.spec, num_classes=net.num_classes, in_chans=net.in_chans)
    shapes = (
        {name: value.shape for name, value in one.state_dict().items()} for one in (net, whole)
    )
    mine, its = shapes
    return mine == its


def row_of(net: RoadmapNet) -> str:
    """The timm name of the row that a network is, or differs least from."""
    from convnext_study.models.registry import VARIANTS

    named = (getattr(net, "pretrained_cfg", None) or {}).get("architecture")
    if named in VARIANTS:
        return str(named)
    return min(VARIANTS, key=lambda name: len(changes_of(net.spec, name)))


def _config(net: RoadmapNet, row: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """timm's description of the network and of the images it is meant for."""
    from timm.models import get_pretrained_cfg

    config = getattr(net, "pretrained_cfg", None) or get_pretrained_cfg(row).to_dict()
    _, height, width = data.get("input_size", config["input_size"])
    if (height, width) != tuple(config["input_size"][1:]):
        config = config | {"pool_size": None}
    image = {"input_size": (net.in_chans, height, width)}
    return {**config, **data, **image, "architecture": row}


def changes_of(spec: NetSpec, row: str) -> dict[str, Any]:
    """The fields in which a network differs from a row."""
    from convnext_study.models.registry import VARIANTS

    usual = VARIANTS[row].spec.to_dict()
    return {name: value for name, value in spec.to_dict().items() if value != usual[name]}


def _arguments(net: RoadmapNet, row: str) -> dict[str, Any]:
    """What `timm.create_model` needs besides the name to build the network again."""
    return {
        **changes_of(net.spec, row),
        "num_classes": net.num_classes,
        "in_chans": net.in_chans,
        "global_pool": net.head.pool_type,
        "output_stride": net.output_stride,
    }
