"""Other projects' weight names for the two ends of the road, as tables (no torch here).

The first row is ResNet as torchvision and timm save it (both use the same names). The last row is
ConvNeXt as timm, its authors and torchvision save it: with layer scale, or as V2 with GRN. A table
maps our modules to theirs; parameter names (``weight``, ``running_mean``, ...) are the same
everywhere except for the few in `KeyMap.leaves`, and so are shapes, except for axes of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from convnext_study.errors import UserError
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import RESNET50, STAGES, NetSpec

CONVNEXT_T = get_roadmap("t").variants()[-1].spec.replace(layer_scale=1e-6)
SHOWN = 8  # names in an error message


class PretrainedError(UserError):
    """Weights that do not fit; the message says what is missing, unexpected or misshapen."""


@dataclass(frozen=True)
class KeyMap:
    """Another project's names and shapes of the weights of one end.

    Args:
        title: the network, in words.
        end: its spec.
        free: fields of a network in this layout that may differ from ``end``.
        block: name of a block; {s} is the stage from 0, {n} from 1, {t} is 2s + 1, {b} the block
            from 0.
        names: maps our modules to theirs; {d} is 2s.
        leaves: renamed parameters: maps the last part of our module and their name to our name.
        extras: extra parts of networks with these names that the road map's lacks: maps a pattern
            for the start of a weight's name to its description.
    """

    title: str
    end: NetSpec
    free: tuple[str, ...]
    block: str
    names: Mapping[str, str]
    leaves: Mapping[tuple[str, str], str] = field(default_factory=dict)
    extras: Mapping[str, str] = field(default_factory=dict)


# Our modules, and those of a ResNet, timm's ConvNeXt and the authors' ConvNeXt; None: missing.
_NAMES: dict[str, tuple[str | None, str | None, str | None]] = {
    "stem.conv": ("conv1", "stem.0", "downsample_layers.0.0"),
    "stem.norm": ("bn1", "stem.1", "downsample_layers.0.1"),
    "stages.{s}.downsample.norm": (None, "stages.{s}.downsample.0", "downsample_layers.{s}.0"),
    "stages.{s}.downsample.conv": (None, "stages.{s}.downsample.1", "downsample_layers.{s}.1"),
    "{block}.branch.pw1": ("{block}.conv1", "{block}.mlp.fc1", "{block}.pwconv1"),
    "{block}.branch.norm_pw1": ("{block}.bn1", None, None),
    "{block}.branch.spatial": ("{block}.conv2", "{block}.conv_dw", "{block}.dwconv"),
    "{block}.branch.norm_spatial": ("{block}.bn2", "{block}.norm", "{block}.norm"),
    "{block}.branch.grn": (None, "{block}.mlp.grn", "{block}.grn"),
    "{block}.branch.pw2": ("{block}.conv3", "{block}.mlp.fc2", "{block}.pwconv2"),
    "{block}.branch.norm_pw2": ("{block}.bn3", None, None),
    "{block}.branch.scale": (None, "{block}", "{block}"),
    "{block}.shortcut.conv": ("{block}.downsample.0", None, None),
    "{block}.shortcut.norm": ("{block}.downsample.1", None, None),
    "head.norm": (None, "head.norm", "norm"),
    "head.fc": ("fc", "head.fc", "head"),
}

# Torchvision's ConvNeXt, whose modules are numbered.
_TORCHVISION = {
    "stem.conv": "features.0.0",
    "stem.norm": "features.0.1",
    "stages.{s}.downsample.norm": "features.{d}.0",
    "stages.{s}.downsample.conv": "features.{d}.1",
    "{block}.branch.pw1": "{block}.block.3",
    "{block}.branch.spatial": "{block}.block.0",
    "{block}.branch.norm_spatial": "{block}.block.2",
    "{block}.branch.pw2": "{block}.block.5",
    "{block}.branch.scale": "{block}",
    "head.norm": "classifier.0",
    "head.fc": "classifier.2",
}


def _column(index: int) -> dict[str, str]:
    return {ours: name for ours, theirs in _NAMES.items() if (name := theirs[index]) is not None}


KEY_MAPS: dict[str, KeyMap] = {
    "resnet": KeyMap(
        title="a bottleneck ResNet",
        end=RESNET50,
        free=("depths", "width"),
        block="layer{n}.{b}",
        names=_column(0),
    ),
    "timm_convnext": KeyMap(
        title="a ConvNeXt from timm",
        end=CONVNEXT_T,
        free=("depths", "width", "layer_scale", "grn"),
        block="stages.{s}.blocks.{b}",
        names=_column(1),
        leaves={("grn", "weight"): "gamma", ("grn", "bias"): "beta"},
        extras={
            r"stem\.[2-9]\.": "a two-convolution stem",
            r"norm_pre\.": "its last norm before the pooling",
            r"head\.pre_logits\.": "a hidden layer before its classifier",
        },
    ),
    "official_convnext": KeyMap(
        title="a ConvNeXt from its authors",
        end=CONVNEXT_T,
        free=("depths", "width", "layer_scale", "grn"),
        block="stages.{s}.{b}",
        names=_column(2),
    ),
    "torchvision_convnext": KeyMap(
        title="a ConvNeXt from torchvision",
        end=CONVNEXT_T,
        free=("depths", "width", "layer_scale"),
        block="features.{t}.{b}",
        names=_TORCHVISION,
        leaves={("scale", "layer_scale"): "gamma"},
    ),
}


def detect(state: Iterable[str]) -> str:
    """The layout of a state dict, a key of `KEY_MAPS`. Raises PretrainedError if unknown."""
    keys = list(state)
    for name, layout in KEY_MAPS.items():
        # Names that stay the same are ours, or not in this layout.
        renamed = (ours for key, ours in rename(layout, keys).items() if ours != key)
        if any(ours.endswith(".branch.spatial.weight") for ours in renamed):
            return name
    raise PretrainedError(f"the weights have no known layout ({', '.join(KEY_MAPS)}): {few(keys)}")


def rename(key_map: KeyMap, state: Iterable[str]) -> dict[str, str]:
    """Map their weight names to ours; unknown names stay the same."""
    patterns: dict[str, re.Pattern[str]] = {}
    for stage in range(STAGES):
        numbers = {"s": stage, "n": stage + 1, "d": 2 * stage, "t": 2 * stage + 1, "b": "#"}
        for ours, theirs in key_map.names.items():
            name = theirs.replace("{block}", key_map.block).format(**numbers)
            own = ours.replace("{block}", "stages.{s}.blocks.{b}").format(**numbers)
            patterns.setdefault(own, re.compile(re.escape(name).replace(r"\#", r"(\d+)")))

    def renamed(key: str) -> str:
        module, _, leaf = key.rpartition(".")
        for ours, pattern in patterns.items():
            if match := pattern.fullmatch(module):
                last = key_map.leaves.get((ours.rpartition(".")[2], leaf), leaf)
                return f"{ours.replace('#', ''.join(match.groups()))}.{last}"
        return key

    return {key: renamed(key) for key in state}


def check_variant(key_map: KeyMap, state: Iterable[str]) -> None:
    """Raises PretrainedError for a network that has these names but is no end of the road."""
    keys = list(state)
    for pattern, description in key_map.extras.items():
        if key := next(filter(re.compile(pattern).match, keys), None):
            raise PretrainedError(
                f"the weights are those of {key_map.title} with {description} ({key}), which is "
                "not a network of the road map; use it under its own name"
            )


def check_end(key_map: KeyMap, spec: NetSpec) -> None:
    """Raises PretrainedError for a network that does not exist in this layout."""
    end = key_map.end.to_dict()
    wrong = [
        f"{name} is {value!r}, not {end[name]!r}"
        for name, value in spec.to_dict().items()
        if name not in key_map.free and value != end[name]
    ]
    if wrong:
        raise PretrainedError(f"the network is not {key_map.title}: {', '.join(wrong)}")


def few(names: Sequence[str]) -> str:
    """The first few names, and the number of the others."""
    others = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + others
