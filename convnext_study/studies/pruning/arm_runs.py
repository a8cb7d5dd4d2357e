"""The runs of one network's arms, parents before the runs that start from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convnext_study.runs.records import (
    CAVEAT,
    EXPECTED_EPOCHS,
    NETWORK_IS_BOUND,
    ModelRef,
    Run,
    TaskRef,
)
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.costs import scratch_b_epochs
from convnext_study.studies.pruning.methods.selection import factored_ref
from convnext_study.studies.pruning.prune import SOFT_FILTERS
from convnext_study.studies.pruning.targets import PruningTarget
from convnext_study.studies.pruning.tasks import ARM_TASK, SPARSE_TASK
from convnext_study.studies.pruning.trained_weights import WEIGHTS_FILE, TrainedWeights

STUDY = "pruning"


@dataclass(frozen=True)
class PrunedModelPlan:
    """A network, its recipes and its pruning targets.

    ``chosen`` are the names of the targets to train; ``by_method`` has the schedules of methods
    with their own; ``caveat`` is printed with the plan. With ``trained`` weights no large network
    is trained.
    """

    name: str
    label: str
    model: ModelRef
    schedules: of.Schedules
    targets: Sequence[PruningTarget]
    published: str | None = None
    chosen: frozenset[str] = frozenset()
    by_method: Mapping[str, of.Schedules] = field(default_factory=dict)
    caveat: str = ""
    trained: TrainedWeights | None = None

    def schedules_of(self, target: PruningTarget) -> of.Schedules:
        """The schedules of the target's method, or else the plan's."""
        return self.by_method.get(target.method, self.schedules)


def arm_runs(plan: PrunedModelPlan, data: str, seed: int) -> Iterator[Run]:
    """The dense runs of the network, then for each target its preparation and its arms."""
    dense = _dense(plan, of.DENSE, data, seed)
    if plan.trained is None:
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
        metadata={**_about(plan, arm, of.LABELS[arm]), CAVEAT: plan.caveat},
    )


def _sparse(plan: PrunedModelPlan, target: PruningTarget, dense: Run) -> Run:
    """The run of the large network in preparation for the target's method."""
    label = f"{target.label}: {of.LABELS[of.SPARSE_DENSE]}"
    recipe = plan.schedules_of(target).base
    changes: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
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
    schedules = plan.schedules_of(target)
    as_costly = scratch_b_epochs(*target.budgets, schedules.budget, capped=target.capped)
    changes: dict[str, Any] = {
        "name": f"{plan.name}-{target.name}-{arm}",
        "data": data,
        "recipe": schedules.recipe(arm, as_costly).model_dump(mode="json"),
        "metadata": {
            **_about(plan, arm, f"{target.label}: {of.LABELS[arm]}", target),
            CAVEAT: plan.caveat,
        },
        "model": target.model or target.design or plan.model,
    }
    weights = target.between if arm in of.ROUNDS else of.WEIGHTS.get(arm, "random")
    if target.model is not None and weights == "random":  # needs no trained network
        return parent.model_copy(update={**changes, "task": TaskRef()})
    if target.is_masked and arm in (of.SCRATCH_E, of.SCRATCH_B):
        weights = "redrawn"
    args = {"method": target.method, "weights": weights, **target.amount}
    if target.model is None and not target.is_masked:  # the trained network decides it
        changes["metadata"][NETWORK_IS_BOUND] = True
    # Its length depends on the trained network, except for soft filters.
    if arm == of.SCRATCH_B and target.model is None and target.method != SOFT_FILTERS:
        args["length"], changes["recipe"] = "scratch_b", schedules.base.model_dump(mode="json")
        if target.is_masked:  # masks save no computation, so the plan counts the epochs
            changes["metadata"][EXPECTED_EPOCHS] = as_costly
    if plan.trained is not None:
        args["trained"] = plan.trained.model_dump(mode="json")
        changes["metadata"][WEIGHTS_FILE] = plan.trained.file
    task = TaskRef(name=ARM_TASK, args=args)
    start = parent.key if plan.trained is None else None
    return parent.model_copy(update={**changes, "task": task, "init_from": start})


def _about(
    plan: PrunedModelPlan, arm: str, label: str, target: PruningTarget | None = None
) -> dict[str, Any]:
    return {
        "regime": STUDY,
        "network": plan.name,
        "network_label": plan.label,
        "target": target.name if target else "",
        "target_label": target.label if target else "",
        # The figure joins points of one method; none of another network's.
        "method": target.method if target and not (target.control or target.design) else "",
        "arm": arm,
        "label": label,
        "adopted": True,
        "parent": None,  # arms differ in recipe and task: the study's own table compares them
        "section": plan.label,
        "published": False,
        "published_network": (target.published if target else plan.published) or "",
    }
