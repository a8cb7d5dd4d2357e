"""Pruning targets and the arms of each: the study's design, before any run is made.

A target is a method and an amount. Predefined methods fix the architecture beforehand, so arms that
start from random weights need no trained network. Automatic methods derive it from the trained
network; only the budget is known.
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

HALF, THREE_QUARTERS = 0.5, 0.75  # of each layer's channels, removed
MOST_LEFT = 0.9  # of the MACs, without half of the channels
SPARSE = 0.8  # of the weights
SOFT = 0.3  # of the filters, the paper's
# Network slimming moves a scale by about penalty * sum of rates / (1 - momentum): the paper's 1e-4
# by 6.6 over 160 epochs of CIFAR; 0.01 by at most 1.1 in the reduced training, where the rates add
# up to 11. In pilots 0.03 destroyed training.
REDUCED_PENALTY = 0.01
COUNT = 3  # rounds, ours: each prunes 42 % of what is left, in all as much as at once
FEW = (of.FINE_TUNED, of.INHERITED)
# Further methods that choose the half to keep; some need samples, some are optional.
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
    """A method, how much it prunes, and the arms that train the pruned network.

    ``name`` is part of the runs' names; ``amount`` has further arguments of the ``method``;
    ``arms`` are in the order of tables.
    """

    name: str
    label: str
    method: str
    amount: Mapping[str, Any]
    arms: Sequence[str]
    model: ModelRef | None = None  # the pruned network, where it is known beforehand
    # The large network's and the pruned one's, for Scratch-B; of masks as if spread evenly.
    budgets: tuple[int, int] = (1, 1)
    capped: bool = False  # Scratch-B takes at most twice the epochs
    sparsity: Mapping[str, Any] = field(default_factory=dict)  # of training before pruning
    control: bool = False  # what methods are compared with
    published: str | None = None  # the published network that it is
    optional: bool = False  # trained only if the command line names it
    rounds: int = 1  # each prunes what the one before left; the arms follow the last
    between: str = "rewound"  # weights that the rounds in between train, or "inherited"
    design: ModelRef | None = None  # network whose widths are designed, if not the pruned one
    from_trained: bool = False  # training before pruning starts from the dense network
    source: tuple[str, Recipe] | None = None  # the trained network's data and recipe, if different

    @property
    def is_masked(self) -> bool:
        """Whether weights are masked rather than removed."""
        return self.method in MASKS


def predefined(
    whole: UntrainedNetwork,
    name: str,
    label: str,
    widths: Mapping[str, int],
    arms: Sequence[str] = of.ALL,
    **fields: Any,
) -> PruningTarget:
    """Widths that are set beforehand, by the L1-norm unless ``fields`` name another method."""
    pruned = whole.narrowed(widths)
    budgets = (whole.cost.budget, pruned.cost.budget)
    fields = {"method": "l1-norm", "model": pruned.model, "budgets": budgets, **fields}
    return PruningTarget(name, label, amount={"widths": dict(widths)}, arms=arms, **fields)


def describe_half(label: str, whole: UntrainedNetwork) -> str:
    """One line: a network's share of MACs with half of each layer's channels, and which layers stay
    whole.

    Raises UserError where that is nearly all of its MACs: there is nothing to compare.
    """
    half = whole.narrowed(widths_left(whole.filters, HALF))
    share = half.cost.macs / whole.cost.macs
    line = f"half of the channels of {label} leaves {share:.0%} of its MACs"
    if names := whole.sound.left_whole:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        line += (
            "; not pruned, because removing differs from masking there: "
            f"{', '.join(names[:3])}{more}"
        )
        line += f" ({whole.sound.fault})" if whole.sound.fault else ""
    if share <= MOST_LEFT:
        return line
    why = "" if names else "; the others are in streams that several layers add to"
    raise UserError(f"networks: {line}{why}; use another network")


def small_targets(whole: UntrainedNetwork, penalty: float = REDUCED_PENALTY) -> list[PruningTarget]:
    """Targets of any network, ours: half of each layer by every method, and masks.

    Automatic methods and controls get the budget of the halves, to be comparable. ``penalty`` is
    network slimming's.
    """
    filters = whole.filters
    half, quarter = (widths_left(filters, share) for share in (HALF, THREE_QUARTERS))
    macs = whole.narrowed(half).cost.macs
    targets = [
        predefined(whole, "half", "half (L1)", half),
        predefined(whole, "quarter", "quarter (L1)", quarter, optional=True),
    ]
    for method, (name, label) in HALVES.items():
        if method not in SAMPLED or all(group.is_read_once for group in filters):
            fields = {"method": method, "optional": method in ON_REQUEST}
            targets.append(predefined(whole, name, f"half ({label})", half, FEW, **fields))
    if any(group.norms for group in whole.sound.groups if group.stage >= 0):
        targets.append(_slimmed({"macs": macs}, penalty))
    random = fit_widths(whole, filters, random_shares(filters, seed=0), macs)
    arms = (of.INHERITED, of.SCRATCH_E)
    budgets = (whole.cost.budget, masked_budget(whole, SOFT, filters=True))
    return [
        *targets,
        predefined(whole, "random_widths", "random widths", random, arms, control=True),
        _masked("sparse", SPARSE, (*FEW, *SCRATCH, *of.LOTTERY), whole),
        _masked("lamp", SPARSE, (*FEW, *SCRATCH), whole, method="lamp", optional=True),
        _soft("soft", SOFT, (of.FINE_TUNED, *SCRATCH), budgets, from_trained=True),
    ]


def optional_targets(slimmed: Sequence[PruningTarget] = ()) -> list[PruningTarget]:
    """Targets of any network that are trained only if ``--target`` names them.

    Pruning in rounds, kernel patterns, and a guided architecture for each of ``slimmed``, the
    targets of network slimming: ``guided`` for ``slimming``, ``guided_70`` for ``slim_70``.
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
    targets = [
        rounds,
        replace(rounds, name="rounds_on", label=f"{COUNT} rounds, trained on", between="inherited"),
        PruningTarget("patterns", label, "guided-patterns", ratio, (of.SCRATCH_E,), optional=True),
    ]
    for target in slimmed:
        _, underscore, percent = target.name.partition("_")
        label = f"guided widths, slimmed by {percent} %" if percent else "guided widths"
        macs = target.amount.get("macs")
        targets.append(_by_shares(target, f"{GUIDED}{underscore}{percent}", label, macs))
    return targets


def transferred_targets(
    label: str, other: UntrainedNetwork, slimmed: PruningTarget
) -> list[PruningTarget]:
    """Another network with the shares of the slimmed one, and with half of each layer.

    ``slimmed`` is the target of network slimming that gives the shares.
    """
    name, half = "transferred_uniform", widths_left(other.filters, HALF)
    fields: dict[str, Any] = {"optional": True, "control": True}
    uniform = predefined(other, name, f"{label} uniform", half, SCRATCH, **fields)
    macs = other.narrowed(half).cost.macs
    transferred = _by_shares(slimmed, TRANSFERRED, f"{label} transferred", macs)
    return [replace(transferred, design=other.model), uniform]


def published_targets(network: PublishedNetwork) -> list[PruningTarget]:
    """The published networks that were pruned from this one, and the stated automatic ratios.

    After an automatic method, the length of Scratch-B depends on the trained network
    (`tasks.TrainingArm`).
    """
    stated, on_cifar = network.stated, network.input == CIFAR_SIDE
    whole = untrained_published(network)
    targets = [
        _published(pruned, network)
        for pruned in networks().values()
        if pruned.of == network.name and _methods(pruned)
    ]
    if "selection" in stated:
        sparsity = {"selection": stated["selection"]}
        name, arms = "structure selection", (*FEW, *SCRATCH)
        targets.append(PruningTarget("selection", name, SELECTION, {}, arms, sparsity=sparsity))
    slimming = stated.get("slimming", {"ratio": ()})
    slimmed = [
        _slimmed(
            {"ratio": ratio}, slimming["penalty"], f"slim_{ratio * 100:.0f}", f"slimmed {ratio:.0%}"
        )
        for ratio in slimming["ratio"]
    ]
    targets += slimmed
    # Lottery tickets were published for the CIFAR networks.
    arms = (of.FINE_TUNED, *SCRATCH, *(of.LOTTERY if on_cifar else ()))
    for entry in tables()["magnitude"]:
        for ratio in entry["ratio"] if entry["network"] == network.name else ():
            percent = f"{ratio * 100:.0f}"
            targets.append(_masked(f"sparse_{percent}", ratio, arms, whole))
            if not on_cifar:
                name = f"tickets_{percent}"
                targets.append(_masked(name, ratio, of.LOTTERY, whole, optional=True))
    # For soft filters, epochs follow from the budgets of their authors' networks.
    soft = tables()["soft_filter_pruning"].get(network.name, {"ratio": ()})
    for number, ratio in enumerate(soft["ratio"]):
        budgets = (soft["budget_flops"], soft["pruned_budget_flops"][number])
        name, optional = f"soft_{ratio * 100:.0f}", ratio != SOFT  # the README's by default
        targets.append(_soft(name, ratio, SCRATCH, budgets, at_start=True, optional=optional))
    targets += optional_targets(slimmed)
    if network.name == "vgg16":  # its slimming ratio is not stated: VGG-19's is used
        vgg19 = get_network("vgg19-slim")
        stated = vgg19.stated["slimming"]
        slimming = _slimmed({"ratio": stated["ratio"][0]}, stated["penalty"])
        targets += transferred_targets("VGG-19", untrained_published(vgg19), slimming)
    return targets


def narrower(widths: Mapping[str, int], whole: Mapping[str, int]) -> dict[str, int]:
    """The widths that are below those of the unpruned network."""
    return {name: width for name, width in widths.items() if width < whole[name]}


def _published(pruned: PublishedNetwork, whole: PublishedNetwork) -> PruningTarget:
    """A published network; only its widths if its method does not take widths set beforehand."""
    predefined_methods = ("l1-norm", "thinet", "regression")
    method = next((name for name in predefined_methods if name in _methods(pruned)), None)
    widths, whole_widths = widths_of(pruned.spec), widths_of(whole.spec)
    if widths.keys() != whole_widths.keys():  # it has another head, which no method yields
        method = None
    untrained = untrained_published(pruned)
    return PruningTarget(
        pruned.name,
        pruned.label,
        method or "published widths",
        {"widths": narrower(widths, whole_widths)} if method else {},
        (*FEW, *SCRATCH) if method else SCRATCH,
        model=untrained.model,
        budgets=(untrained_published(whole).cost.budget, untrained.cost.budget),
        capped=pruned.is_capped,
        published=pruned.name,
    )


def _methods(network: PublishedNetwork) -> set[str]:
    """The methods by which a published network was pruned, with known accuracies."""
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
    """Unstructured pruning: masks on single weights."""
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
    **fields: Any,
) -> PruningTarget:
    """Soft filter pruning; ``at_start`` also before the first epoch, as its authors do."""
    sparsity = {"soft_filters": ratio, **({"at_start": True} if at_start else {})}
    label, amount = f"soft filters {ratio:.0%}", {"ratio": ratio}
    fields = {"budgets": budgets, "sparsity": sparsity, **fields}
    return PruningTarget(name, label, SOFT_FILTERS, amount, arms, **fields)


def _by_shares(slimmed: PruningTarget, name: str, label: str, macs: int | None) -> PruningTarget:
    """A designed architecture with ``macs``, or with the slimmed network's where they are None."""
    amount = dict(slimmed.amount) if macs is None else {**slimmed.amount, "design_macs": macs}
    return PruningTarget(
        name, label, STAGE_SHARES, amount, SCRATCH, sparsity=slimmed.sparsity, optional=True
    )
