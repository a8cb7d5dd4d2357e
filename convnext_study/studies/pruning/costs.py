"""Costs of networks: for ``convnext-study cost --study pruning``, for targets, and for Scratch-B.

Scratch-B's epochs follow from what the paper's scripts call FLOPs, here ``budget``. It is not a
cost to report; `cost.count` is.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from convnext_study import cost
from convnext_study.benchmarks.timing import Spread, interleave, one_thread, rate
from convnext_study.cost.counter import blank_image, copy_on, skip_norms
from convnext_study.experiments.data_identity import dataset_size
from convnext_study.models.blocks import Head
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import Group, kept_of
from convnext_study.studies.pruning.dependency_graph import Sound
from convnext_study.studies.pruning.published import PublishedNetwork, get_network, networks
from convnext_study.studies.pruning.removal import (
    OWN,
    find_groups,
    network_of,
    own_ref,
    pruned_ref,
)
from convnext_study.studies.pruning.rows import Row

CAP = 2  # Scratch-B's ratio on ImageNet, for the predefined methods
# Of measured latency; by this process's clock, because others may use the machine too.
BATCH, REPEATS, SECONDS = 32, 5, 0.1
CLOCK = time.process_time
LATENCY_NOTE = (
    f"latency: ms of processor time per image in batches of {BATCH}, forward, float32, one "
    f"thread, channels last, median of {REPEATS} rounds alternating between networks; masked "
    "networks take as long as whole ones."
)
TITLE = "Pruning: the published networks, counted"
NOTES = (
    "Pruned shares are relative to the network that was pruned. Scratch-B: epochs that cost as "
    "much as that network's training, by the authors' count of FLOPs, which is not comparable "
    "with MACs.",
    "= all counts equal those derived by hand from the sources.",
)


@dataclass(frozen=True)
class Images:
    """A network's input and output: side in pixels, number of classes."""

    side: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=1)]
    __pydantic_config__ = ConfigDict(extra="forbid")  # in arguments of a task

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (3, self.side, self.side)


class ModelCost(NamedTuple):
    """Of one image: multiply-accumulates, and the authors' count of FLOPs."""

    macs: int
    budget: int


@dataclass(frozen=True, eq=False)
class UntrainedNetwork:
    """A record's network before training: its cost, and the channels that can be removed."""

    model: ModelRef
    images: Images

    @functools.cached_property
    def cost(self) -> ModelCost:
        """Its cost per image."""
        net, shape = self.outline(), self.images.shape
        return ModelCost(cost.count(net, shape).macs, budget_flops(net, shape))

    @functools.cached_property
    def sound(self) -> Sound:
        """Its channels that can be removed, and the layers that stay whole. Raises UserError as
        `find_groups` does."""
        return find_groups(self.outline(), self.images.shape)

    @property
    def filters(self) -> list[Group]:
        """The groups of filters that can be removed, without those of the classifier."""
        return [group for group in self.sound.groups if group.stage >= 0 and group.producers]

    def narrowed(self, widths: Mapping[str, int]) -> UntrainedNetwork:
        """The network with these widths."""
        kept = kept_of(widths, self.sound.groups)
        return untrained(pruned_ref(self.model, kept, self.images.shape), self.images)

    def outline(self) -> nn.Module:
        """The network to count: of this study's only shapes; others are traced, with weights."""
        with torch.device("meta" if self.model.builder == OWN else "cpu"):
            return network_of(self.model, self.images.classes)


@functools.cache
def masked_budget(whole: UntrainedNetwork, ratio: float, *, filters: bool) -> int:
    """The budget with masks on all convolutions: without a share of each one's filters, as after
    soft filter pruning, or of its weights."""
    net, unmasked = whole.outline(), {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            # Weights of a unit, which is a filter or a single weight.
            size = module.weight[0].numel() if filters else 1
            units = module.weight.numel() // size
            unmasked[f"{name}.weight"] = (units - int(units * ratio)) * size
    return budget_flops(net, whole.images.shape, unmasked)


def untrained(model: ModelRef, images: Images) -> UntrainedNetwork:
    """The network of a record; each is counted and traced once."""
    return _untrained(model.model_dump_json(), images)


@functools.cache
def _untrained(model: str, images: Images) -> UntrainedNetwork:
    return UntrainedNetwork(ModelRef.model_validate_json(model), images)


def untrained_published(network: PublishedNetwork) -> UntrainedNetwork:
    """A published network with its own image size and classes."""
    return untrained(own_ref(network.spec), Images(network.input, network.classes))


def measure_latency(rows: Mapping[str, Row]) -> dict[str, Spread]:
    """Milliseconds per image of each row's network, interleaved; equal networks measured once."""
    networks = {name: untrained(row.model, _images(row)) for name, row in rows.items()}
    with one_thread():
        measures = {
            net: rate(_step(net), BATCH, SECONDS, CLOCK) for net in dict.fromkeys(networks.values())
        }
        rates = interleave(measures, REPEATS)
    return {name: Spread.of([1000 / r for r in rates[net]]) for name, net in networks.items()}


def _images(row: Row) -> Images:
    classes = row.records[0].manifest.get("data", {}).get("classes", 10)
    size = row.run.recipe["image_size"]
    if size is None:
        size = dataset_size(row.run.data).image_size
    return Images(int(size), int(classes))


def _step(network: UntrainedNetwork) -> Callable[[], None]:
    net = network_of(network.model, network.images.classes).eval()
    net.to(memory_format=torch.channels_last)
    batch = torch.zeros(BATCH, *network.images.shape).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode():
            net(batch)

    return step


def scratch_b_epochs(large: int, pruned: int, base_epochs: int, *, capped: bool = False) -> int:
    """Epochs for which training at the budget ``pruned`` costs as much as the large network's.

    ``capped``: at most twice the epochs, as on ImageNet for predefined methods.
    """
    if capped and large >= CAP * pruned:
        return CAP * base_epochs
    return base_epochs * large // pruned


def budget_flops(
    model: nn.Module, image_size: tuple[int, int, int], unmasked: Mapping[str, int] | None = None
) -> int:
    """The budget for one image (channels, height, width), of any module that maps images.

    A multiply-accumulate counts as two; BatchNorm2d, ReLU and max-pooling count if they are
    modules, global pooling if it is not a VGG's. ``unmasked`` has the number of unmasked weights of
    convolutions by parameter name; all other weights count, zero or not.
    """
    budgets: list[int] = []

    def add(weights: int, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        budgets.append(_layer_budget(module, weights, args[0], output))

    blank = copy_on(model, "meta").eval()
    for name, module in blank.named_modules():
        every = module.weight.numel() if isinstance(module, nn.Conv2d) else 0
        weights = (unmasked or {}).get(f"{name}.weight", every)
        module.register_forward_hook(functools.partial(add, weights))
    with torch.no_grad(), skip_norms():
        blank(blank_image(blank, image_size))
    return sum(budgets)


def _layer_budget(module: Any, weights: int, x: Tensor, y: Tensor) -> int:
    """A layer's budget; ``weights`` is the number that count in a convolution."""
    from timm.layers import SelectAdaptivePool2d

    match module:
        case nn.Conv2d():
            positions = y[0, 0].numel()
            return (2 * weights + module.out_channels * (module.bias is not None)) * positions
        case nn.Linear():
            return int(2 * module.weight.numel() + module.out_features)
        case nn.BatchNorm2d():
            return 2 * y[0].numel()
        case nn.ReLU():
            return y[0].numel()
        case nn.MaxPool2d():
            side: Any = module.kernel_size
            return int(side**2 * y[0].numel())
        case SelectAdaptivePool2d():
            return x[0].numel()
    return x[0].numel() if type(module) is Head else 0


@functools.cache
def counted(name: str) -> dict[str, float]:
    """The counts of a published network, for one image. Raises UserError.

    ``weights`` are those of convolution and linear layers; ``bn_channels`` the number of scales
    among which network slimming sets its threshold. Shares, in percent, and the epochs of Scratch-B
    are there for pruned networks only.
    """
    network = get_network(name)
    untrained_net = untrained_published(network)
    net, budget = untrained_net.outline(), untrained_net.cost.budget
    total = cost.count(net, untrained_net.images.shape)
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    counts: dict[str, float] = {
        "params": total.params,
        "weights": sum(layer.weight.numel() for layer in layers),
        "macs": total.macs,
        "bn_channels": sum(norm.num_features for norm in norms),
        "budget_flops": budget,
    }
    if network.of is not None:
        whole, epochs = counted(network.of), network.base_epochs
        for count_of in ("params", "macs"):
            share = counts[count_of] / whole[count_of]
            counts[f"{count_of}_pruned_percent"] = 100 * (1 - share)
        counts["scratch_b_epochs"] = scratch_b_epochs(
            int(whole["budget_flops"]), budget, epochs, capped=network.is_capped
        )
    return counts


def differences(counts: Mapping[str, float], stated: Mapping[str, Any]) -> list[str]:
    """The names of the counts that differ from the stated ones."""
    return [
        name
        for name, value in counts.items()
        if name in stated and stated[name] != (round(value, 2) if "percent" in name else value)
    ]


def cost_tables() -> list[Table[Any]]:
    """One table of the published networks."""

    def column(key: str, heading: str, **options: Any) -> Column[PublishedNetwork]:
        return Column(key, heading, lambda network: counted(network.name).get(key), **options)

    columns: list[Column[PublishedNetwork]] = [
        Column("network", "network", lambda network: network.name, "text"),
        Column("label", "", lambda network: network.label, "text", min_width=160),
        column("params", "params", format=digits(3), prefixed=True),
        column("macs", "MACs", format=digits(4), prefixed=True),
        column("budget_flops", "authors' FLOPs", format=digits(4), prefixed=True),
        column("params_pruned_percent", "params pruned, %"),
        column("macs_pruned_percent", "MACs pruned, %"),
        column("scratch_b_epochs", "Scratch-B, epochs", format=count),
        Column("as_stated", "", _mark, "text"),
        column("weights", "weights", screen=False),
        column("bn_channels", "BatchNorm channels", screen=False),
        Column("model", "model", lambda network: network.model, "text", screen=False),
    ]
    return [Table("pruning_cost", TITLE, columns, list(networks().values()), NOTES)]


def _mark(network: PublishedNetwork) -> str:
    differing = differences(counted(network.name), network.stated)
    return f"not as stated: {', '.join(differing)}" if differing else "="
