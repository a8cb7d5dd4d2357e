"""How others name the weights of the two ends of the road: tables and names (no torch here).

The first row is ResNet as torchvision and timm save it (both use the same names). The last row,
with layer scale, is ConvNeXt as timm and as its authors save it. The table maps our modules to
theirs; parameter names (``weight``, ``running_mean``, ``gamma``, ...) are the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from convnext_study.errors import UserError, did_you_mean
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import RESNET50, NetSpec

CONVNEXT_T = get_roadmap("t").variants()[-1].spec.replace(layer_scale=1e-6)
OUR_BLOCK = "stages.{s}.blocks.{b}"
SHOWN = 8  # names in an error message


class PretrainedError(UserError):
    """Weights that do not fit, in one line that says what is missing, unexpected or misshapen."""


@dataclass(frozen=True)
class KeyMap:
    """How others name and shape the weights of one end.

    Args:
        title: the network, in words.
        end: its spec.
        free: fields in which a network of this layout may differ from ``end``.
        block: name of a block; {s} is the stage from 0, {n} from 1, {b} the block from 0.
        names: our modules to theirs.
        pointwise: axes of the weight of a block's pointwise layers, which are linear in some.
    """

    title: str
    end: NetSpec
    free: tuple[str, ...]
    block: str
    names: Mapping[str, str]
    pointwise: str


# Ours, and the same in a ResNet, timm's ConvNeXt and the authors' ConvNeXt; None: it has none.
_NAMES: dict[str, tuple[str | None, str | None, str | None]] = {
    "stem.conv": ("conv1", "stem.0", "downsample_layers.0.0"),
    "stem.norm": ("bn1", "stem.1", "downsample_layers.0.1"),
    "stages.{s}.downsample.norm": (None, "stages.{s}.downsample.0", "downsample_layers.{s}.0"),
    "stages.{s}.downsample.conv": (None, "stages.{s}.downsample.1", "downsample_layers.{s}.1"),
    "{block}.branch.pw1": ("{block}.conv1", "{block}.mlp.fc1", "{block}.pwconv1"),
    "{block}.branch.norm_pw1": ("{block}.bn1", None, None),
    "{block}.branch.spatial": ("{block}.conv2", "{block}.conv_dw", "{block}.dwconv"),
    "{block}.branch.norm_spatial": ("{block}.bn2", "{block}.norm", "{block}.norm"),
    "{block}.branch.pw2": ("{block}.conv3", "{block}.mlp.fc2", "{block}.pwconv2"),
    "{block}.branch.norm_pw2": ("{block}.bn3", None, None),
    "{block}.branch.scale": (None, "{block}", "{block}"),
    "{block}.shortcut.conv": ("{block}.downsample.0", None, None),
    "{block}.shortcut.norm": ("{block}.downsample.1", None, None),
    "head.norm": (None, "head.norm", "norm"),
    "head.fc": ("fc", "head.fc", "head"),
}


def _column(place: int) -> dict[str, str]:
    return {ours: name for ours, theirs in _NAMES.items() if (name := theirs[place]) is not None}


KEY_MAPS: dict[str, KeyMap] = {
    "resnet": KeyMap(
        title="a ResNet of bottlenecks",
        end=RESNET50,
        free=("depths", "width"),
        block="layer{n}.{b}",
        names=_column(0),
        pointwise="o i 1 1",
    ),
    "timm_convnext": KeyMap(
        title="a ConvNeXt of timm",
        end=CONVNEXT_T,
        free=("depths", "width", "layer_scale"),
        block="stages.{s}.blocks.{b}",
        names=_column(1),
        pointwise="o i",
    ),
    "official_convnext": KeyMap(
        title="a ConvNeXt of its authors",
        end=CONVNEXT_T,
        free=("depths", "width", "layer_scale"),
        block="stages.{s}.{b}",
        names=_column(2),
        pointwise="o i",
    ),
}


def get_key_map(name: str) -> KeyMap:
    """The layout of that name. Raises PretrainedError where there is none."""
    if name not in KEY_MAPS:
        raise PretrainedError(f"{name}: no such layout{did_you_mean(name, list(KEY_MAPS))}")
    return KEY_MAPS[name]


def detect(state: Iterable[str]) -> str:
    """The layout of a state dict, a key of `LAYOUTS`. Raises PretrainedError if it has none."""
    keys = list(state)
    for name, layout in KEY_MAPS.items():
        spatial = layout.names["{block}.branch.spatial"].replace("{block}", layout.block)
        pattern = re.compile(re.sub(r"\\{\w\\}", r"\\d+", re.escape(spatial)) + r"\.weight")
        if any(pattern.fullmatch(key) for key in keys):
            return name
    raise PretrainedError(
        f"the weights are in no known layout ({', '.join(KEY_MAPS)}): {few(keys)}"
    )


def modules(key_map: KeyMap, depths: Sequence[int]) -> dict[str, str]:
    """Our modules to theirs, for every stage and block."""
    places = [(s, b) for s, depth in enumerate(depths) for b in range(depth)]
    pairs: dict[str, str] = {}
    for ours, theirs in key_map.names.items():
        for stage, block in places:
            place = {"s": stage, "n": stage + 1, "b": block}
            our_name = ours.replace("{block}", OUR_BLOCK).format(**place)
            pairs[our_name] = theirs.replace("{block}", key_map.block).format(**place)
    return pairs


def depth(key_map: KeyMap, stage: int, state: Iterable[str]) -> int:
    """Blocks of a stage, by the highest number that names one; 1 if there is none."""
    prefix = re.escape(key_map.block.partition("{b}")[0].format(s=stage, n=stage + 1))
    found = [re.match(prefix + r"(\d+)\.", key) for key in state]
    return max((int(match[1]) + 1 for match in found if match), default=1)


def check_end(key_map: KeyMap, spec: NetSpec) -> None:
    """Raises PretrainedError for a network that others cannot hold in this layout."""
    end = key_map.end.to_dict()
    wrong = [
        f"{name} is {value!r}, not {end[name]!r}"
        for name, value in spec.to_dict().items()
        if name not in key_map.free and value != end[name]
    ]
    if wrong:
        raise PretrainedError(f"the network is not {key_map.title}: {', '.join(wrong)}")


def few(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
