"""Tasks on maps, by a network with one output or with several exits: what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.cost import Cost as Counted
from convnext_study.data.batch import Batch
from convnext_study.data.dataset import DataParts, check_readable
from convnext_study.data.dense.loader import train_batches, val_batches
from convnext_study.data.device import Prepare, prefetcher
from convnext_study.data.pool import Readers
from convnext_study.data.rng import fold_in, seed_everything
from convnext_study.data.sharding import most_batches
from convnext_study.imports import TaskError
from convnext_study.models.builders import get_builder
from convnext_study.recipes import Recipe, RecipeError
from convnext_study.runs.metrics import Cost, Metric
from convnext_study.runs.records import Run
from convnext_study.training.distributed import all_gather
from convnext_study.training.guard import check_scores, finite_rows
from convnext_study.training.runtime import Runtime
from convnext_study.training.stochastic_depth import Masks, share_masks
from convnext_study.training.task import Evaluation, Parent, load_weights
from convnext_study.training.tasks.on_data import OnData

Evidence = Mapping[str, Tensor]
LOSS = "val_loss"
PLACES = "places"  # evidence: where each image stands in the validation part, (n,) int64


class ExitsTask(OnData):
    """A loss summed over a network's exits, and metrics of each.

    A network gives maps (n, ``channels``, h, w) of any size, or a sequence of them, from the first
    exit to the last. What an exit costs it may tell by ``exit_costs(image_shape)``: a `cost.Cost`
    for each, with all that is computed before it.

    Args:
        run: what is trained.
        runtime: on what.
        data: images with arrays.
        channels: of the network's output.
        exit_weights: of each exit in the sum; None: all 1.
        eval_batch: validation images that are taken at a time.
    """

    def __init__(
        self,
        run: Run,
        runtime: Runtime,
        data: DataParts,
        *,
        channels: int,
        exit_weights: Sequence[float] | None,
        eval_batch: int,
    ) -> None:
        super().__init__(run, runtime, data)
        check_recipe(self.recipe, run.task.name)
        self._channels, self._given, self._eval_batch = channels, exit_weights, eval_batch
        self._masks: Masks | None = None
        self._prepare = Prepare(data, runtime.device, runtime.memory_format)
        self._ahead = prefetcher(runtime.device)
        self._readers: Readers | None = None

    @abstractmethod
    def image_losses(self, exits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The loss of each image, (n,), summed over the exits."""

    @abstractmethod
    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        """What the metrics are computed from: of each name (n, ...) numbers for each image."""

    @abstractmethod
    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        """Metrics by name, and which is primary, from the evidence of all validation images."""

    @abstractmethod
    def readers(self, largest_batch: int) -> Readers:
        """What reads the data."""

    @property
    def num_classes(self) -> int:
        """Channels of the network's output."""
        return self._channels

    def build(self, parent: Parent | None = None) -> nn.Module:
        """The run's network, with random weights from torch's global generator, or the parent's."""
        net: nn.Module = get_builder(self.run.model.builder)(
            self.run.model.args,
            num_classes=self._channels,
            drop_path=self.recipe.drop_path,
            init=self.recipe.init,
        )
        if parent is not None:
            load_weights(net, parent)
        self._masks = share_masks(net, self.run.seed, self.recipe.global_batch_size)
        return net

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """This process's batches of an epoch (from 0), from optimizer step ``start`` on."""
        order, readers = self._order(epoch), self._reading()
        return train_batches(self._parts, order, readers, start, self._sharding, self._ahead)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """The mean of the images' losses, and the number of images."""
        images, labels = self._prepare(batch)
        if self._masks is not None:
            self._masks.fill(batch.step, batch.places, images.device)
        return self.image_losses(self.exits(model, images), labels).mean(), len(labels)

    def exits(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        """The maps of every exit, (n, channels, h, w) each. Raises TaskError for other outputs."""
        output = model(images)
        exits = [output] if isinstance(output, Tensor) else list(output)
        if self._given is not None and len(self._given) != len(exits):
            raise TaskError(f"exit_weights: {len(self._given)} numbers, and {len(exits)} exits")
        for one in exits:
            if one.ndim != 4 or one.shape[1] != self._channels:
                raise TaskError(
                    f"builder {self.run.model.builder!r}: gives {tuple(one.shape)}, and the task "
                    f"{self.run.task.name} needs (n, {self._channels}, h, w)"
                )
        return exits

    def observed(self, model: nn.Module, images: Tensor) -> tuple[Sequence[Tensor], Evidence]:
        """In evaluation: the maps of every exit, and what else a study's metrics are of."""
        return self.exits(model, images), {}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
        """Metrics of every exit, and the loss, in every process."""
        bad = self.corrupt_images
        found: list[Evidence] = []
        finite: list[Tensor] = []
        size, readers = self._eval_batch, self._reading()
        for batch in val_batches(self._parts, size, readers, self._sharding, self._ahead):
            images, labels = self._prepare(batch)
            # For masks that are drawn by chance: the same after a resume.
            place = int(batch.places[0])
            seed_everything(fold_in(self.run.seed, "evaluate", place), self.runtime.device)
            exits, seen = self.observed(model, images)
            finite.append(torch.stack([finite_rows(one) for one in exits]).all(0))
            if not finite[-1].all():  # there will be no result, and counting goes by numbers
                exits = [one.nan_to_num() for one in exits]
            every = {LOSS: self.image_losses(exits, labels), PLACES: batch.places}
            measured = {**every, **seen, **self.measure(exits, labels)}
            found.append({name: one.cpu() for name, one in measured.items()})
            check()
        # Parts differ by an image, which can be a batch; a part can even be empty.
        for _ in range(len(found), most_batches(len(self._parts.val), size, self._sharding)):
            check()
        check_scores(finite, model)
        return self._joined(found, self.corrupt_images - bad)

    def costs(self, model: nn.Module) -> dict[str, Cost]:
        """Of the network, and up to each exit, ``exit1`` and so on, where the network tells."""
        found = super().costs(model)
        tell: Callable[[tuple[int, int, int]], Sequence[Counted]] | None
        tell = getattr(model, "exit_costs", None)
        for number, one in enumerate(tell(self.image_shape) if tell else (), 1):
            found[f"exit{number}"] = Cost(
                macs=one.macs, params=one.params, activations=one.activations
            )
        return found

    def exit_weights(self, exits: int) -> Sequence[float]:
        """Of each exit's loss in their sum."""
        return [1.0] * exits if self._given is None else self._given

    def _joined(self, found: list[Evidence], bad: int) -> Evaluation:
        """The evaluation of all parts from this process's, batch by batch."""
        parts = all_gather((_one_after_another(found), bad))
        held = [part for part, _ in parts if part]
        check_readable(self._parts, len(held))
        evidence = _one_after_another(held)
        metrics, primary = self.metrics(evidence)
        loss = Metric(
            value=float(evidence[LOSS].double().mean()),
            label="validation loss",
            unit="",
            higher_is_better=False,
        )
        return Evaluation(
            metrics={**metrics, LOSS: loss},
            primary=primary,
            images=len(evidence[LOSS]),
            corrupt_images=sum(one for _, one in parts),
        )

    def _reading(self) -> Readers:
        """The processes that read, kept from one epoch to the next."""
        if self._readers is None:
            piece = self.recipe.global_batch_size // self.runtime.world_size // self.accum_steps
            self._readers = self.readers(max(piece, self._eval_batch))
        return self._readers


def _one_after_another(parts: Sequence[Evidence]) -> Evidence:
    names = parts[0] if parts else ()
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def check_recipe(recipe: Recipe, task: str) -> None:
    """Raises RecipeError, one line, for settings that a task on maps would leave unused."""
    for name in ("mixup", "cutmix", "rand_augment", "color_jitter", "random_erasing", "image_size"):
        if value := getattr(recipe, name):
            raise RecipeError(
                f"recipe {recipe.name}: {name} {value!r}: the task {task} has no use for it; leave "
                f"it out"
            )


def enlarged(maps: Tensor, height: int, width: int) -> Tensor:
    """(n, channels, h, w) in float32, interpolated to another size."""
    maps = maps.float()
    if maps.shape[2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
