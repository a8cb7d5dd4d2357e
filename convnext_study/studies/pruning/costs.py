"""What networks cost: for ``convnext-study cost --study pruning``, for targets, and for Scratch-B.

Scratch-B's epochs follow from what the paper's scripts call FLOPs, the budget here, which is no
cost to show: that is `cost.count`.
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
# Of measured time; the clock is that of this process alone: others may use the machine too.
BATCH, REPEATS, SECONDS = 32, 5, 0.1
CLOCK = time.process_time
LATENCY_NOTE = (
    f"latency: ms of processor time of one image in batches of {BATCH}, forward, float32, one "
    f"thread, channels last, median of {REPEATS} turns with all networks in turn; masked networks "
    "take the time of whole ones."
)
TITLE = "Pruning: the published networks, counted"
NOTES = (
    "Pruned shares are those of the network that it was pruned from. Scratch-B: epochs that cost "
    "what that network's training cost, by the authors' count of FLOPs, which is no cost to show "
    "beside MACs.",
    "= all counts are those worked out by hand from the sources.",
)


@dataclass(frozen=True)
class Images:
    """What a network sees: side in pixels, and how many classes there are."""

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
    """A record's network before anything is trained: what it costs, and which channels can go."""

    model: ModelRef
    images: Images

    @functools.cached_property
    def cost(self) -> ModelCost:
        """Its counts."""
        net, shape = self.outline(), self.images.shape
        return ModelCost(cost.count(net, shape).macs, budget_flops(net, shape))

    @functools.cached_property
    def sound(self) -> Sound:
        """Its channels that can go, and the layers that stay whole. Raises UserError as
        `find_groups` does."""
        return find_groups(self.outline(), self.images.shape)

    @property
    def filters(self) -> list[Group]:
        """The layers whose own filters can go, those of the classifier left out."""
        return [one for one in self.sound.groups if one.stage >= 0 and one.producers]

    def narrowed(self, widths: Mapping[str, int]) -> UntrainedNetwork:
        """The network of these widths."""
        kept = kept_of(widths, self.sound.groups)
        return untrained(pruned_ref(self.model, kept, self.images.shape), self.images)

    def outline(self) -> nn.Module:
        """Of this study's networks shapes alone, which is all that is counted; others are traced,
        with weights."""
        with torch.device("meta" if self.model.builder == OWN else "cpu"):
            return network_of(self.model, self.images.classes)


@functools.cache
def masked_budget(whole: UntrainedNetwork, ratio: float, *, filters: bool) -> int:
    """The budget under masks on all convolutions: without so large a share of each one's filters,
    as soft filter pruning leaves it, or of its weights."""
    net, left = whole.outline(), {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            # What goes as one: a filter, or a weight.
            each = module.weight[0].numel() if filters else 1
            units = module.weight.numel() // each
            left[f"{name}.weight"] = (units - int(units * ratio)) * each
    return budget_flops(net, whole.images.shape, left)


def untrained(model: ModelRef, images: Images) -> UntrainedNetwork:
    """The network of a record; each is counted and traced once."""
    return _untrained(model.model_dump_json(), images)


@functools.cache
def _untrained(model: str, images: Images) -> UntrainedNetwork:
    return UntrainedNetwork(ModelRef.model_validate_json(model), images)


def untrained_published(network: PublishedNetwork) -> UntrainedNetwork:
    """A published network, on the images that it is for."""
    return untrained(own_ref(network.spec), Images(network.input, network.classes))


def measure_latency(rows: Mapping[str, Row]) -> dict[str, Spread]:
    """Milliseconds of an image of each row's network; equal ones are measured once, all in turn."""
    networks = {name: untrained(row.model, _images(row)) for name, row in rows.items()}
    with one_thread():
        measures = {
            one: rate(_step(one), BATCH, SECONDS, CLOCK) for one in dict.fromkeys(networks.values())
        }
        rates = interleave(measures, REPEATS)
    return {name: Spread.of([1000 / one for one in rates[net]]) for name, net in networks.items()}


def _images(row: Row) -> Images:
    about = row.records[0].manifest.get("data", {})
    size = row.run.recipe["image_size"]
    if size is None:
        size = dataset_size(row.run.data).image_size
    return Images(int(size), int(about.get("classes", 10)))


def _step(network: UntrainedNetwork) -> Callable[[], None]:
    net = network_of(network.model, network.images.classes).eval()
    net.to(memory_format=torch.channels_last)
    batch = torch.zeros(BATCH, *network.images.shape).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode():
            net(batch)

    return step


def scratch_b_epochs(large: int, pruned: int, base_epochs: int, *, capped: bool = False) -> int:
    """Epochs in which a network of the budget ``pruned`` costs what the large one's training cost.

    ``capped``: never longer than twice as long, as on ImageNet for predefined methods.
    """
    if capped and large >= CAP * pruned:
        return CAP * base_epochs
    return base_epochs * large // pruned


def budget_flops(
    model: nn.Module, image_size: tuple[int, int, int], left: Mapping[str, int] | None = None
) -> int:
    """The budget of one image (channels, height, width), for any module that maps images.

    A multiply-accumulate counts as two; BatchNorm2d, ReLU and max-pooling count where they are
    modules, global pooling where it is none of a VGG. ``left`` has the weights that masks leave of
    convolutions, by the parameter's name; other weights count whatever their values are.
    """
    found: list[int] = []

    def add(weights: int, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(_budget(module, weights, args[0], output))

    blank = copy_on(model, "meta").eval()
    for name, module in blank.named_modules():
        whole = module.weight.numel() if isinstance(module, nn.Conv2d) else 0
        weights = (left or {}).get(f"{name}.weight", whole)
        module.register_forward_hook(functools.partial(add, weights))
    with torch.no_grad(), skip_norms():
        blank(blank_image(blank, image_size))
    return sum(found)


def _budget(module: Any, weights: int, x: Tensor, y: Tensor) -> int:
    """What a layer adds, a convolution with so many weights."""
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

    ``weights`` are those of convolution and linear layers; ``bn_channels`` is the pool in which
    network slimming takes its threshold. The shares, in percent, and the epochs of Scratch-B are of
    pruned networks alone.
    """
    network = get_network(name)
    one = untrained_published(network)
    net, budget = one.outline(), one.cost.budget
    counts = cost.count(net, one.images.shape)
    layers = [one for one in net.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    norms = [one for one in net.modules() if isinstance(one, nn.BatchNorm2d)]
    found: dict[str, float] = {
        "params": counts.params,
        "weights": sum(layer.weight.numel() for layer in layers),
        "macs": counts.macs,
        "bn_channels": sum(norm.num_features for norm in norms),
        "budget_flops": budget,
    }
    if network.of is not None:
        whole, epochs = counted(network.of), network.base_epochs
        for count_of in ("params", "macs"):
            left = found[count_of] / whole[count_of]
            found[f"{count_of}_pruned_percent"] = 100 * (1 - left)
        found["scratch_b_epochs"] = scratch_b_epochs(
            int(whole["budget_flops"]), budget, epochs, capped=network.is_capped
        )
    return found


def differences(found: Mapping[str, float], stated: Mapping[str, Any]) -> list[str]:
    """The names of the counts that are not those of the file."""
    return [
        name
        for name, value in found.items()
        if name in stated and stated[name] != (round(value, 2) if "percent" in name else value)
    ]


def cost_tables() -> list[Table[Any]]:
    """One table of the published networks."""

    def column(key: str, heading: str, **how: Any) -> Column[PublishedNetwork]:
        return Column(key, heading, lambda one: counted(one.name).get(key), **how)

    columns: list[Column[PublishedNetwork]] = [
        Column("network", "network", lambda one: one.name, "text"),
        Column("label", "", lambda one: one.label, "text", min_width=160),
        column("params", "params", format=digits(3), prefixed=True),
        column("macs", "MACs", format=digits(4), prefixed=True),
        column("budget_flops", "authors' FLOPs", format=digits(4), prefixed=True),
        column("params_pruned_percent", "params pruned, %"),
        column("macs_pruned_percent", "MACs pruned, %"),
        column("scratch_b_epochs", "Scratch-B, epochs", format=count),
        Column("as_stated", "", _mark, "text"),
        column("weights", "weights", screen=False),
        column("bn_channels", "BatchNorm channels", screen=False),
        Column("model", "model", lambda one: one.model, "text", screen=False),
    ]
    return [Table("pruning_cost", TITLE, columns, list(networks().values()), NOTES)]


def _mark(network: PublishedNetwork) -> str:
    differing = differences(counted(network.name), network.stated)
    return f"not as stated: {', '.join(differing)}" if differing else "="
