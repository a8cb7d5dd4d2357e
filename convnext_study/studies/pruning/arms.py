"""The arms as runs: which weights, which schedule, and which run each starts from.

| arm | weights | epochs |
|---|---|---|
| dense | random | the base recipe's, E |
| fine_tuned | inherited | few, at a small constant rate |
| inherited | inherited | E, the whole schedule |
| scratch_e | random | E |
| scratch_b | random | as many as cost what the dense training cost |
| scratch_t | random | as many as cost the dense training and E epochs of the pruned network |
| ticket, control | rewound, other random ones | E, under the trained network's mask |
| round_1, round_2, ... | rewound or inherited | E, under the mask of the round before and more |
| slow_ticket, slow_control | the same | all of it at a tenth of the rate, the dense training too |

Scratch-T and the second factor, inherited weights with the whole schedule, are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from convnext_study.data.labels import OF_IMAGES, check_labels
from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import with_metadata
from convnext_study.recipes import Recipe
from convnext_study.runs.records import NETWORK_IS_BOUND, Run, TaskRef
from convnext_study.studies.pruning import arm_names as of
from convnext_study.studies.pruning.builders import factored_ref
from convnext_study.studies.pruning.costs import CAP
from convnext_study.studies.pruning.plans import PrunedModelPlan, parse_networks
from convnext_study.studies.pruning.schedules import with_epochs
from convnext_study.studies.pruning.targets import PruningTarget
from convnext_study.studies.pruning.tasks import ARM_TASK, SPARSE_TASK

STUDY = "pruning"
SLOWER = 10  # the second pair of tickets, by which the rate is divided


def runs_of(context: Context) -> list[Run]:
    """Every arm of every network for every seed, parents before what starts from them.

    Raises UserError for data whose images have no class.
    """
    check_labels(context.data, OF_IMAGES)
    plans = parse_networks(context)
    firsts: dict[str, Run] = {}  # several targets may start from one prepared network
    for seed in context.seeds:
        order = 0
        for plan in plans:
            own = []
            for run in _of_plan(plan, context.data, seed):
                own.append(with_metadata(run, order=order))
                order += 1
            for run in _chosen(own, plan.chosen):
                firsts.setdefault(run.key, run)
    return [*firsts.values()]


def _chosen(runs: list[Run], targets: Collection[str]) -> list[Run]:
    """The network itself, the arms of these targets, and all that they start from."""
    wanted: set[str] = set()
    for run in reversed(runs):
        about = run.metadata
        if run.key in wanted or about["arm"] == of.DENSE or about["target"] in targets:
            wanted |= {run.key, run.init_from or run.key}
    return [run for run in runs if run.key in wanted]


def _of_plan(plan: PrunedModelPlan, data: str, seed: int) -> Iterator[Run]:
    dense = _dense(plan, data, seed)
    yield dense
    slow: Run | None = None
    for target in plan.targets:
        parent = dense
        if target.sparsity:
            parent = _sparse(plan, target, dense)
            yield parent
        if slow is None and set(target.arms) & set(of.SLOW_ARMS):
            slow = _dense(plan, data, seed, slow=True)
            yield slow
        for number in range(1, target.rounds):
            parent = _arm(plan, target, of.ROUNDS[number - 1], parent, data)
            yield parent
        for arm in target.arms:
            start = slow if arm in of.SLOW_ARMS and slow else parent
            yield _arm(plan, target, arm, start, data)


def _dense(plan: PrunedModelPlan, data: str, seed: int, *, slow: bool = False) -> Run:
    schedules, name = plan.schedules, of.SLOW_DENSE if slow else of.DENSE
    return Run(
        study=STUDY,
        name=f"{plan.name}-{name}",
        model=plan.model,
        recipe=_plain(schedules.slower(SLOWER) if slow else schedules.base),
        data=data,
        seed=seed,
        metadata=_about(plan, name, of.LABELS[name]),
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
        changes |= {"data": data, "recipe": _plain(recipe)}
        changes["metadata"][of.OF_OTHER_DATA] = True
    return dense.model_copy(update=changes)


def _arm(plan: PrunedModelPlan, target: PruningTarget, arm: str, parent: Run, data: str) -> Run:
    changes: dict[str, Any] = {
        "name": f"{plan.name}-{target.name}-{arm}",
        "data": data,
        "recipe": _plain(_recipe(plan, target, arm)),
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


def _recipe(plan: PrunedModelPlan, target: PruningTarget, arm: str) -> Recipe:
    schedules, epochs = plan.schedules, plan.schedules.base.epochs
    as_costly = int(epochs * target.ratio)
    if target.capped and target.ratio >= CAP:
        as_costly = CAP * epochs
    if arm == of.FINE_TUNED:
        return schedules.fine_tune
    if arm == of.SCRATCH_B and not target.is_decided_by_parent:
        return with_epochs(schedules.base, as_costly)
    if arm == of.SCRATCH_T:
        return with_epochs(schedules.base, as_costly + epochs)
    return schedules.slower(SLOWER) if arm in of.SLOW_ARMS else schedules.base


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


def _plain(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")
