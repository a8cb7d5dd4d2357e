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
from convnext_study.studies.pruning.budget import CAP
from convnext_study.studies.pruning.factors import factored_ref
from convnext_study.studies.pruning.subject import Subject
from convnext_study.studies.pruning.subjects import subjects
from convnext_study.studies.pruning.targets import Target
from convnext_study.studies.pruning.tasks import ARM_TASK, SPARSE_TASK

STUDY = "pruning"
SLOWER = 10  # the second pair of tickets, by which the rate is divided


def runs_of(context: Context) -> list[Run]:
    """Every arm of every network for every seed, parents before what starts from them.

    Raises UserError for data whose images have no class.
    """
    check_labels(context.data, OF_IMAGES)
    networks = subjects(context)
    found: list[Run] = []
    for seed in context.seeds:
        order = 0
        for subject in networks:
            own = []
            for run in _of_subject(subject, context.data, seed):
                own.append(with_metadata(run, order=order))
                order += 1
            found += _chosen(own, subject.chosen)
    firsts: dict[str, Run] = {}  # several targets may start from one prepared network
    for run in found:
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


def _of_subject(subject: Subject, data: str, seed: int) -> Iterator[Run]:
    dense = _dense(subject, data, seed)
    yield dense
    slow: Run | None = None
    for target in subject.targets:
        parent = dense
        if target.sparsity:
            parent = _sparse(subject, target, dense)
            yield parent
        if slow is None and set(target.arms) & set(of.SLOW_ARMS):
            slow = _dense(subject, data, seed, slow=True)
            yield slow
        for number in range(1, target.rounds):
            parent = _arm(subject, target, of.ROUNDS[number - 1], parent, data)
            yield parent
        for arm in target.arms:
            start = slow if arm in of.SLOW_ARMS and slow else parent
            yield _arm(subject, target, arm, start, data)


def _dense(subject: Subject, data: str, seed: int, *, slow: bool = False) -> Run:
    schedules, name = subject.schedules, of.SLOW_DENSE if slow else of.DENSE
    return Run(
        study=STUDY,
        name=f"{subject.name}-{name}",
        model=subject.model,
        recipe=_plain(schedules.slower(SLOWER) if slow else schedules.base),
        data=data,
        seed=seed,
        metadata=_about(subject, name, of.LABELS[name]),
    )


def _sparse(subject: Subject, target: Target, dense: Run) -> Run:
    """The large network, trained so that the target's method can prune it."""
    factored = "selection" in target.sparsity
    label = f"{target.label}: {of.LABELS[of.SPARSE_DENSE]}"
    changes: dict[str, Any] = {
        "name": f"{subject.name}-{target.name}-dense",
        "model": factored_ref(subject.model) if factored else subject.model,
        "task": TaskRef(name=SPARSE_TASK, args=dict(target.sparsity)),
        "metadata": _about(subject, of.SPARSE_DENSE, label, target),
    }
    if target.from_trained:
        changes["init_from"] = dense.key
    if source := target.source:
        changes |= {"data": source.data, "recipe": _plain(source.recipe)}
        changes["metadata"][of.OF_OTHER_DATA] = True
    return dense.model_copy(update=changes)


def _arm(subject: Subject, target: Target, arm: str, parent: Run, data: str) -> Run:
    recipe = _recipe(subject, target, arm)
    common: dict[str, Any] = {
        "name": f"{subject.name}-{target.name}-{arm}",
        "data": data,
        "recipe": _plain(recipe),
        "metadata": _about(subject, arm, f"{target.label}: {of.LABELS[arm]}", target),
        "model": target.model or target.design or subject.model,
    }
    weights = of.WEIGHTS.get(arm, "inherited" if arm in of.INHERIT else "random")
    if arm in of.ROUNDS:
        weights = target.between
    if target.model is not None and weights == "random":  # needs no trained network
        return parent.model_copy(update={**common, "task": TaskRef()})
    if target.is_masked and arm == of.SCRATCH_E:
        weights = "redrawn"
    args = {"method": target.method, "weights": weights, **target.amount}
    if target.is_decided_by_parent:
        common["metadata"][NETWORK_IS_BOUND] = True
        if arm == of.SCRATCH_B:  # the parent's architecture says how long that is
            args["length"] = "scratch_b"
    task = TaskRef(name=ARM_TASK, args=args)
    return parent.model_copy(update={**common, "task": task, "init_from": parent.key})


def _recipe(subject: Subject, target: Target, arm: str) -> Recipe:
    schedules = subject.schedules
    epochs = schedules.base.epochs
    whole = int(epochs * target.ratio)
    if target.capped and target.ratio >= CAP:
        whole = CAP * epochs
    if arm == of.FINE_TUNED:
        return schedules.fine_tune
    if arm == of.SCRATCH_B and not target.is_decided_by_parent:
        return schedules.of_epochs(whole)
    if arm == of.SCRATCH_T:
        return schedules.of_epochs(whole + epochs)
    return schedules.slower(SLOWER) if arm in of.SLOW_ARMS else schedules.base


def _about(subject: Subject, arm: str, label: str, target: Target | None = None) -> dict[str, Any]:
    return {
        "regime": STUDY,
        "network": subject.name,
        "network_label": subject.label,
        "target": target.name if target else "",
        "target_label": target.label if target else "",
        # By which the figure joins points; of another network than this none are.
        "method": target.method if target and not (target.control or target.design) else "",
        "arm": arm,
        "label": label,
        "adopted": True,
        "parent": None,  # arms differ in recipe and task: the study's own table compares them
        "section": subject.label,
        "published": False,
        "published_network": (target.published if target else subject.published) or "",
    }


def _plain(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")
