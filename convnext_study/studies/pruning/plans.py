"""Which networks are pruned, by which targets, and the runs of their arms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

from convnext_study.data.sources import OF_IMAGES, check_labels
from convnext_study.errors import UserError, did_you_mean
from convnext_study.experiments.context import Context
from convnext_study.experiments.data_identity import expected_size, same_data
from convnext_study.experiments.study_file import with_metadata
from convnext_study.models.builders import ROADMAP_BUILDER, TIMM_BUILDER, check_timm_name
from convnext_study.recipes import make_recipe
from convnext_study.runs.records import ModelRef, Run
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.arm_runs import PrunedModelPlan, arm_runs
from convnext_study.studies.pruning.channel_groups import widths_of
from convnext_study.studies.pruning.costs import Images, untrained
from convnext_study.studies.pruning.prune import STAGE_SHARES
from convnext_study.studies.pruning.published import get_network, networks
from convnext_study.studies.pruning.removal import own_ref
from convnext_study.studies.pruning.spec import VggSpec
from convnext_study.studies.pruning.targets import (
    FROM,
    REDUCED_PENALTY,
    PruningTarget,
    describe_half,
    narrower,
    optional_targets,
    predefined,
    published_targets,
    small_targets,
    transferred_targets,
)
from convnext_study.studies.pruning.trained_weights import PRETRAINED, find_weights

# Ours: VGG-16 at an eighth of its width.
EIGHTH, REDUCTION = "vgg16_eighth", 8
# The scanned digits are 8x8: 16x16 loses nothing.
DIGITS_SIZE, SMALL_SIZE = 16, 32
SLIMMED_ON_IMAGENET = "vgg11-slim-imagenet"  # the authors state its penalty
USUAL_TARGETS = "usual"  # all targets that are not optional
EVERY_ROW = "roadmap"
USUAL = {
    "cifar10": ("vgg16", "resnet56", "vgg19-slim"),
    "cifar100": ("vgg19-slim-c100",),
    "folder": ("resnet34",),
}
NETWORKS = (
    "Networks to prune, comma-separated: roadmap:STEP, roadmap for every row, timm:NAME, "
    f"timm:NAME@{PRETRAINED} or timm:NAME@FILE from trained weights, a published one such as "
    f"resnet56, or {EIGHTH}. (default: depends on the data)"
)
TARGETS = (
    "What to prune, such as half or guided; guided@DATA takes the shares of a network slimmed on "
    f"other data. (default: {USUAL_TARGETS})"
)


def runs_of(context: Context) -> list[Run]:
    """Every arm of every network for every seed, parents before the runs that start from them.

    Raises UserError for data whose images have no class.
    """
    check_labels(context.data, OF_IMAGES)
    plans = requested_plans(context)
    runs: dict[str, Run] = {}  # by key: several targets may start from one prepared network
    for seed in context.seeds:
        candidates = [(plan, run) for plan in plans for run in arm_runs(plan, context.data, seed)]
        chosen = {
            key
            for plan, run in candidates
            if run.metadata["arm"] == of.DENSE or run.metadata["target"] in plan.chosen
            for key in (run.key, run.init_from)
        }
        # A run's place in the order does not depend on the choice.
        for order, (_, run) in enumerate(candidates):
            if run.key in chosen:
                runs.setdefault(run.key, with_metadata(run, order=order))
    return [*runs.values()]


def requested_plans(context: Context) -> list[PrunedModelPlan]:
    """The networks and targets named on the command line, or the usual ones for the data.

    Raises UserError for an unknown name, and what tracing and recipes raise.
    """
    full = _is_full(context)
    usual = USUAL.get(context.data.partition(":")[0], ("vgg16",)) if full else (EIGHTH,)
    rows = [f"{EVERY_ROW}:{row}" for row in context.road.adopted()]
    return [
        _with_chosen(name, context)
        for request in context.networks or usual
        for name in (rows if request == EVERY_ROW else [request])
    ]


def plan_for(name: str, context: Context) -> PrunedModelPlan:
    """The network of that name with every target, optional ones too.

    Raises UserError for an unknown name, and what tracing and recipes raise.
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


def _with_chosen(name: str, context: Context) -> PrunedModelPlan:
    """A network with the targets named on the command line, or its usual ones."""
    plan = plan_for(name, context)
    targets = {target.name: target for target in plan.targets}
    chosen: set[str] = set()
    from_other_data: dict[str, PruningTarget] = {}
    for request in context.targets or (USUAL_TARGETS,):
        if request == USUAL_TARGETS:
            chosen |= {target.name for target in plan.targets if not target.optional}
            continue
        target_name, at, data = request.partition("@")
        if target_name not in targets:
            near = did_you_mean(target_name, [USUAL_TARGETS, *targets])
            raise UserError(f"target: {request!r} of {name}{near}")
        if at and not data:
            raise UserError(
                f"target: {request}: no data after @; use, for example, {target_name}@clutter"
            )
        if not data or same_data(data, context.data):
            chosen.add(target_name)
            continue
        target = _from_other_data(targets[target_name], name, replace(context, data=data))
        if from_other_data.setdefault(target.name, target) != target:
            raise UserError(f"target: {request}: only one data set per kind; start another study")
        chosen.add(target.name)
    every = [*plan.targets, *from_other_data.values()]
    return replace(plan, targets=every, chosen=frozenset(chosen))


def _from_other_data(target: PruningTarget, name: str, context: Context) -> PruningTarget:
    """A guided or transferred target whose shares are those of the network ``name`` slimmed on the
    context's data."""
    if target.method != STAGE_SHARES:
        raise UserError(
            f"target: {target.name}@{context.data}: only guided and transferred architectures can "
            "come from other data; remove the part from @ on"
        )
    check_labels(context.data, OF_IMAGES)
    source_plan = plan_for(name, context)
    source = next(other for other in source_plan.targets if other.name == target.name)
    recipe, scheme = source_plan.schedules.base, context.data.partition(":")[0]
    amount = {**target.amount, "source": asdict(_images(context, recipe.image_size))}
    if "macs" in source.amount:
        amount["macs"] = source.amount["macs"]
    return replace(
        target,
        name=f"{target.name}{FROM}{scheme}",
        label=f"{target.label} (from {scheme})",
        amount=amount,
        sparsity=source.sparsity,
        source=(context.data, recipe),
    )


def _is_full(context: Context) -> bool:
    """Whether to use published networks: on CIFAR, or with the published recipe."""
    recipe = context.recipe
    return recipe == "published" or (recipe != "small" and context.data.startswith("cifar"))


def _images(context: Context, size: int | None) -> Images:
    """The networks' input: the recipe's size or the data's, and the data's classes."""
    dataset, _ = expected_size(context.data)
    return Images(size or dataset.image_size, dataset.classes)


def _schedules(
    context: Context, size: int | None, recipe: str | None, methods: Iterable[str] = ()
) -> tuple[of.Schedules, dict[str, of.Schedules]]:
    """A network's schedules and those of the methods, with the command line's changes: of the
    published ``recipe``, or reduced where it is None."""

    def adapted(schedules: of.Schedules) -> of.Schedules:
        return of.schedules_for(schedules, context.recipe, context.changes, size)

    if recipe is None:
        return adapted(of.REDUCED), {}
    by_method = {method: adapted(of.published(recipe, method)) for method in methods}
    return adapted(of.published(recipe)), by_method


def _published(name: str, context: Context) -> PrunedModelPlan:
    network, full = get_network(name), _is_full(context)
    targets = published_targets(network)
    size = None if full or context.data.startswith("cifar") else network.input
    methods = {target.method for target in targets}
    schedules, by_method = _schedules(context, size, network.recipe if full else None, methods)
    return PrunedModelPlan(
        name.replace("-", "_"),
        network.label,
        own_ref(network.spec),
        schedules,
        targets,
        published=name if full else None,
        by_method=by_method,
    )


def _eighth(context: Context) -> PrunedModelPlan:
    scheme, unpruned = context.data.partition(":")[0], _narrowed("vgg16")
    size = DIGITS_SIZE if scheme == "digits" else SMALL_SIZE if scheme == "folder" else None
    model = own_ref(unpruned)
    schedules, _ = _schedules(context, size, None)
    plan = _plan(EIGHTH, "VGG-16, an eighth as wide", model, schedules, context)
    images = _images(context, schedules.base.image_size)
    widths = narrower(widths_of(_narrowed("vgg16-a")), widths_of(unpruned))
    deeper = untrained(own_ref(_narrowed("vgg19-slim")), images)
    slimming = next(target for target in plan.targets if target.name == "slimming")
    targets = [
        predefined(untrained(model, images), "rule", "rule (L1)", widths),
        *plan.targets,
        *transferred_targets("VGG-19", deeper, slimming),
    ]
    return replace(plan, targets=targets)


def _narrowed(name: str) -> VggSpec:
    spec = get_network(name).spec
    assert isinstance(spec, VggSpec)  # noqa: S101
    widths = tuple(width // REDUCTION if isinstance(width, int) else width for width in spec.widths)
    hidden = tuple(width // REDUCTION for width in spec.hidden)
    return VggSpec(widths=widths, head=spec.head, hidden=hidden)


def _roadmap(step: str, context: Context) -> PrunedModelPlan:
    """A row of the road map, with the road map's recipe."""
    row = context.runs([step])[0]
    base = make_recipe(row.recipe)
    model = ModelRef(builder=ROADMAP_BUILDER, args=row.model.args)
    label, regime = str(row.metadata["label"]), context.road.regime
    label = label if f"-{regime}" in label.lower() else f"{label} ({regime})"
    schedules = of.Schedules(base, of.fine_tuning(base), base.epochs)
    return _plan(f"{regime}_{step}", label, model, schedules, context)


def _timm(request: str, context: Context) -> PrunedModelPlan:
    name, at, weights = request.partition("@")
    recipe = "imagenet" if context.recipe == "published" else None
    size = SMALL_SIZE if context.data.startswith("folder") and recipe is None else None
    schedules, by_method = _schedules(context, size, recipe, ("slimming", "magnitude"))
    penalty = REDUCED_PENALTY
    if recipe is not None:
        by_method["lamp"] = by_method["magnitude"]  # of equal length, to be comparable
        penalty = get_network(SLIMMED_ON_IMAGENET).stated["slimming"]["penalty"]
    side = _images(context, schedules.base.image_size).side
    model = ModelRef(builder=TIMM_BUILDER, args={"name": name, **fixed_size(name, side)})
    plan = _plan(f"timm_{name}".replace(".", "_"), name, model, schedules, context, penalty)
    plan = replace(plan, by_method=by_method)
    if not at:
        return plan
    # Trained weights are not trained again before pruning, and there is nothing to rewind to.
    targets = [
        replace(target, arms=[arm for arm in target.arms if arm not in of.LOTTERY])
        for target in plan.targets
        if not target.sparsity and target.rounds == 1
    ]
    trained = find_weights(model, weights)
    name, label = f"{plan.name}_{trained.short}", f"{plan.label}@{trained.short}"
    return replace(plan, name=name, label=label, targets=targets, trained=trained)


def fixed_size(name: str, side: int) -> dict[str, int]:
    """The ``img_size`` argument of a network built for another fixed size, else nothing."""
    import timm

    check_timm_name(name)
    cfg = timm.get_pretrained_cfg(name)
    is_fixed = cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != side
    return {"img_size": side} if is_fixed else {}


def _plan(
    name: str,
    label: str,
    model: ModelRef,
    schedules: of.Schedules,
    context: Context,
    penalty: float = REDUCED_PENALTY,
) -> PrunedModelPlan:
    """A plan with the targets of any network, optional ones too.

    ``penalty`` is network slimming's. Raises UserError as `describe_half` does.
    """
    unpruned = untrained(model, _images(context, schedules.base.image_size))
    half = describe_half(label, unpruned)
    usual = small_targets(unpruned, penalty)
    optional = optional_targets([target for target in usual if target.name == "slimming"])
    caveat = half if model.builder == TIMM_BUILDER else ""
    return PrunedModelPlan(name, label, model, schedules, usual + optional, caveat=caveat)
