"""Which networks are pruned, what is pruned of each, and the runs of its arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from convnext_study.data.sources import OF_IMAGES, check_labels
from convnext_study.errors import UserError, did_you_mean
from convnext_study.experiments.context import Context
from convnext_study.experiments.data_identity import expected_size, same_data
from convnext_study.experiments.study_file import with_metadata
from convnext_study.models.builders import ROADMAP_BUILDER, TIMM_BUILDER
from convnext_study.recipes import make_recipe
from convnext_study.runs.records import NETWORK_IS_BOUND, ModelRef, Run, TaskRef
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.channel_groups import widths_of
from convnext_study.studies.pruning.costs import Images, scratch_b_epochs
from convnext_study.studies.pruning.methods.selection import factored_ref
from convnext_study.studies.pruning.prune import STAGE_SHARES
from convnext_study.studies.pruning.published import get_network, networks
from convnext_study.studies.pruning.removal import OWN
from convnext_study.studies.pruning.spec import VggSpec
from convnext_study.studies.pruning.targets import (
    FROM,
    PruningTarget,
    narrower,
    optional_targets,
    predefined,
    published_targets,
    ref_of,
    small_targets,
    transferred_targets,
)
from convnext_study.studies.pruning.tasks import ARM_TASK, SPARSE_TASK

STUDY = "pruning"
# Ours: VGG-16 an eighth as wide.
EIGHTH, REDUCTION = "vgg16_eighth", 8
# The scans of digits are 8x8: at 16x16 nothing of them is lost.
DIGITS_SIZE, SMALL_SIZE = 16, 32
USUALLY = "usual"  # all targets that are not optional
EVERY_ROW = "roadmap"
USUAL = {
    "cifar10": ("vgg16", "resnet56", "vgg19-slim"),
    "cifar100": ("vgg19-slim-c100",),
    "folder": ("resnet34",),
}
NETWORKS = (
    "Which networks are pruned, comma-separated: roadmap:STEP, roadmap for every row, timm:NAME, "
    f"a published one such as resnet56, or {EIGHTH}. (default: the data's)"
)
TARGETS = (
    "What is pruned of them, such as half or guided; guided@DATA by shares of a network slimmed on "
    f"other data. (default: {USUALLY})"
)


@dataclass(frozen=True)
class PrunedModelPlan:
    """A network, how it is trained, and what can be pruned of it.

    ``chosen`` are the names of the targets that are trained.
    """

    name: str
    label: str
    model: ModelRef
    schedules: of.Schedules
    targets: Sequence[PruningTarget]
    published: str | None = None
    chosen: frozenset[str] = frozenset()


def runs_of(context: Context) -> list[Run]:
    """Every arm of every network for every seed, parents before what starts from them.

    Raises UserError for data whose images have no class.
    """
    check_labels(context.data, OF_IMAGES)
    plans = requested_plans(context)
    firsts: dict[str, Run] = {}  # several targets may start from one prepared network
    for seed in context.seeds:
        order = 0
        for plan in plans:
            runs = []
            for run in _arms(plan, context.data, seed):
                runs.append(with_metadata(run, order=order))
                order += 1
            # The network itself, the arms of the chosen targets, and all that they start from.
            wanted: set[str] = set()
            for run in reversed(runs):
                target, arm = run.metadata["target"], run.metadata["arm"]
                if run.key in wanted or arm == of.DENSE or target in plan.chosen:
                    wanted |= {run.key, run.init_from or run.key}
            for run in runs:
                if run.key in wanted:
                    firsts.setdefault(run.key, run)
    return [*firsts.values()]


def requested_plans(context: Context) -> list[PrunedModelPlan]:
    """The networks and targets that the command line names, or the data's usual ones.

    Raises UserError for a name that is unknown, and what tracing and recipes raise.
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


def _with_chosen(name: str, context: Context) -> PrunedModelPlan:
    """A network with the targets that the command line names, or its usual ones."""
    plan = plan_for(name, context)
    known = {target.name: target for target in plan.targets}
    chosen: set[str] = set()
    further: dict[str, PruningTarget] = {}
    for request in context.targets or (USUALLY,):
        if request == USUALLY:
            chosen |= {target.name for target in plan.targets if not target.optional}
            continue
        plain, at, data = request.partition("@")
        if plain not in known:
            near = did_you_mean(plain, [USUALLY, *known])
            raise UserError(f"target: {request!r} of {name}{near}")
        if at and not data:
            raise UserError(f"target: {request}: no data after @, such as {plain}@clutter")
        if not data or same_data(data, context.data):
            chosen.add(plain)
            continue
        target = _from_other_data(known[plain], name, replace(context, data=data))
        if further.setdefault(target.name, target) != target:
            raise UserError(f"target: {request}: one data set of a kind; start another study")
        chosen.add(target.name)
    return replace(plan, targets=[*plan.targets, *further.values()], chosen=frozenset(chosen))


def _from_other_data(target: PruningTarget, name: str, context: Context) -> PruningTarget:
    """A guided or transferred target of the network ``name`` with the shares that it has as it is
    slimmed on the context's data."""
    if target.method != STAGE_SHARES:
        raise UserError(
            f"target: {target.name}@{context.data}: only guided and transferred architectures can "
            "come from other data; leave the part from @ on"
        )
    check_labels(context.data, OF_IMAGES)
    there = plan_for(name, context)
    same = next(one for one in there.targets if one.name == target.name)
    recipe, scheme = there.schedules.base, context.data.partition(":")[0]
    amount = {**target.amount, "source": asdict(_images(context, recipe.image_size))}
    if "macs" in same.amount:
        amount["macs"] = same.amount["macs"]
    return replace(
        target,
        name=f"{target.name}{FROM}{scheme}",
        label=f"{target.label} (from {scheme})",
        amount=amount,
        sparsity=same.sparsity,
        source=(context.data, recipe),
    )


def _is_full(context: Context) -> bool:
    """Whether published networks are meant: on CIFAR, or as the recipe asks."""
    recipe = context.recipe
    return recipe == "published" or (recipe != "small" and context.data.startswith("cifar"))


def _images(context: Context, size: int | None) -> Images:
    """What the networks see: the recipe's size or the data's, and the data's classes."""
    sizes, _ = expected_size(context.data)
    return Images(size or sizes.image_size, sizes.classes)


def _published(name: str, context: Context) -> PrunedModelPlan:
    network, usual = get_network(name), of.REDUCED
    if full := _is_full(context):
        usual = of.published("cifar" if network.input == 32 else "imagenet")
        # As long as the training by which the published Scratch-B epochs are counted.
        of_it = [one for one in networks().values() if one.of == name]
        usual = replace(usual, base=of.with_epochs(usual.base, (*of_it, network)[0].base_epochs))
    size = None if full or context.data.startswith("cifar") else network.input
    return PrunedModelPlan(
        name.replace("-", "_"),
        network.label,
        ref_of(network),
        of.schedules_for(usual, context.recipe, context.changes, size),
        published_targets(network),
        published=name if full else None,
    )


def _eighth(context: Context) -> PrunedModelPlan:
    small, whole = context.data.partition(":")[0], _narrowed("vgg16")
    size = DIGITS_SIZE if small == "digits" else SMALL_SIZE if small == "folder" else None
    model = ModelRef(builder=OWN, args=whole.to_dict())
    schedules = of.schedules_for(of.REDUCED, context.recipe, context.changes, size)
    plan = _plan(EIGHTH, "VGG-16, an eighth as wide", model, schedules, context)
    images = _images(context, schedules.base.image_size)
    widths = narrower(widths_of(_narrowed("vgg16-a")), widths_of(whole))
    deeper = ModelRef(builder=OWN, args=_narrowed("vgg19-slim").to_dict())
    slimming = next(target for target in plan.targets if target.name == "slimming")
    targets = [
        predefined(model, images, "rule", "rule (L1)", widths, of.ALL),
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
    return _plan(
        f"{regime}_{step}", label, model, of.Schedules(base, of.fine_tuning(base)), context
    )


def _timm(name: str, context: Context) -> PrunedModelPlan:
    usual = of.published("imagenet") if context.recipe == "published" else of.REDUCED
    size = SMALL_SIZE if context.data.startswith("folder") and usual is of.REDUCED else None
    schedules = of.schedules_for(usual, context.recipe, context.changes, size)
    model = ModelRef(builder=TIMM_BUILDER, args={"name": name})
    return _plan(f"timm_{name}".replace(".", "_"), name, model, schedules, context)


def _plan(
    name: str, label: str, model: ModelRef, schedules: of.Schedules, context: Context
) -> PrunedModelPlan:
    """With what is pruned of any network, and what it can be asked for besides."""
    images = _images(context, schedules.base.image_size)
    usual = small_targets(model, images)
    optional = optional_targets([one for one in usual if one.name == "slimming"])
    return PrunedModelPlan(name, label, model, schedules, usual + optional)


def _arms(plan: PrunedModelPlan, data: str, seed: int) -> Iterator[Run]:
    """The network's own runs, then of each target what prepares it and its arms."""
    dense = _dense(plan, of.DENSE, data, seed)
    yield dense
    slow: Run | None = None
    for target in plan.targets:
        parent = dense
        if target.sparsity:
            parent = _sparse(plan, target, dense)
            yield parent
        if slow is None and {*target.arms} & {*of.SLOW_ARMS}:
            slow = _dense(plan, of.SLOW_DENSE, data, seed)
            yield slow
        for number in range(1, target.rounds):
            parent = _arm(plan, target, of.ROUNDS[number - 1], parent, data)
            yield parent
        for arm in target.arms:
            start = slow if arm in of.SLOW_ARMS and slow else parent
            yield _arm(plan, target, arm, start, data)


def _dense(plan: PrunedModelPlan, arm: str, data: str, seed: int) -> Run:
    return Run(
        study=STUDY,
        name=f"{plan.name}-{arm}",
        model=plan.model,
        recipe=plan.schedules.recipe(arm, 0).model_dump(mode="json"),
        data=data,
        seed=seed,
        metadata=_about(plan, arm, of.LABELS[arm]),
    )


def _sparse(plan: PrunedModelPlan, target: PruningTarget, dense: Run) -> Run:
    """The large network, trained so that the target's method can prune it."""
    label = f"{target.label}: {of.LABELS[of.SPARSE_DENSE]}"
    changes: dict[str, Any] = {
        "name": f"{plan.name}-{target.name}-dense",
        "model": factored_ref(plan.model) if "selection" in target.sparsity else plan.model,
        "task": TaskRef(name=SPARSE_TASK, args=dict(target.sparsity)),
        "metadata": _about(plan, of.SPARSE_DENSE, label, target),
    }
    if target.from_trained:
        changes["init_from"] = dense.key
    if target.source is not None:
        data, recipe = target.source
        changes |= {"data": data, "recipe": recipe.model_dump(mode="json")}
        changes["metadata"][of.OF_OTHER_DATA] = True
    return dense.model_copy(update=changes)


def _arm(plan: PrunedModelPlan, target: PruningTarget, arm: str, parent: Run, data: str) -> Run:
    base = plan.schedules.base
    as_costly = scratch_b_epochs(*target.budgets, base.epochs, capped=target.capped)
    changes: dict[str, Any] = {
        "name": f"{plan.name}-{target.name}-{arm}",
        "data": data,
        "recipe": plan.schedules.recipe(arm, as_costly).model_dump(mode="json"),
        "metadata": _about(plan, arm, f"{target.label}: {of.LABELS[arm]}", target),
        "model": target.model or target.design or plan.model,
    }
    weights = target.between if arm in of.ROUNDS else of.WEIGHTS.get(arm, "random")
    if target.model is not None and weights == "random":  # needs no trained network
        return parent.model_copy(update={**changes, "task": TaskRef()})
    if target.is_masked and arm == of.SCRATCH_E:
        weights = "redrawn"
    args = {"method": target.method, "weights": weights, **target.amount}
    if target.is_decided_by_parent:
        changes["metadata"][NETWORK_IS_BOUND] = True
        if arm == of.SCRATCH_B:  # the parent's architecture says how long that is
            args["length"] = "scratch_b"
    task = TaskRef(name=ARM_TASK, args=args)
    return parent.model_copy(update={**changes, "task": task, "init_from": parent.key})


def _about(
    plan: PrunedModelPlan, arm: str, label: str, target: PruningTarget | None = None
) -> dict[str, Any]:
    return {
        "regime": STUDY,
        "network": plan.name,
        "network_label": plan.label,
        "target": target.name if target else "",
        "target_label": target.label if target else "",
        # By which the figure joins points; of another network than this none are.
        "method": target.method if target and not (target.control or target.design) else "",
        "arm": arm,
        "label": label,
        "adopted": True,
        "parent": None,  # arms differ in recipe and task: the study's own table compares them
        "section": plan.label,
        "published": False,
        "published_network": (target.published if target else plan.published) or "",
    }
