"""Networks by name: timm's, including this package's, and torchvision's."""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.data.transforms.evaluation import MODES, EvalTransform
from convnext_study.errors import RunFailed, did_you_mean, first_line
from convnext_study.evaluation.load_run import (
    EvaluationError,
    LoadedModel,
    classifier_of,
    load_weights,
)
from convnext_study.models.builders import nearest_of_timm

if TYPE_CHECKING:
    from convnext_study.models.pretrained.state_files import Kind, State, Weights

TORCHVISION = "torchvision:"
RANDOM = "random, nothing was loaded: the accuracy is that of guessing"
# The stem's weight in this package's own layout, which no released file has.
OWN_NAMES = frozenset({"stem.conv.weight"})
INTERPOLATIONS = ("bicubic", "bilinear")
_HUB = "huggingface.co"
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


FileWeights = tuple[Path, "State"]


class Unreachable(RunFailed):
    """Weights that are needed cannot be fetched."""


def load_named(
    name: str,
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    kind: Kind | None = None,
) -> LoadedModel:
    """A network by its timm name, or ``torchvision:NAME`` or ``torchvision:NAME.WEIGHTS``.

    Args:
        name: as above. torchvision's WEIGHTS default to the first published, ``IMAGENET1K_V1``.
        weights: a state dict as ``.safetensors`` or a torch file, in the network's own layout; a
            road map's network also accepts those of timm, torchvision and the authors.
        pretrained: fetch the released weights, or take them from the cache.
        kind: ``raw`` or averaged (``ema``), for a file with both; see `read_weights`.

    Raises:
        EvaluationError: no such network, no such weights, or weights that do not fit.
        Unreachable: the weights cannot be fetched.
    """
    if weights and pretrained:
        raise EvaluationError("give --weights or --pretrained, not both")
    if kind and weights is None:
        raise EvaluationError(
            "--eval-weights applies to a weight file; add --weights, or remove it"
        )
    load = _torchvision if name.startswith(TORCHVISION) else _timm
    if weights is None:
        return load(name, None, pretrained)
    from convnext_study.models.pretrained.key_maps import PretrainedError
    from convnext_study.models.pretrained.state_files import read_weights

    weights_read = read_weights(weights, kind)
    try:
        loaded = load(name, (weights, weights_read.state), False)
    except PretrainedError as error:
        raise PretrainedError(f"{weights}: {error}") from None
    return replace(loaded, **_description(weights, weights_read))


def _description(path: Path, read: Weights) -> dict[str, Any]:
    """The fields of a `LoadedModel` that describe a file's weights."""
    label = {"raw": "raw", "ema": "averaged", None: ""}[read.kind]
    where = f" ({read.key})" if read.key else ""
    fields: dict[str, Any] = {"weights": f"from {path.name}" + (label and f": {label}{where}")}
    if read.others:
        other, kind = ("averaged", "ema") if read.kind == "raw" else ("raw", "raw")
        fields["notes"] = (
            f"{path.name} also contains {other} weights ({read.others}), which --eval-weights "
            f"{kind} selects",
        )
    return fields


def _timm(name: str, file_weights: FileWeights | None, pretrained: bool) -> LoadedModel:
    if pretrained and not _resolves(_HUB):
        # Otherwise it retries five times with pauses; weights in the cache still load.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from convnext_study.models.lean_timm import timm

    if not timm.is_model(name):
        raise EvaluationError(
            f"{name}: neither a run folder nor a timm model{nearest_of_timm(name)}"
        )
    keywords = _fields(file_weights[1]) if file_weights and name.startswith("roadmap_") else {}

    def make(**kwargs: Any) -> Any:
        try:
            return timm.create_model(name, pretrained=pretrained, **keywords, **kwargs)
        except RuntimeError as error:  # an unknown tag, or no weights for this name
            raise EvaluationError(f"{name}: {first_line(error)}") from None
        except (OSError, ValueError) as error:
            raise _unreachable(name, error) from None

    net = _for_classes(make, file_weights)
    released = getattr(net, "pretrained_cfg", {})
    if pretrained and not any(
        released.get(key) for key in ("url", "file", "hf_hub_id", "state_dict")
    ):
        raise EvaluationError(f"{name}: no weights were released under this name; use --weights")
    config = timm.data.resolve_model_data_config(net)
    _check_transform(name, config)
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
        weights="released, from timm" if pretrained else RANDOM,
    )


def _check_transform(name: str, config: dict[str, Any]) -> None:
    """Raises EvaluationError for a published transform that has no equivalent here."""
    channels, height, width = config["input_size"]
    unknown = [
        f"{field} {config[field]!r}"
        for field, supported in (("crop_mode", MODES), ("interpolation", INTERPOLATIONS))
        if config[field] not in supported
    ]
    if (channels, height) != (3, width):
        unknown.append(f"images of {channels} channels, {height} by {width}")
    if unknown:
        raise EvaluationError(
            f"{name}: its published transform has {' and '.join(unknown)}, which is not supported; "
            "evaluate it with timm's own script"
        )


def _torchvision(name: str, file_weights: FileWeights | None, pretrained: bool) -> LoadedModel:
    from torchvision import models

    short, _, tag = name.removeprefix(TORCHVISION).partition(".")
    names = models.list_models(module=models)
    if short not in names:
        close = did_you_mean(short, names) if difflib.get_close_matches(short, names) else ""
        raise EvaluationError(f"{name}: torchvision has no such model{close}")
    entries = {entry.name: entry for entry in models.get_model_weights(short)}
    tag = tag or next(iter(entries))
    if tag not in entries:
        raise EvaluationError(f"{name}: no such weights; available: {', '.join(entries)}")
    entry = entries[tag]

    def make(**kwargs: Any) -> Any:
        try:
            return models.get_model(short, weights=entry if pretrained else None, **kwargs)
        except OSError as error:
            raise _unreachable(name, error) from None

    net = _for_classes(make, file_weights)
    transform = entry.transforms()
    return LoadedModel(
        name=f"{TORCHVISION}{short}",
        net=net.eval(),
        classes=len(classifier_of(net)[1]),
        transform=EvalTransform(
            image_size=transform.crop_size[0],
            crop_pct=transform.crop_size[0] / transform.resize_size[0],
            interpolation=transform.interpolation.value,
            mean=tuple(transform.mean),
            std=tuple(transform.std),
        ),
        weights=f"released, torchvision's {tag}" if pretrained else RANDOM,
    )


def _for_classes(make: Callable[..., Any], file_weights: FileWeights | None) -> Any:
    """A network with the weights of a file, and their number of classes."""
    from convnext_study.models.pretrained import convert
    from convnext_study.models.roadmap_net import RoadmapNet

    net = make()
    if file_weights is None:
        return net
    if not getattr(net, "num_classes", True):  # some of timm's have no classifier by default
        net = make(num_classes=1)
    path, state = file_weights
    released = isinstance(net, RoadmapNet) and not OWN_NAMES & set(state)
    if released:
        classes = convert.classes_of(state)
    else:
        name, classifier = classifier_of(net)
        classes = len(state[name]) if name in state and state[name].ndim else len(classifier)
    if classes != len(classifier_of(net)[1]):
        net = make(num_classes=classes)
    if released:
        convert.load(net, state)
    else:
        load_weights(net, state, str(path))
    return net


def _fields(state: State) -> dict[str, Any]:
    """Layer scale and GRN of the weights, neither of which a road map's last row has."""
    from convnext_study.models.pretrained import convert

    if not OWN_NAMES & set(state):
        spec = convert.spec_of(state)
        return {"layer_scale": spec.layer_scale, "grn": spec.grn}
    scaled, grn = (any(f".branch.{x}.gamma" in key for key in state) for x in ("scale", "grn"))
    return {"layer_scale": 1e-6 if scaled else None, "grn": grn}


def _resolves(host: str) -> bool:
    """Whether a host's name resolves; True behind a proxy, which resolves it itself."""
    if any(os.environ.get(variable) for variable in _PROXIES):
        return True
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _unreachable(name: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"{name}: its weights cannot be downloaded ({first_line(error).strip():.160}); connect to "
        "the network, or download them elsewhere and pass the file with --weights"
    )
