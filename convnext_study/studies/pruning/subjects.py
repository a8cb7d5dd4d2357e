"""The networks of a study: named on the command line, or the data's usual ones."""

from __future__ import annotations

from dataclasses import replace

from convnext_study.data.labels import OF_IMAGES, check_labels
from convnext_study.errors import UserError, did_you_mean
from convnext_study.experiments.context import Context
from convnext_study.experiments.data_identity import same_data
from convnext_study.studies.pruning.optional_targets import from_other_data
from convnext_study.studies.pruning.subject import EIGHTH, Subject, images_of, is_full, subject_of
from convnext_study.studies.pruning.targets import Source, Target

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


def subjects(context: Context) -> list[Subject]:
    """Those that the command line names, or the data's usual ones.

    Raises UserError for a network that is unknown, and what tracing and recipes raise.
    """
    full = is_full(context.data, context.recipe)
    usual = USUAL.get(context.data.partition(":")[0], ("vgg16",)) if full else (EIGHTH,)
    return [
        _choose(name, context)
        for asked in context.networks or usual
        for name in _rows(asked.strip(), context)
    ]


def _rows(asked: str, context: Context) -> list[str]:
    """The names that one of the command line stands for: `EVERY_ROW` for each row of the road."""
    name, equals, rest = asked.partition("=")
    if name != EVERY_ROW:
        return [asked]
    return [f"{EVERY_ROW}:{row}{equals}{rest}" for row in context.road.adopted()]


def _choose(asked: str, context: Context) -> Subject:
    """A network with what follows its name: targets, or its usual ones."""
    name, _, rest = asked.partition("=")
    subject = subject_of(name, context)
    known = {target.name: target for target in subject.targets}
    usual = {target.name for target in subject.targets if not target.optional}
    chosen: set[str] = set()
    further: dict[str, Target] = {}
    for one in rest.split("+") if rest else (USUALLY,):
        plain, at, data = one.partition("@")
        if one == USUALLY:
            chosen |= usual
            continue
        if plain not in known:
            raise UserError(f"networks: {asked}: {one!r}{did_you_mean(plain, [USUALLY, *known])}")
        if at and not data:
            raise UserError(f"networks: {asked}: no data after @, such as {plain}@clutter")
        if not data or same_data(data, context.data):
            chosen.add(plain)
        else:
            target = _from_other_data(known[plain], name, data, context)
            if further.setdefault(target.name, target) != target:
                raise UserError(f"networks: {asked}: one data set of a kind; start another study")
            chosen.add(target.name)
    return replace(subject, targets=[*subject.targets, *further.values()], chosen=frozenset(chosen))


def _from_other_data(target: Target, name: str, data: str, context: Context) -> Target:
    """The target with the shares of the network ``name`` as it is slimmed on ``data``."""
    check_labels(data, OF_IMAGES)
    there = replace(context, data=data)
    subject = subject_of(name, there)
    same = next(one for one in subject.targets if one.name == target.name)
    recipe = subject.schedules.base
    source = Source(data, recipe, images_of(there, recipe.image_size))
    return from_other_data(target, same, source)
