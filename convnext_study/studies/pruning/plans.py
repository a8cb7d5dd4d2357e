"""Which networks are pruned, how each is trained, and what is pruned of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convnext_study.data.labels import OF_IMAGES, check_labels
from convnext_study.errors import UserError, did_you_mean
from convnext_study.experiments.context import Context
from convnext_study.experiments.data_identity import same_data
from convnext_study.experiments.dataset_size import expected_size
from convnext_study.models.builders import ROADMAP_BUILDER, TIMM_BUILDER
from convnext_study.recipes import make_recipe
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.arm_names import ALL
from convnext_study.studies.pruning.builders import OWN
from convnext_study.studies.pruning.channel_groups import widths_of
from convnext_study.studies.pruning.costs import Images
from convnext_study.studies.pruning.published import get_network, networks
from convnext_study.studies.pruning.schedules import (
    REDUCED,
    Schedules,
    fine_tuning,
    published,
    schedules_for,
    with_epochs,
)
from convnext_study.studies.pruning.specs import VggSpec
from convnext_study.studies.pruning.targets import (
    PruningTarget,
    from_other_data,
    narrower,
    optional_targets,
    predefined,
    published_targets,
    ref_of,
    small_targets,
    transferred_targets,
)

# Ours: VGG-16 an eighth as wide.
EIGHTH, REDUCTION = "vgg16_eighth", 8
# The scans of digits are 8x8: at 16x16 nothing of them is lost.
DIGITS_SIZE, SMALL_SIZE = 16, 32
# Of network slimming. It moves a scale by about penalty * sum of rates / (1 - momentum): the
# paper's 1e-4 by 6.6 over 160 epochs of CIFAR, and here, where the rates add up to 11, 0.01 by 1.1
# at most. By pilots 0.03 destroys training.
REDUCED_PENALTY = 0.01
USUALLY = "usual"  # all targets that are not optional
EVERY_ROW = "roadmap"
USUAL = {
    "cifar10": ("vgg16", "resnet56", "vgg19-slim"),
    "cifar100": ("vgg19-slim-c100",),
    "folder": ("resnet34",),
}
NETWORKS = (
    "Which networks are pruned, comma-separated: roadmap:STEP, roadmap for every row, timm:NAME, "
    f"a published one such as resnet56, or {EIGHTH}; each with what is pruned, such as "
    f"{EIGHTH}=usual+rounds, and with guided@DATA or transferred@DATA by shares of a network "
    "slimmed on other data. "
    "(default: the data's)"
)


@dataclass(frozen=True)
class PrunedModelPlan:
    """A network, how it is trained, and what is pruned of it.

    ``chosen`` are the names of the targets that are trained.
    """

    name: str
    label: str
    model: ModelRef
    schedules: Schedules
    targets: Sequence[PruningTarget]
    published: str | None = None
    chosen: frozenset[str] = frozenset()


def parse_networks(context: Context) -> list[PrunedModelPlan]:
    """Those that the command line names, or the data's usual ones.

    Raises UserError for a network that is unknown, and what tracing and recipes raise.
    """
    full = _is_full(context)
    usual = USUAL.get(context.data.partition(":")[0], ("vgg16",)) if full else (EIGHTH,)
    found = []
    for request in context.networks or usual:
        name, equals, rest = request.strip().partition("=")
        rows = context.road.adopted() if name == EVERY_ROW else ()
        names = [f"{EVERY_ROW}:{row}" for row in rows] or [name]
        found += [_choose(f"{one}{equals}{rest}", context) for one in names]
    return found


def plan_for(name: str, context: Context) -> PrunedModelPlan:
    """The network of that name, with everything that can be pruned of it.

    Raises UserError for a name that is unknown, and what tracing and recipes raise.
    """
    kind, _, rest = name.partition(":")
    if name == EIGHTH:
        return _eighth(context)
    if kind == "roadmap" and rest:
        return _roadmap(rest, context)
    if kind == "timm" and rest:
        return _timm(rest, context)
    if name in networks():
        return _published(name, context)
    known = [EIGHTH, "roadmap:STEP", "timm:NAME", *networks()]
    raise UserError(f"networks: {name!r}{did_you_mean(name, known)}")


def _choose(request: str, context: Context) -> PrunedModelPlan:
    """A network with what follows its name: targets, or its usual ones."""
    name, _, rest = request.partition("=")
    plan = plan_for(name, context)
    known = {target.name: target for target in plan.targets}
    chosen: set[str] = set()
    further: dict[str, PruningTarget] = {}
    for one in rest.split("+") if rest else (USUALLY,):
        plain, at, data = one.partition("@")
        if one == USUALLY:
            chosen |= {target.name for target in plan.targets if not target.optional}
            continue
        if plain not in known:
            raise UserError(f"networks: {request}: {one!r}{did_you_mean(plain, [USUALLY, *known])}")
        if at and not data:
            raise UserError(f"networks: {request}: no data after @, such as {plain}@clutter")
        if not data or same_data(data, context.data):
            chosen.add(plain)
        else:
            target = _from_other_data(known[plain], name, replace(context, data=data))
            if further.setdefault(target.name, target) != target:
                raise UserError(f"networks: {request}: one data set of a kind; start another study")
            chosen.add(target.name)
    return replace(plan, targets=[*plan.targets, *further.values()], chosen=frozenset(chosen))


def _from_other_data(target: PruningTarget, name: str, context: Context) -> PruningTarget:
    """The target with the shares of the network ``name`` as it is slimmed on the context's data."""
    check_labels(context.data, OF_IMAGES)
    there = plan_for(name, context)
    same = next(one for one in there.targets if one.name == target.name)
    recipe = there.schedules.base
    images = _images(context, recipe.image_size)
    return from_other_data(target, same, (context.data, recipe), images)


def _is_full(context: Context) -> bool:
    """Whether published networks are meant: on CIFAR, or as the recipe asks."""
    recipe = context.recipe
    return recipe == "published" or (recipe != "small" and context.data.startswith("cifar"))


def _images(context: Context, size: int | None) -> Images:
    """What the networks see: the recipe's size or the data's, and the data's classes."""
    sizes, _ = expected_size(context.data)
    return Images(size or sizes.image_size, sizes.classes)


def _published(name: str, context: Context) -> PrunedModelPlan:
    network, usual = get_network(name), REDUCED
    if full := _is_full(context):
        usual = published("cifar" if network.input == 32 else "imagenet")
        # As long as the training by which the published Scratch-B epochs are counted.
        of = [one for one in networks().values() if one.of == name]
        usual = replace(usual, base=with_epochs(usual.base, (*of, network)[0].base_epochs))
    size = None if full or context.data.startswith("cifar") else network.input
    return PrunedModelPlan(
        name.replace("-", "_"),
        network.label,
        ref_of(network),
        schedules_for(usual, context.recipe, context.changes, size),
        published_targets(network),
        published=name if full else None,
    )


def _eighth(context: Context) -> PrunedModelPlan:
    small, whole = context.data.partition(":")[0], _narrowed("vgg16")
    size = DIGITS_SIZE if small == "digits" else SMALL_SIZE if small == "folder" else None
    model = ModelRef(builder=OWN, args=whole.to_dict())
    schedules = schedules_for(REDUCED, context.recipe, context.changes, size)
    plan = _plan(EIGHTH, "VGG-16, an eighth as wide", model, schedules, context)
    images = _images(context, schedules.base.image_size)
    widths = narrower(widths_of(_narrowed("vgg16-a")), widths_of(whole))
    deeper = ModelRef(builder=OWN, args=_narrowed("vgg19-slim").to_dict())
    slimming = next(target for target in plan.targets if target.name == "slimming")
    targets = [
        predefined(model, images, "rule", "rule (L1)", widths, ALL),
        *plan.targets,
        *transferred_targets("VGG-19", deeper, images, slimming),
    ]
    return replace(plan, targets=targets)


def _narrowed(name: str) -> VggSpec:
    spec = get_network(name).spec
    assert isinstance(spec, VggSpec)  # noqa: S101
    widths = tuple(width // REDUCTION if isinstance(width, int) else width for width in spec.widths)
    hidden = tuple(width // REDUCTION for width in spec.hidden)
    return VggSpec(widths=widths, head=spec.head, hidden=hidden)


def _roadmap(step: str, context: Context) -> PrunedModelPlan:
    """A row of the road map, trained as the road map trains it."""
    row = context.runs([step])[0]
    base = make_recipe(row.recipe)
    model = ModelRef(builder=ROADMAP_BUILDER, args=row.model.args)
    label, regime = str(row.metadata["label"]), context.road.regime
    label = label if f"-{regime}" in label.lower() else f"{label} ({regime})"
    return _plan(f"{regime}_{step}", label, model, Schedules(base, fine_tuning(base)), context)


def _timm(name: str, context: Context) -> PrunedModelPlan:
    usual = published("imagenet") if context.recipe == "published" else REDUCED
    size = SMALL_SIZE if context.data.startswith("folder") and usual is REDUCED else None
    schedules = schedules_for(usual, context.recipe, context.changes, size)
    model = ModelRef(builder=TIMM_BUILDER, args={"name": name})
    return _plan(f"timm_{name}".replace(".", "_"), name, model, schedules, context)


def _plan(
    name: str, label: str, model: ModelRef, schedules: Schedules, context: Context
) -> PrunedModelPlan:
    """With what is pruned of any network, and what it can be asked for besides."""
    images = _images(context, schedules.base.image_size)
    usual = small_targets(model, images, penalty=REDUCED_PENALTY)
    optional = optional_targets([one for one in usual if one.name == "slimming"])
    return PrunedModelPlan(name, label, model, schedules, usual + optional)
