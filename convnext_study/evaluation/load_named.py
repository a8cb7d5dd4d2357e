"""Networks by name: timm's, this package's among them, and torchvision's."""

from __future__ import annotations

import difflib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.data.transforms.evaluation import MODES, EvalTransform
from convnext_study.errors import RunFailed, did_you_mean
from convnext_study.evaluation.load_run import (
    EvaluationError,
    LoadedModel,
    classes_in,
    put_weights,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCHVISION = "torchvision:"
INTERPOLATIONS = ("bicubic", "bilinear")
_HUB = "huggingface.co"
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Unreachable(RunFailed):
    """Weights that have to be fetched cannot be."""


def load_named(name: str, *, weights: Path | None = None, pretrained: bool = False) -> LoadedModel:
    """A network by its timm name, or ``torchvision:NAME`` or ``torchvision:NAME.WEIGHTS``.

    Args:
        name: as above. torchvision's WEIGHTS default to the first it published, ``IMAGENET1K_V1``.
        weights: a state dict as ``.safetensors`` or a torch file, in the network's own layout; a
            road map's network also takes those of timm, torchvision and the authors.
        pretrained: fetch the released weights, or take them from the cache.

    Raises:
        EvaluationError: no such network, no such weights, or weights that do not fit.
        Unreachable: the weights cannot be fetched.
    """
    if weights and pretrained:
        raise EvaluationError("give --weights or --pretrained, not both")
    if name.startswith(TORCHVISION):
        return _torchvision(name, weights, pretrained)
    return _timm(name, weights, pretrained)


def _timm(name: str, weights: Path | None, pretrained: bool) -> LoadedModel:
    if pretrained and not _resolves(_HUB):
        # Five retries with pauses come first otherwise; what is in the cache is still found.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import timm

    if not timm.is_model(name):
        raise EvaluationError(f"{name}: no run folder and no timm model{_like(name)}")
    state = _read(weights)
    keywords: dict[str, Any] = {"num_classes": classes_in(state)} if state else {}
    if state and name.startswith("roadmap_"):
        keywords |= _layer_scale(state)
    try:
        net: Any = timm.create_model(name, pretrained=pretrained, **keywords)
    except RuntimeError as error:  # an unknown tag, or no weights for this name
        raise EvaluationError(f"{name}: {str(error).splitlines()[0]}") from None
    except (OSError, ValueError) as error:
        raise _unreachable(name, error) from None
    if pretrained and not _has_weights(net):
        raise EvaluationError(f"{name}: nobody has released weights under this name; use --weights")
    config = timm.data.resolve_model_data_config(net)
    _check_transform(name, config)
    _put(net, state, weights)
    return LoadedModel(
        name=name,
        net=net.eval(),
        classes=int(net.num_classes),
        transform=EvalTransform(
            image_size=config["input_size"][-1],
            crop_pct=config["crop_pct"],
            interpolation=config["interpolation"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            crop_mode=config["crop_mode"],
        ),
        weights=_source(weights, "released, by timm" if pretrained else None),
    )


def _check_transform(name: str, config: dict[str, Any]) -> None:
    """Raises EvaluationError for a published transform that there is no equal of here."""
    channels, height, width = config["input_size"]
    unknown = [
        f"{field} {config[field]!r}"
        for field, known in (("crop_mode", MODES), ("interpolation", INTERPOLATIONS))
        if config[field] not in known
    ]
    if (channels, height) != (3, width):
        unknown.append(f"images of {channels} channels, {height} by {width}")
    if unknown:
        raise EvaluationError(
            f"{name}: its published transform has {' and '.join(unknown)}, which is not supported; "
            "evaluate it with timm's own script"
        )


def _torchvision(name: str, weights: Path | None, pretrained: bool) -> LoadedModel:
    from torchvision import models

    short, _, tag = name.removeprefix(TORCHVISION).partition(".")
    known = models.list_models(module=models)
    if short not in known:
        close = did_you_mean(short, known) if difflib.get_close_matches(short, known) else ""
        raise EvaluationError(f"{name}: torchvision has no such model{close}")
    entries = {entry.name: entry for entry in models.get_model_weights(short)}
    tag = tag or next(iter(entries))
    if tag not in entries:
        raise EvaluationError(f"{name}: no such weights; there are {', '.join(entries)}")
    entry, state = entries[tag], _read(weights)
    keywords = {"num_classes": classes_in(state)} if state else {}
    try:
        net = models.get_model(short, weights=entry if pretrained else None, **keywords)
    except OSError as error:
        raise _unreachable(name, error) from None
    _put(net, state, weights)
    transform = entry.transforms()
    return LoadedModel(
        name=f"{TORCHVISION}{short}",
        net=net.eval(),
        classes=keywords.get("num_classes", len(entry.meta["categories"])),
        transform=EvalTransform(
            image_size=transform.crop_size[0],
            crop_pct=transform.crop_size[0] / transform.resize_size[0],
            interpolation=transform.interpolation.value,
            mean=tuple(transform.mean),
            std=tuple(transform.std),
        ),
        weights=_source(weights, f"released, torchvision's {tag}" if pretrained else None),
    )


def _read(weights: Path | None) -> dict[str, Tensor] | None:
    from convnext_study.models.pretrained.state_files import read_state

    return None if weights is None else read_state(weights)


def _put(net: nn.Module, state: dict[str, Tensor] | None, weights: Path | None) -> None:
    if state is None:
        return
    from convnext_study.models.pretrained import convert
    from convnext_study.models.roadmap_net import RoadmapNet

    if isinstance(net, RoadmapNet) and set(state) != set(net.state_dict()):
        convert.load(net, state)
    else:
        put_weights(net, state, str(weights))


def _layer_scale(state: dict[str, Tensor]) -> dict[str, Any]:
    """A road map's last row has none, the released ConvNeXt has: what the weights say holds."""
    scaled = any(key.endswith((".gamma", ".scale")) for key in state)
    return {"layer_scale": 1e-6 if scaled else None}


def _has_weights(net: Any) -> bool:
    config = getattr(net, "pretrained_cfg", {})
    return any(config.get(key) for key in ("url", "file", "hf_hub_id", "state_dict"))


def _source(weights: Path | None, released: str | None) -> str:
    if weights is not None:
        return f"from {weights.name}"
    return released or "random, nothing was loaded: the accuracy is that of guessing"


def _like(name: str) -> str:
    import timm

    # Of more than a thousand names only the closest is worth printing.
    close = difflib.get_close_matches(name, timm.list_models(), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _resolves(host: str) -> bool:
    """Whether a host's name has an address; behind a proxy only the proxy knows."""
    if any(os.environ.get(variable) for variable in _PROXIES):
        return True
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _unreachable(name: str, error: Exception) -> Unreachable:
    reason = str(error).splitlines()[0].strip()[:160] if str(error) else type(error).__name__
    return Unreachable(
        f"{name}: its weights cannot be fetched ({reason}); connect to the network, or fetch them "
        "elsewhere and give the file with --weights"
    )
