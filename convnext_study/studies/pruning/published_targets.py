"""What is pruned of the published networks: the published widths and ratios."""

from __future__ import annotations

from collections.abc import Mapping

from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.apply import OWN
from convnext_study.studies.pruning.networks.wiring import widths_of
from convnext_study.studies.pruning.published import PublishedNetwork, networks, results, tables
from convnext_study.studies.pruning.sizes import Images, size_of
from convnext_study.studies.pruning.targets import (
    FINE_TUNED,
    INHERITED,
    LOTTERY,
    SCRATCH_B,
    SCRATCH_E,
    Target,
)


def published_targets(whole: PublishedNetwork) -> list[Target]:
    """The published networks that were pruned from this one, and the stated automatic ratios."""
    model = ref_of(whole)
    images = Images(whole.input, whole.classes)
    arms = (FINE_TUNED, INHERITED, SCRATCH_E, SCRATCH_B)
    found = [
        Target(
            one.name,
            one.label,
            method,
            {"widths": _narrower(widths_of(one.spec), widths_of(whole.spec))},
            arms,
            model=ref_of(one),
            ratio=size_of(model, images).budget / size_of(ref_of(one), images).budget,
            capped=one.is_capped,
            published=one.name,
        )
        for one in networks().values()
        if one.of == whole.name
        and (method := _predefined_method(one))
        and widths_of(one.spec).keys() == widths_of(whole.spec).keys()
    ]
    stem = whole.name.removesuffix("-c100").removesuffix("-slim")
    slimming = tables()["recipe"]["slimming"]
    ratios = slimming["ratio"]["cifar100" if whole.classes == 100 else "cifar10"].get(stem, ())
    found += [
        Target(
            f"slim_{ratio * 100:.0f}",
            f"slimmed {ratio:.0%}",
            "slimming",
            {"ratio": ratio},
            arms[:-1],  # how long Scratch-B is, only the trained network can say
            sparsity={"slimming": slimming["penalty"][stem]},
        )
        for ratio in ratios
    ]
    found += [
        Target(
            f"sparse_{ratio * 100:.0f}",
            f"magnitude {ratio:.0%}",
            "magnitude",
            {"ratio": ratio},
            (FINE_TUNED, SCRATCH_E, *LOTTERY),
        )
        for stated in tables()["magnitude"]
        if stated["network"] == whole.name
        for ratio in stated["ratio"]
    ]
    return found


def _predefined_method(network: PublishedNetwork) -> str | None:
    """The method behind a published network whose widths were set beforehand."""
    sources = (*results(network.name), *results(network.name, of_paper=False))
    methods = {result["method"] for result in sources}
    return next((one for one in ("l1-norm", "thinet", "regression") if one in methods), None)


def ref_of(network: PublishedNetwork) -> ModelRef:
    """The record of a published network."""
    return ModelRef(builder=OWN, args=network.spec.to_dict())


def _narrower(mine: Mapping[str, int], its: Mapping[str, int]) -> dict[str, int]:
    return {name: width for name, width in mine.items() if width < its[name]}
