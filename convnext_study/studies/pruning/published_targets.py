"""What is pruned of the published networks: the published widths and ratios."""

from __future__ import annotations

from collections.abc import Mapping

from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.apply import OWN
from convnext_study.studies.pruning.arm_names import (
    FINE_TUNED,
    INHERITED,
    LOTTERY,
    SCRATCH_B,
    SCRATCH_E,
)
from convnext_study.studies.pruning.decide import SELECTION
from convnext_study.studies.pruning.networks.wiring import widths_of
from convnext_study.studies.pruning.optional_targets import optional_targets, transferred_targets
from convnext_study.studies.pruning.published import (
    PublishedNetwork,
    get_network,
    networks,
    results,
    tables,
)
from convnext_study.studies.pruning.sizes import Images, size_of
from convnext_study.studies.pruning.specs import PreActSpec
from convnext_study.studies.pruning.targets import Target


def published_targets(whole: PublishedNetwork) -> list[Target]:
    """The published networks that were pruned from this one, and the stated automatic ratios.

    How long Scratch-B is after an automatic method, the trained network says (`tasks.Arm`).
    """
    model = ref_of(whole)
    images = Images(whole.input, whole.classes)
    arms = (FINE_TUNED, INHERITED, SCRATCH_E, SCRATCH_B)
    found = [
        Target(
            one.name,
            one.label,
            method or "published widths",
            {"widths": _narrower(widths_of(one.spec), widths_of(whole.spec))} if method else {},
            arms if method else (SCRATCH_E, SCRATCH_B),
            model=ref_of(one),
            ratio=size_of(model, images).budget / size_of(ref_of(one), images).budget,
            capped=one.is_capped,
            published=one.name,
        )
        for one in networks().values()
        if one.of == whole.name and _methods(one) and _are_alike(one, whole)
        for method in [_predefined_method(one)]
    ]
    if isinstance(whole.spec, PreActSpec):
        penalty = tables()["recipe"]["sparse_structure_selection"]["factor"]["gamma"]
        found.append(
            Target(
                "selection",
                "structure selection",
                SELECTION,
                {},
                arms,
                sparsity={"selection": penalty},
            )
        )
    stem = whole.name.removesuffix("-c100").removesuffix("-slim")
    slimming = tables()["recipe"]["slimming"]
    ratios = slimming["ratio"]["cifar100" if whole.classes == 100 else "cifar10"].get(stem, ())
    slimmed = [
        Target(
            f"slim_{ratio * 100:.0f}",
            f"slimmed {ratio:.0%}",
            "slimming",
            {"ratio": ratio},
            arms,
            sparsity={"slimming": slimming["penalty"][stem]},
        )
        for ratio in ratios
    ]
    found += slimmed
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
    return [*found, *optional_targets(slimmed), *_transferred(whole)]


def _transferred(whole: PublishedNetwork) -> list[Target]:
    """VGG-19 by the shares of VGG-16, as the paper has it. The ratio at which VGG-16 is slimmed was
    not found: VGG-19's is taken."""
    if whole.name != "vgg16":
        return []
    vgg19 = get_network("vgg19-slim")
    slimming = tables()["recipe"]["slimming"]
    slimmed = Target(
        "slimming",
        "slimmed",
        "slimming",
        {"ratio": slimming["ratio"]["cifar10"]["vgg19"][0]},
        (),
        sparsity={"slimming": slimming["penalty"]["vgg19"]},
    )
    return transferred_targets("VGG-19", ref_of(vgg19), Images(whole.input, whole.classes), slimmed)


def _methods(network: PublishedNetwork) -> set[str]:
    """By which a published network was pruned, as far as accuracies of it are known."""
    sources = (*results(network.name), *results(network.name, of_paper=False))
    return {result["method"] for result in sources}


def _predefined_method(network: PublishedNetwork) -> str | None:
    """Which of them takes widths that were set beforehand; of others the widths alone are known."""
    known = ("l1-norm", "thinet", "regression")
    return next((one for one in known if one in _methods(network)), None)


def _are_alike(network: PublishedNetwork, whole: PublishedNetwork) -> bool:
    return widths_of(network.spec).keys() == widths_of(whole.spec).keys()


def ref_of(network: PublishedNetwork) -> ModelRef:
    """The record of a published network."""
    return ModelRef(builder=OWN, args=network.spec.to_dict())


def _narrower(mine: Mapping[str, int], its: Mapping[str, int]) -> dict[str, int]:
    return {name: width for name, width in mine.items() if width < its[name]}


def base_epochs_of(whole: PublishedNetwork) -> int:
    """Of a whole network's training, by which the published Scratch-B epochs are counted."""
    return next(
        (one.base_epochs for one in networks().values() if one.of == whole.name), whole.base_epochs
    )
