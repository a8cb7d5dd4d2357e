"""The published networks, what sources say of them, and their names in timm (no torch here).

All of it stands once, in ``published.toml``, each number with its source. Accuracies there are the
paper's or the named source's; none is a result of this package.

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
    """A network as published, for so many ``classes`` and images of ``input`` pixels a side.

    ``of`` names the network that it was pruned from, None for a whole one; ``stated`` is everything
    that the file says: counts, ratios, the rule behind its widths.
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
        """What timm calls it."""
        return "pruning_" + self.name.replace("-", "_")

    @property
    def recipe(self) -> str:
        """The recipe in the file that trains it and the network that it was pruned from."""
        whole = networks()[self.of] if self.of else self
        usual = "cifar" if self.input == CIFAR_SIDE else "imagenet"
        return str(whole.stated.get("recipe", usual))

    @property
    def base_epochs(self) -> int:
        """Of the whole network's training."""
        return int(stated_recipe(self.recipe)["epochs"])

    @property
    def is_capped(self) -> bool:
        """Whether Scratch-B trains no longer than twice as long."""
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
        one["name"]: PublishedNetwork(
            **{name: one[name] for name in names}, of=one.get("of"), spec=_spec(one), stated=one
        )
        for one in tables()["network"]
    }


def get_network(name: str) -> PublishedNetwork:
    """The network of that name. Raises UserError."""
    known = networks()
    if name not in known:
        raise UserError(f"network {name!r}{did_you_mean(name, list(known))}")
    return known[name]


def stated_recipe(name: str) -> dict[str, Any]:
    """The fields of a recipe in the file, those of the recipe that it is based on among them."""
    own = dict(tables()["recipe"][name])
    base = own.pop("base", None)
    return {**stated_recipe(base), **own} if base else own


def results(network: str) -> list[dict[str, Any]]:
    """Published accuracies of a network: the paper's (``of_paper``), and those of other sources."""
    return [one for one in tables()["result"] if one["network"] == network]


def _spec(entry: Mapping[str, Any]) -> Spec:
    family = entry["family"]
    if family == "preresnet":
        return specs.preresnet(entry["blocks"])
    if family == "densenet":
        names = ("blocks", "growth", "compression", "bottleneck")
        return specs.densenet(**{name: entry[name] for name in names})
    fields = [field.name for field in dataclasses.fields(specs.FAMILIES[family])]
    return specs.from_dict({name: entry[name] for name in ("family", *fields) if name in entry})


def _entry(one: PublishedNetwork) -> ModelEntry:
    is_timms = one.spec.is_timms
    side = one.input // one.spec.reduction
    cfg = {
        "num_classes": one.classes,
        "input_size": (3, one.input, one.input),
        "pool_size": (side, side),
        "crop_pct": 0.875 if one.input == IMAGENET_SIDE else 1.0,
        "interpolation": "bilinear",
        "paper_ids": PAPER,
    }
    build = "timm_resnet" if is_timms else "PruningNet"
    return ModelEntry(
        network=f"convnext_study.studies.pruning.families:{build}",
        spec=one.spec,
        description=f"{one.label}, of the pruning study.",
        cfg={**cfg, "first_conv": "conv1", "classifier": "fc"} if is_timms else cfg,
        features={} if is_timms else _features,
    )


def _features(spec: Any) -> dict[str, Any]:
    return {"out_indices": tuple(range(spec.stage_count)), "flatten_sequential": True}


MODELS = {one.model: _entry(one) for one in networks().values()}
