"""What is pruned of a network, and which arms follow: the study's design, before any run is made.

A target is a method and an amount. For predefined methods the architecture is known beforehand, so
arms that start from random weights need no trained network; for automatic ones it is the trained
network's to say, and only the budget is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from convnext_study.recipes import Recipe
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.channel_groups import kept_of, widths_left, widths_of
from convnext_study.studies.pruning.costs import Images, cost_of, groups_in
from convnext_study.studies.pruning.methods.designed import fit_widths, random_shares
from convnext_study.studies.pruning.prune import MASKS, SELECTION, STAGE_SHARES
from convnext_study.studies.pruning.published import (
    PublishedNetwork,
    get_network,
    networks,
    results,
    tables,
)
from convnext_study.studies.pruning.removal import OWN, network_of, pruned_ref
from convnext_study.studies.pruning.spec import PreActSpec

HALF, THREE_QUARTERS = 0.5, 0.75  # of the channels of each layer, that go
SPARSE = 0.8  # of the weights
SOFT = 0.3  # of the filters, the paper's
# Of network slimming. It moves a scale by about penalty * sum of rates / (1 - momentum): the
# paper's 1e-4 by 6.6 over 160 epochs of CIFAR, and in the reduced training, where the rates add up
# to 11, 0.01 by 1.1 at most. By pilots 0.03 destroys training.
REDUCED_PENALTY = 0.01
COUNT = 3  # of rounds, ours: each prunes 42 % of what is left, together as much as at once
FEW = (of.FINE_TUNED, of.INHERITED)
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
    sparsity: Mapping[str, float] = field(default_factory=dict)  # of training before pruning
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
    left = pruned_ref(model, kept_of(widths), images.shape)
    more = {"method": "l1-norm", "model": left, "budgets": _budgets(model, left, images), **more}
    return PruningTarget(name, label, amount={"widths": dict(widths)}, arms=arms, **more)


def _budgets(model: ModelRef, pruned: ModelRef, images: Images) -> tuple[int, int]:
    return cost_of(model, images).budget, cost_of(pruned, images).budget


def small_targets(model: ModelRef, images: Images) -> list[PruningTarget]:
    """Of any network: half of each layer by every method, and masks. Ours.

    Automatic methods and controls are brought to the budget of the halves, so that all compare.
    """
    groups = [group for group in groups_in(model, images) if group.stage >= 0]
    filters = [group for group in groups if group.producers]
    half, quarter = (widths_left(filters, share) for share in (HALF, THREE_QUARTERS))
    make = partial(predefined, model, images)
    found = [
        make("half", "half (L1)", half, of.ALL),
        make("quarter", "quarter (L1)", quarter, of.ALL, optional=True),
    ]
    macs = cost_of(pruned_ref(model, kept_of(half), images.shape), images).macs
    if all(len(group.consumers) == 1 and not group.concatenated for group in filters):
        found += [
            make(method, f"half ({label})", half, FEW, method=method)
            for method, label in (("thinet", "ThiNet"), ("regression", "regression"))
        ]
    found += [
        make(f"half_{word}", f"half ({word} filters)", half, FEW, method=f"l1-{word}")
        for word in ("random", "smallest")
    ]
    if any(group.norms for group in groups):
        found.append(_slimmed({"macs": macs}, REDUCED_PENALTY))
    net, shares = network_of(model, images.classes), random_shares(filters, seed=0)
    random = fit_widths(net, filters, shares, macs, images.shape)
    found += [
        make("random_widths", "random widths", random, (of.INHERITED, of.SCRATCH_E), control=True),
        _magnitude("sparse", SPARSE, FEW),
        PruningTarget(
            "soft",
            f"soft filters {SOFT:.0%}",
            "soft-filters",
            {"ratio": SOFT},
            (of.FINE_TUNED, of.SCRATCH_E),
            sparsity={"soft_filters": SOFT},
            from_trained=True,
        ),
    ]
    return found


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
    groups = [one for one in groups_in(model, images) if one.stage >= 0 and one.producers]
    name, half = "transferred_uniform", widths_left(groups, HALF)
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
    found = [
        _published(one, whole)
        for one in networks().values()
        if one.of == whole.name and _methods(one)
        if widths_of(one.spec).keys() == widths_of(whole.spec).keys()
    ]
    recipe = tables()["recipe"]
    if isinstance(whole.spec, PreActSpec):
        sparsity = {"selection": recipe["sparse_structure_selection"]["factor"]["gamma"]}
        name, arms = "structure selection", (*FEW, *SCRATCH)
        found.append(PruningTarget("selection", name, SELECTION, {}, arms, sparsity=sparsity))
    stem = whole.name.removesuffix("-c100").removesuffix("-slim")
    ratios, penalties = recipe["slimming"]["ratio"], recipe["slimming"]["penalty"]
    slimmed = [
        replace(
            _slimmed({"ratio": ratio}, penalties[stem]),
            name=f"slim_{ratio * 100:.0f}",
            label=f"slimmed {ratio:.0%}",
        )
        for ratio in ratios["cifar100" if whole.classes == 100 else "cifar10"].get(stem, ())
    ]
    found += slimmed
    found += [
        _magnitude(f"sparse_{ratio * 100:.0f}", ratio, (of.FINE_TUNED,))
        for stated in tables()["magnitude"]
        if stated["network"] == whole.name
        for ratio in stated["ratio"]
    ]
    found += optional_targets(slimmed)
    if whole.name == "vgg16":  # the ratio of its slimming was not found: VGG-19's is taken
        vgg19, images = get_network("vgg19-slim"), Images(whole.input, whole.classes)
        slimming = _slimmed({"ratio": ratios["cifar10"]["vgg19"][0]}, penalties["vgg19"])
        found += transferred_targets("VGG-19", ref_of(vgg19), images, slimming)
    return found


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
    widths = narrower(widths_of(one.spec), widths_of(whole.spec))
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


def _magnitude(name: str, ratio: float, trained: Sequence[str]) -> PruningTarget:
    arms = (*trained, of.SCRATCH_E, *of.LOTTERY)
    return PruningTarget(name, f"magnitude {ratio:.0%}", "magnitude", {"ratio": ratio}, arms)


def _by_shares(slimmed: PruningTarget, name: str, label: str, macs: int | None) -> PruningTarget:
    """Of as many MACs, where the slimmed network's or its budget's are known."""
    amount = dict(slimmed.amount) if macs is None else {**slimmed.amount, "design_macs": macs}
    return PruningTarget(
        name, label, STAGE_SHARES, amount, SCRATCH, sparsity=slimmed.sparsity, optional=True
    )
