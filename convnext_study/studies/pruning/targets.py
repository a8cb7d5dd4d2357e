"""What is pruned of a network, and which arms follow: the study's design, before any run is made.

A target is a method and an amount. For predefined methods the architecture is known beforehand, so
arms that start from random weights need no trained network; for automatic ones it is the trained
network's to say, and only the budget is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from convnext_study.errors import UserError
from convnext_study.recipes import Recipe
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.channel_groups import Group, kept_of, widths_left, widths_of
from convnext_study.studies.pruning.costs import (
    Images,
    cost_of,
    groups_in,
    masked_budget,
)
from convnext_study.studies.pruning.methods.designed import fit_widths, random_shares
from convnext_study.studies.pruning.prune import MASKS, SELECTION, SOFT_FILTERS, STAGE_SHARES
from convnext_study.studies.pruning.published import (
    CIFAR_SIDE,
    PublishedNetwork,
    get_network,
    networks,
    results,
    tables,
)
from convnext_study.studies.pruning.removal import OWN, network_of, pruned_ref

HALF, THREE_QUARTERS = 0.5, 0.75  # of the channels of each layer, that go
MOST_LEFT = 0.9  # of the MACs, by half of the channels
SPARSE = 0.8  # of the weights
SOFT = 0.3  # of the filters, the paper's
# Of network slimming. It moves a scale by about penalty * sum of rates / (1 - momentum): the
# paper's 1e-4 by 6.6 over 160 epochs of CIFAR, and in the reduced training, where the rates add up
# to 11, 0.01 by 1.1 at most. By pilots 0.03 destroys training.
REDUCED_PENALTY = 0.01
COUNT = 3  # of rounds, ours: each prunes 42 % of what is left, together as much as at once
FEW = (of.FINE_TUNED, of.INHERITED)
# Further criteria for the same half.
CRITERIA = {"geometric-median": "median", "group-norm": "group norm", "taylor": "Taylor"}
SCRATCH = (of.SCRATCH_E, of.SCRATCH_B)
GUIDED, TRANSFERRED = "guided", "transferred"
FROM = "_from_"  # in the name of a target whose shares come from other data


@dataclass(frozen=True)
class PruningTarget:
    """A method, how much it prunes, and the arms that are trained of what is left.

    Its ``name`` is part of its runs' names; ``amount`` are further arguments of the ``method``;
    ``arms`` are in the order of tables.
    """

    name: str
    label: str
    method: str
    amount: Mapping[str, Any]
    arms: Sequence[str]
    model: ModelRef | None = None  # what is left, where that is known beforehand
    budgets: tuple[int, int] = (1, 1)  # the large network's and the pruned one's, for Scratch-B
    capped: bool = False  # Scratch-B is never longer than twice
    sparsity: Mapping[str, Any] = field(default_factory=dict)  # of training before pruning
    control: bool = False  # none of the methods, but what they are compared with
    published: str | None = None  # the published network that it is
    optional: bool = False  # trained only where the command line names it
    rounds: int = 1  # each prunes what the one before left; the arms follow the last
    between: str = "rewound"  # weights that the rounds in between train, or "inherited"
    design: ModelRef | None = None  # whose widths are designed, where it is not the pruned one
    from_trained: bool = False  # training before pruning starts from the dense network
    source: tuple[str, Recipe] | None = None  # the trained network's data and recipe, if others

    @property
    def is_masked(self) -> bool:
        """Whether weights are masked, and nothing removed."""
        return self.method in MASKS

    @property
    def is_decided_by_parent(self) -> bool:
        """Whether only the trained network says which architecture is left."""
        return self.model is None and not self.is_masked

    @property
    def is_timed_by_parent(self) -> bool:
        """Whether only the trained network says how long Scratch-B is; the ``budgets`` of masks
        are then those of shares spread evenly."""
        return self.model is None and self.method != SOFT_FILTERS


def predefined(
    model: ModelRef,
    images: Images,
    name: str,
    label: str,
    widths: Mapping[str, int],
    arms: Sequence[str],
    **more: Any,
) -> PruningTarget:
    """Widths that are set beforehand, by the L1-norm unless ``more`` names another method."""
    left = pruned_ref(model, kept_of(widths, groups_in(model, images).groups), images.shape)
    more = {"method": "l1-norm", "model": left, "budgets": _budgets(model, left, images), **more}
    return PruningTarget(name, label, amount={"widths": dict(widths)}, arms=arms, **more)


def _budgets(model: ModelRef, pruned: ModelRef, images: Images) -> tuple[int, int]:
    return cost_of(model, images).budget, cost_of(pruned, images).budget


def describe_half(label: str, model: ModelRef, images: Images) -> str:
    """What half of each layer's channels leaves of a network, and which layers stay whole.

    Raises UserError, one line, where that is nearly all of its MACs: there is nothing to compare.
    """
    filters = _filters(model, images)
    half = pruned_ref(model, kept_of(widths_left(filters, HALF), filters), images.shape)
    share = cost_of(half, images).macs / cost_of(model, images).macs
    about = f"half of the channels of {label} leaves {share:.0%} of its MACs"
    found = groups_in(model, images)
    if whole := found.left_whole:
        more = f" and {len(whole) - 3} more" if len(whole) > 3 else ""
        about += f"; left whole, as removing is not masking there: {', '.join(whole[:3])}{more}"
        about += f" ({found.fault})" if found.fault else ""
    if share <= MOST_LEFT:
        return about
    why = "" if whole else "; the others are in streams that several layers add to"
    raise UserError(f"networks: {about}{why}; use another network")


def _filters(model: ModelRef, images: Images) -> list[Group]:
    """The layers whose own filters can go, those of the classifier left out."""
    groups = groups_in(model, images).groups
    return [one for one in groups if one.stage >= 0 and one.producers]


def small_targets(
    model: ModelRef, images: Images, penalty: float = REDUCED_PENALTY
) -> list[PruningTarget]:
    """Of any network: half of each layer by every method, and masks. Ours.

    Automatic methods and controls are brought to the budget of the halves, so that all compare. The
    ``penalty`` is network slimming's.
    """
    filters = _filters(model, images)
    half, quarter = (widths_left(filters, share) for share in (HALF, THREE_QUARTERS))
    make = partial(predefined, model, images)
    found = [
        make("half", "half (L1)", half, of.ALL),
        make("quarter", "quarter (L1)", quarter, of.ALL, optional=True),
    ]
    macs = cost_of(pruned_ref(model, kept_of(half, filters), images.shape), images).macs
    if all(_is_read_once(group) for group in filters):
        found += [
            make(method, f"half ({label})", half, FEW, method=method)
            for method, label in (("thinet", "ThiNet"), ("regression", "regression"))
        ]
    found += [
        make(f"half_{word}", f"half ({word} filters)", half, FEW, method=f"l1-{word}")
        for word in ("random", "smallest")
    ]
    found += [
        make(f"half_{method}", f"half ({label})", half, FEW, method=method, optional=True)
        for method, label in CRITERIA.items()
    ]
    if any(one.norms for one in groups_in(model, images).groups if one.stage >= 0):
        found.append(_slimmed({"macs": macs}, penalty))
    net, shares = network_of(model, images.classes), random_shares(filters, seed=0)
    random = fit_widths(net, filters, shares, macs, images.shape)
    found += [
        make("random_widths", "random widths", random, (of.INHERITED, of.SCRATCH_E), control=True),
        _masked("sparse", SPARSE, (*FEW, *SCRATCH, *of.LOTTERY), model, images),
        _masked("lamp", SPARSE, (*FEW, *SCRATCH), model, images, method="lamp", optional=True),
        PruningTarget(
            "soft",
            f"soft filters {SOFT:.0%}",
            SOFT_FILTERS,
            {"ratio": SOFT},
            (of.FINE_TUNED, *SCRATCH),
            budgets=_masked_budgets(model, images, SOFT, filters=True),
            sparsity={"soft_filters": SOFT},
            from_trained=True,
        ),
    ]
    return found


def _is_read_once(group: Group) -> bool:
    """Whether one layer reads the channels, each for itself, as methods with samples need it."""
    return len(group.consumers) == 1 and not group.concatenated and not group.units


def _masked_budgets(
    model: ModelRef, images: Images, ratio: float, *, filters: bool
) -> tuple[int, int]:
    return cost_of(model, images).budget, masked_budget(
        model.model_dump_json(), images, ratio, filters=filters
    )


def optional_targets(slimmed: Sequence[PruningTarget] = ()) -> list[PruningTarget]:
    """Of any network, where ``--target`` names them.

    Pruning in rounds, patterns of kernels, and for each of ``slimmed``, the targets of network
    slimming, one that it guides: ``guided`` of ``slimming``, ``guided_70`` of ``slim_70``.
    """
    rounds = PruningTarget(
        "rounds",
        f"{COUNT} rounds, rewound",
        "magnitude-round",
        {"ratio": 1 - (1 - SPARSE) ** (1 / COUNT)},
        (of.TICKET, of.CONTROL),
        optional=True,
        rounds=COUNT,
    )
    label, ratio = f"guided patterns {SPARSE:.0%}", {"ratio": SPARSE}
    found = [
        rounds,
        replace(rounds, name="rounds_on", label=f"{COUNT} rounds, trained on", between="inherited"),
        PruningTarget("patterns", label, "guided-patterns", ratio, (of.SCRATCH_E,), optional=True),
    ]
    for target in slimmed:
        _, underscore, which = target.name.partition("_")
        label = f"guided widths, slimmed by {which} %" if which else "guided widths"
        macs = target.amount.get("macs")
        found.append(_by_shares(target, f"{GUIDED}{underscore}{which}", label, macs))
    return found


def transferred_targets(
    label: str, model: ModelRef, images: Images, slimmed: PruningTarget
) -> list[PruningTarget]:
    """Another network of the slimmed one's shares, and the same with half of each layer.

    ``label``, ``model`` and ``images`` are the other network's, ``slimmed`` the target of network
    slimming whose shares are taken.
    """
    name, half = "transferred_uniform", widths_left(_filters(model, images), HALF)
    more: dict[str, Any] = {"optional": True, "control": True}
    uniform = predefined(model, images, name, f"{label} uniform", half, SCRATCH, **more)
    assert uniform.model is not None  # noqa: S101
    macs = cost_of(uniform.model, images).macs
    transferred = _by_shares(slimmed, TRANSFERRED, f"{label} transferred", macs)
    return [replace(transferred, design=model), uniform]


def published_targets(whole: PublishedNetwork) -> list[PruningTarget]:
    """The published networks that were pruned from this one, and the stated automatic ratios.

    How long Scratch-B is after an automatic method, the trained network says
    (`tasks.TrainingArm`).
    """
    stated, on_cifar = whole.stated, whole.input == CIFAR_SIDE
    found = [
        _published(one, whole)
        for one in networks().values()
        if one.of == whole.name and _methods(one)
    ]
    if "selection" in stated:
        sparsity = {"selection": stated["selection"]}
        name, arms = "structure selection", (*FEW, *SCRATCH)
        found.append(PruningTarget("selection", name, SELECTION, {}, arms, sparsity=sparsity))
    slimming = stated.get("slimming", {"ratio": ()})
    slimmed = [
        replace(
            _slimmed({"ratio": ratio}, slimming["penalty"]),
            name=f"slim_{ratio * 100:.0f}",
            label=f"slimmed {ratio:.0%}",
        )
        for ratio in slimming["ratio"]
    ]
    found += slimmed
    # The lottery's networks are those of CIFAR.
    stated_arms = (of.FINE_TUNED, *SCRATCH, *(of.LOTTERY if on_cifar else ()))
    make = partial(_masked, model=ref_of(whole), images=Images(whole.input, whole.classes))
    for ratio in _magnitudes(whole.name):
        percent = f"{ratio * 100:.0f}"
        found.append(make(f"sparse_{percent}", ratio, stated_arms))
        if not on_cifar:
            found.append(make(f"tickets_{percent}", ratio, of.LOTTERY, optional=True))
    found += _soft(whole)
    found += optional_targets(slimmed)
    if whole.name == "vgg16":  # the ratio of its slimming was not found: VGG-19's is taken
        vgg19, images = get_network("vgg19-slim"), Images(whole.input, whole.classes)
        its = vgg19.stated["slimming"]
        slimming = _slimmed({"ratio": its["ratio"][0]}, its["penalty"])
        found += transferred_targets("VGG-19", ref_of(vgg19), images, slimming)
    return found


def _magnitudes(network: str) -> list[float]:
    """The stated shares of its weights that go."""
    stated = [one["ratio"] for one in tables()["magnitude"] if one["network"] == network]
    return [ratio for ratios in stated for ratio in ratios]


def _soft(whole: PublishedNetwork) -> Iterator[PruningTarget]:
    """Soft filter pruning with its own recipe, from random weights; the README's ratio by default.

    Budgets are those of the method's authors' networks, by which their epochs are counted.
    """
    stated = tables()["soft_filter_pruning"].get(
        whole.name, {"ratio": (), "pruned_budget_flops": ()}
    )
    for ratio, pruned in zip(stated["ratio"], stated["pruned_budget_flops"], strict=True):
        yield PruningTarget(
            f"soft_{ratio * 100:.0f}",
            f"soft filters {ratio:.0%}",
            SOFT_FILTERS,
            {"ratio": ratio},
            SCRATCH,
            budgets=(stated["budget_flops"], pruned),
            sparsity={"soft_filters": ratio, "at_start": True},
            optional=ratio != SOFT,
        )


def ref_of(network: PublishedNetwork) -> ModelRef:
    """The record of a published network."""
    return ModelRef(builder=OWN, args=network.spec.to_dict())


def narrower(widths: Mapping[str, int], whole: Mapping[str, int]) -> dict[str, int]:
    """The widths that are smaller than those of the whole network."""
    return {name: width for name, width in widths.items() if width < whole[name]}


def _published(one: PublishedNetwork, whole: PublishedNetwork) -> PruningTarget:
    """A published network; of methods that take no widths set beforehand its widths alone."""
    known = ("l1-norm", "thinet", "regression")
    method = next((name for name in known if name in _methods(one)), None)
    mine, its = widths_of(one.spec), widths_of(whole.spec)
    if mine.keys() != its.keys():  # another head too, which no method gives
        method, mine = None, {}
    widths = narrower(mine, its)
    return PruningTarget(
        one.name,
        one.label,
        method or "published widths",
        {"widths": widths} if method else {},
        (*FEW, *SCRATCH) if method else SCRATCH,
        model=ref_of(one),
        budgets=_budgets(ref_of(whole), ref_of(one), Images(whole.input, whole.classes)),
        capped=one.is_capped,
        published=one.name,
    )


def _methods(network: PublishedNetwork) -> set[str]:
    """By which a published network was pruned, as far as accuracies of it are known."""
    sources = (*results(network.name), *results(network.name, of_paper=False))
    return {result["method"] for result in sources}


def _slimmed(amount: Mapping[str, Any], penalty: float) -> PruningTarget:
    arms, sparsity = (*FEW, *SCRATCH), {"slimming": penalty}
    return PruningTarget("slimming", "slimmed", "slimming", amount, arms, sparsity=sparsity)


def _masked(
    name: str, ratio: float, arms: Sequence[str], model: ModelRef, images: Images, **more: Any
) -> PruningTarget:
    """Single weights by their magnitude, unless ``more`` names another method."""
    more = {"method": "magnitude", **more}
    label = {"magnitude": "magnitude", "lamp": "LAMP"}[more["method"]]
    budgets = _masked_budgets(model, images, ratio, filters=False)
    amount = {"ratio": ratio}
    return PruningTarget(
        name, f"{label} {ratio:.0%}", amount=amount, arms=arms, budgets=budgets, **more
    )


def _by_shares(slimmed: PruningTarget, name: str, label: str, macs: int | None) -> PruningTarget:
    """Of as many MACs, where the slimmed network's or its budget's are known."""
    amount = dict(slimmed.amount) if macs is None else {**slimmed.amount, "design_macs": macs}
    return PruningTarget(
        name, label, STAGE_SHARES, amount, SCRATCH, sparsity=slimmed.sparsity, optional=True
    )
