"""What is pruned of a network, and which arms follow: the study's design, before any run is made.

A target is a method and an amount. For predefined methods the architecture is known beforehand, so
arms that start from random weights need no trained network; for automatic ones it is the trained
network's to say, and only the budget is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from convnext_study.errors import UserError
from convnext_study.recipes import Recipe
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.channel_groups import widths_left, widths_of
from convnext_study.studies.pruning.costs import (
    UntrainedNetwork,
    masked_budget,
    untrained_published,
)
from convnext_study.studies.pruning.methods.architectures import fit_widths, random_shares
from convnext_study.studies.pruning.prune import MASKS, SELECTION, SOFT_FILTERS, STAGE_SHARES
from convnext_study.studies.pruning.published import (
    CIFAR_SIDE,
    PublishedNetwork,
    get_network,
    networks,
    results,
    tables,
)

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
# By which methods the same half is chosen too; some look at samples, and some are on request.
HALVES = {
    "thinet": ("thinet", "ThiNet"),
    "regression": ("regression", "regression"),
    "l1-random": ("half_random", "random filters"),
    "l1-smallest": ("half_smallest", "smallest filters"),
    "geometric-median": ("half_geometric-median", "median"),
    "group-norm": ("half_group-norm", "group norm"),
    "taylor": ("half_taylor", "Taylor"),
}
SAMPLED, ON_REQUEST = ("thinet", "regression"), ("geometric-median", "group-norm", "taylor")
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
    # The large network's and the pruned one's, for Scratch-B; of masks as if spread evenly.
    budgets: tuple[int, int] = (1, 1)
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


def predefined(
    whole: UntrainedNetwork,
    name: str,
    label: str,
    widths: Mapping[str, int],
    arms: Sequence[str] = of.ALL,
    **more: Any,
) -> PruningTarget:
    """Widths that are set beforehand, by the L1-norm unless ``more`` names another method."""
    left = whole.narrowed(widths)
    budgets = (whole.cost.budget, left.cost.budget)
    more = {"method": "l1-norm", "model": left.model, "budgets": budgets, **more}
    return PruningTarget(name, label, amount={"widths": dict(widths)}, arms=arms, **more)


def describe_half(label: str, whole: UntrainedNetwork) -> str:
    """What half of each layer's channels leaves of a network, and which layers stay whole.

    Raises UserError, one line, where that is nearly all of its MACs: there is nothing to compare.
    """
    half = whole.narrowed(widths_left(whole.filters, HALF))
    share = half.cost.macs / whole.cost.macs
    about = f"half of the channels of {label} leaves {share:.0%} of its MACs"
    if names := whole.sound.left_whole:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        about += f"; left whole, as removing is not masking there: {', '.join(names[:3])}{more}"
        about += f" ({whole.sound.fault})" if whole.sound.fault else ""
    if share <= MOST_LEFT:
        return about
    why = "" if names else "; the others are in streams that several layers add to"
    raise UserError(f"networks: {about}{why}; use another network")


def small_targets(whole: UntrainedNetwork, penalty: float = REDUCED_PENALTY) -> list[PruningTarget]:
    """Of any network: half of each layer by every method, and masks. Ours.

    Automatic methods and controls are brought to the budget of the halves, so that all compare. The
    ``penalty`` is network slimming's.
    """
    filters = whole.filters
    half, quarter = (widths_left(filters, share) for share in (HALF, THREE_QUARTERS))
    macs = whole.narrowed(half).cost.macs
    found = [
        predefined(whole, "half", "half (L1)", half),
        predefined(whole, "quarter", "quarter (L1)", quarter, optional=True),
    ]
    for method, (name, label) in HALVES.items():
        if method not in SAMPLED or all(group.is_read_once for group in filters):
            how = {"method": method, "optional": method in ON_REQUEST}
            found.append(predefined(whole, name, f"half ({label})", half, FEW, **how))
    if any(one.norms for one in whole.sound.groups if one.stage >= 0):
        found.append(_slimmed({"macs": macs}, penalty))
    random = fit_widths(whole, filters, random_shares(filters, seed=0), macs)
    arms = (of.INHERITED, of.SCRATCH_E)
    budgets = (whole.cost.budget, masked_budget(whole, SOFT, filters=True))
    return [
        *found,
        predefined(whole, "random_widths", "random widths", random, arms, control=True),
        _masked("sparse", SPARSE, (*FEW, *SCRATCH, *of.LOTTERY), whole),
        _masked("lamp", SPARSE, (*FEW, *SCRATCH), whole, method="lamp", optional=True),
        _soft("soft", SOFT, (of.FINE_TUNED, *SCRATCH), budgets, from_trained=True),
    ]


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
    label: str, other: UntrainedNetwork, slimmed: PruningTarget
) -> list[PruningTarget]:
    """Another network of the slimmed one's shares, and the same with half of each layer.

    ``slimmed`` is the target of network slimming whose shares are taken.
    """
    name, half = "transferred_uniform", widths_left(other.filters, HALF)
    more: dict[str, Any] = {"optional": True, "control": True}
    uniform = predefined(other, name, f"{label} uniform", half, SCRATCH, **more)
    macs = other.narrowed(half).cost.macs
    transferred = _by_shares(slimmed, TRANSFERRED, f"{label} transferred", macs)
    return [replace(transferred, design=other.model), uniform]


def published_targets(network: PublishedNetwork) -> list[PruningTarget]:
    """The published networks that were pruned from this one, and the stated automatic ratios.

    How long Scratch-B is after an automatic method, the trained network says
    (`tasks.TrainingArm`).
    """
    stated, on_cifar = network.stated, network.input == CIFAR_SIDE
    whole = untrained_published(network)
    found = [
        _published(one, network)
        for one in networks().values()
        if one.of == network.name and _methods(one)
    ]
    if "selection" in stated:
        sparsity = {"selection": stated["selection"]}
        name, arms = "structure selection", (*FEW, *SCRATCH)
        found.append(PruningTarget("selection", name, SELECTION, {}, arms, sparsity=sparsity))
    slimming = stated.get("slimming", {"ratio": ()})
    slimmed = [
        _slimmed(
            {"ratio": ratio}, slimming["penalty"], f"slim_{ratio * 100:.0f}", f"slimmed {ratio:.0%}"
        )
        for ratio in slimming["ratio"]
    ]
    found += slimmed
    # The lottery's networks are those of CIFAR.
    arms = (of.FINE_TUNED, *SCRATCH, *(of.LOTTERY if on_cifar else ()))
    for entry in tables()["magnitude"]:
        for ratio in entry["ratio"] if entry["network"] == network.name else ():
            percent = f"{ratio * 100:.0f}"
            found.append(_masked(f"sparse_{percent}", ratio, arms, whole))
            if not on_cifar:
                found.append(_masked(f"tickets_{percent}", ratio, of.LOTTERY, whole, optional=True))
    # Budgets of soft filters are of their authors' networks, by which their epochs are counted.
    soft = tables()["soft_filter_pruning"].get(network.name, {"ratio": ()})
    for number, ratio in enumerate(soft["ratio"]):
        budgets = (soft["budget_flops"], soft["pruned_budget_flops"][number])
        name, optional = f"soft_{ratio * 100:.0f}", ratio != SOFT  # the README's by default
        found.append(_soft(name, ratio, SCRATCH, budgets, at_start=True, optional=optional))
    found += optional_targets(slimmed)
    if network.name == "vgg16":  # the ratio of its slimming was not found: VGG-19's is taken
        vgg19 = get_network("vgg19-slim")
        its = vgg19.stated["slimming"]
        slimming = _slimmed({"ratio": its["ratio"][0]}, its["penalty"])
        found += transferred_targets("VGG-19", untrained_published(vgg19), slimming)
    return found


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
    left = untrained_published(one)
    return PruningTarget(
        one.name,
        one.label,
        method or "published widths",
        {"widths": narrower(mine, its)} if method else {},
        (*FEW, *SCRATCH) if method else SCRATCH,
        model=left.model,
        budgets=(untrained_published(whole).cost.budget, left.cost.budget),
        capped=one.is_capped,
        published=one.name,
    )


def _methods(network: PublishedNetwork) -> set[str]:
    """By which a published network was pruned, as far as accuracies of it are known."""
    return {result["method"] for result in results(network.name)}


def _slimmed(
    amount: Mapping[str, Any], penalty: float, name: str = "slimming", label: str = "slimmed"
) -> PruningTarget:
    arms, sparsity = (*FEW, *SCRATCH), {"slimming": penalty}
    return PruningTarget(name, label, "slimming", amount, arms, sparsity=sparsity)


def _masked(
    name: str,
    ratio: float,
    arms: Sequence[str],
    whole: UntrainedNetwork,
    method: str = "magnitude",
    optional: bool = False,
) -> PruningTarget:
    """Single weights."""
    label = {"magnitude": "magnitude", "lamp": "LAMP"}[method]
    budgets = (whole.cost.budget, masked_budget(whole, ratio, filters=False))
    label, amount = f"{label} {ratio:.0%}", {"ratio": ratio}
    return PruningTarget(name, label, method, amount, arms, budgets=budgets, optional=optional)


def _soft(
    name: str,
    ratio: float,
    arms: Sequence[str],
    budgets: tuple[int, int],
    at_start: bool = False,
    **more: Any,
) -> PruningTarget:
    """Soft filter pruning, ``at_start`` before the first epoch too, as its authors do."""
    sparsity = {"soft_filters": ratio, **({"at_start": True} if at_start else {})}
    label, amount = f"soft filters {ratio:.0%}", {"ratio": ratio}
    more = {"budgets": budgets, "sparsity": sparsity, **more}
    return PruningTarget(name, label, SOFT_FILTERS, amount, arms, **more)


def _by_shares(slimmed: PruningTarget, name: str, label: str, macs: int | None) -> PruningTarget:
    """Of as many MACs, where the slimmed network's or its budget's are known."""
    amount = dict(slimmed.amount) if macs is None else {**slimmed.amount, "design_macs": macs}
    return PruningTarget(
        name, label, STAGE_SHARES, amount, SCRATCH, sparsity=slimmed.sparsity, optional=True
    )
