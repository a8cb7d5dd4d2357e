"""A network that is pruned, by its name: how it is trained, and what is pruned of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convnext_study.errors import UserError, did_you_mean
from convnext_study.experiments.context import Context
from convnext_study.experiments.dataset_size import expected_size
from convnext_study.models.builders import ROADMAP_BUILDER, TIMM_BUILDER
from convnext_study.recipes import make_recipe
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.apply import OWN
from convnext_study.studies.pruning.networks.wiring import widths_of
from convnext_study.studies.pruning.optional_targets import optional_targets, transferred_targets
from convnext_study.studies.pruning.published import PublishedNetwork, get_network, networks
from convnext_study.studies.pruning.published_targets import (
    base_epochs_of,
    published_targets,
    ref_of,
)
from convnext_study.studies.pruning.schedules import (
    REDUCED,
    Schedules,
    fine_tuning,
    published,
    schedules_for,
    with_epochs,
)
from convnext_study.studies.pruning.sizes import Images
from convnext_study.studies.pruning.specs import VggSpec
from convnext_study.studies.pruning.targets import Target, rule_target, small_targets

# Ours: VGG-16 an eighth as wide.
EIGHTH, REDUCTION = "vgg16_eighth", 8
# The scans of digits are 8x8: at 16x16 nothing of them is lost.
DIGITS_SIZE, SMALL_SIZE = 16, 32
# Of network slimming. It moves a scale by about penalty * sum of rates / (1 - momentum): the
# paper's 1e-4 by 6.6 over 160 epochs of CIFAR, and here, where the rates add up to 11, 0.01 by 1.1
# at most. By pilots 0.03 destroys training.
REDUCED_PENALTY = 0.01


@dataclass(frozen=True)
class Subject:
    """A network, how it is trained, and what is pruned of it.

    ``chosen`` are the names of the targets that are trained.
    """

    name: str
    label: str
    model: ModelRef
    schedules: Schedules
    targets: Sequence[Target]
    published: str | None = None
    chosen: frozenset[str] = frozenset()


def is_full(data: str, recipe: str | None) -> bool:
    """Whether published networks are meant: on CIFAR, or as ``recipe`` asks."""
    return recipe == "published" or (recipe != "small" and data.startswith("cifar"))


def subject_of(name: str, context: Context) -> Subject:
    """The network of that name, with everything that can be pruned of it.

    Raises UserError for a name that is unknown, and what tracing and recipes raise.
    """
    full = is_full(context.data, context.recipe)
    kind, _, rest = name.partition(":")
    if name == EIGHTH:
        return _eighth(context)
    if kind == "roadmap" and rest:
        return _roadmap(rest, context)
    if kind == "timm" and rest:
        model = ModelRef(builder=TIMM_BUILDER, args={"name": rest})
        usual = published("imagenet") if context.recipe == "published" else REDUCED
        return _other(f"timm_{rest}".replace(".", "_"), rest, model, usual, context)
    known = [EIGHTH, "roadmap:STEP", "timm:NAME", *networks()]
    if name not in networks():
        raise UserError(f"networks: {name!r}{did_you_mean(name, known)}")
    return _published(name, context, full)


def images_of(context: Context, size: int | None) -> Images:
    """What the networks see: the recipe's size or the data's, and the data's classes."""
    sizes, _ = expected_size(context.data)
    return Images(size or sizes.image_size, sizes.classes)


def _published(name: str, context: Context, full: bool) -> Subject:
    network = get_network(name)
    usual = _published_schedules(network) if full else REDUCED
    size = None if full or context.data.startswith("cifar") else network.input
    schedules = schedules_for(usual, context.recipe, context.changes, size)
    return Subject(
        name.replace("-", "_"),
        network.label,
        ref_of(network),
        schedules,
        published_targets(network),
        published=name if full else None,
    )


def _published_schedules(network: PublishedNetwork) -> Schedules:
    usual = published("cifar" if network.input == 32 else "imagenet")
    return Schedules(with_epochs(usual.base, base_epochs_of(network)), usual.fine_tune)


def _eighth(context: Context) -> Subject:
    small = context.data.partition(":")[0]
    size = DIGITS_SIZE if small == "digits" else SMALL_SIZE if small == "folder" else None
    schedules = schedules_for(REDUCED, context.recipe, context.changes, size)
    images = images_of(context, schedules.base.image_size)
    whole = _narrowed("vgg16")
    model = ModelRef(builder=OWN, args=whole.to_dict())
    rule, all_widths = widths_of(_narrowed("vgg16-a")), widths_of(whole)
    widths = {layer: width for layer, width in rule.items() if width < all_widths[layer]}
    targets = [
        rule_target("rule", "rule (L1)", widths, model, images),
        *_targets(model, images),
    ]
    deeper = ModelRef(builder=OWN, args=_narrowed("vgg19-slim").to_dict())
    targets += transferred_targets("VGG-19", deeper, images, _slimmed(targets)[0])
    return Subject(EIGHTH, "VGG-16, an eighth as wide", model, schedules, targets)


def _narrowed(name: str) -> VggSpec:
    spec = get_network(name).spec
    assert isinstance(spec, VggSpec)  # noqa: S101
    widths = tuple(width // REDUCTION if isinstance(width, int) else width for width in spec.widths)
    return VggSpec(
        widths=widths, head=spec.head, hidden=tuple(width // REDUCTION for width in spec.hidden)
    )


def _roadmap(step: str, context: Context) -> Subject:
    """A row of the road map, trained as the road map trains it."""
    row = context.runs([step])[0]
    base = make_recipe(row.recipe)
    model = ModelRef(builder=ROADMAP_BUILDER, args=row.model.args)
    label, regime = str(row.metadata["label"]), context.road.regime
    label = label if f"-{regime}" in label.lower() else f"{label} ({regime})"
    schedules = Schedules(base, fine_tuning(base))
    images = images_of(context, base.image_size)
    targets = _targets(model, images)
    return Subject(f"{context.road.regime}_{step}", label, model, schedules, targets)


def _other(name: str, label: str, model: ModelRef, usual: Schedules, context: Context) -> Subject:
    size = SMALL_SIZE if context.data.startswith("folder") and usual is REDUCED else None
    schedules = schedules_for(usual, context.recipe, context.changes, size)
    images = images_of(context, schedules.base.image_size)
    return Subject(name, label, model, schedules, _targets(model, images))


def _targets(model: ModelRef, images: Images) -> list[Target]:
    """What is pruned of any network, and what it can be asked for besides."""
    usual = small_targets(model, images, penalty=REDUCED_PENALTY)
    return usual + optional_targets(_slimmed(usual))


def _slimmed(targets: Sequence[Target]) -> list[Target]:
    return [one for one in targets if one.name == "slimming"]
