"""The published networks, their published numbers, and their names in timm. Imports no torch.

All of it is in ``published.toml``, each number with its source. Accuracies there are the paper's or
the named source's; none is a result of this package.

``timm.create_model("pruning_resnet56_a")`` builds one, and keywords may set fields of its spec:
``create_model("pruning_vgg16", widths=(8, "M", 16))``.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext_study.errors import UserError, did_you_mean
from convnext_study.models.registry import ModelEntry
from convnext_study.studies.pruning import spec as specs
from convnext_study.studies.pruning.spec import Spec

FILE = Path(__file__).with_name("published.toml")
PAPER = "arXiv:1810.05270"
CIFAR_SIDE, IMAGENET_SIDE = 32, 224  # pixels


@dataclass(frozen=True)
class PublishedNetwork:
    """A published network, with its number of ``classes`` and its image side ``input`` in pixels.

    ``of`` names the network that it was pruned from, None if it is unpruned; ``stated`` is its
    whole entry in the file: counts, ratios, the rule behind its widths.
    """

    name: str
    label: str
    spec: Spec
    classes: int
    input: int
    of: str | None
    stated: Mapping[str, Any]

    @property
    def model(self) -> str:
        """Its name in timm."""
        return "pruning_" + self.name.replace("-", "_")

    @property
    def recipe(self) -> str:
        """The recipe in the file for it and for the network that it was pruned from."""
        unpruned = networks()[self.of] if self.of else self
        default = "cifar" if self.input == CIFAR_SIDE else "imagenet"
        return str(unpruned.stated.get("recipe", default))

    @property
    def base_epochs(self) -> int:
        """Epochs of the unpruned network's training."""
        return int(stated_recipe(self.recipe)["epochs"])

    @property
    def is_capped(self) -> bool:
        """Whether Scratch-B takes at most twice the epochs."""
        return bool(self.stated.get("cap_180", False))


@functools.cache
def tables() -> dict[str, Any]:
    """The whole file: ``rules``, ``network``, ``magnitude``, ``result``, ``recipe``, ``source``."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


@functools.cache
def networks() -> dict[str, PublishedNetwork]:
    """Every network by its name, in the file's order."""
    names = ("name", "label", "classes", "input")
    return {
        entry["name"]: PublishedNetwork(
            **{name: entry[name] for name in names},
            of=entry.get("of"),
            spec=_spec(entry),
            stated=entry,
        )
        for entry in tables()["network"]
    }


def get_network(name: str) -> PublishedNetwork:
    """The network of that name. Raises UserError."""
    if name not in networks():
        raise UserError(f"network {name!r}{did_you_mean(name, list(networks()))}")
    return networks()[name]


def stated_recipe(name: str) -> dict[str, Any]:
    """The fields of a recipe in the file, including those of its base recipe."""
    own = dict(tables()["recipe"][name])
    base = own.pop("base", None)
    return {**stated_recipe(base), **own} if base else own


def results(network: str) -> list[dict[str, Any]]:
    """Published accuracies of a network: the paper's (``of_paper``), and those of other sources."""
    return [result for result in tables()["result"] if result["network"] == network]


def _spec(entry: Mapping[str, Any]) -> Spec:
    family = entry["family"]
    if family == "preresnet":
        return specs.preresnet(entry["blocks"])
    if family == "densenet":
        names = ("blocks", "growth", "compression", "bottleneck")
        return specs.densenet(**{name: entry[name] for name in names})
    fields = [field.name for field in dataclasses.fields(specs.FAMILIES[family])]
    return specs.from_dict({name: entry[name] for name in ("family", *fields) if name in entry})


def _entry(network: PublishedNetwork) -> ModelEntry:
    is_timms = network.spec.is_timms
    side = network.input // network.spec.reduction
    cfg = {
        "num_classes": network.classes,
        "input_size": (3, network.input, network.input),
        "pool_size": (side, side),
        "crop_pct": 0.875 if network.input == IMAGENET_SIDE else 1.0,
        "interpolation": "bilinear",
        "paper_ids": PAPER,
    }
    build = "timm_resnet" if is_timms else "PruningNet"
    return ModelEntry(
        network=f"convnext_study.studies.pruning.families:{build}",
        spec=network.spec,
        description=f"{network.label}, of the pruning study.",
        cfg={**cfg, "first_conv": "conv1", "classifier": "fc"} if is_timms else cfg,
        features={} if is_timms else _features,
    )


def _features(spec: Any) -> dict[str, Any]:
    return {"out_indices": tuple(range(spec.stage_count)), "flatten_sequential": True}


MODELS = {network.model: _entry(network) for network in networks().values()}
