"""What every task says alike of the data that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from convnext_study.data.dataset import DataParts
from convnext_study.data.fingerprint import check_same, fingerprint
from convnext_study.data.order import Order
from convnext_study.data.sharding import BatchSharding, accum_steps
from convnext_study.errors import did_you_mean
from convnext_study.imports import TaskError
from convnext_study.recipes import Recipe, make_recipe
from convnext_study.runs.records import Run, TaskRef
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Task


def warnings_of(data: DataParts, recipe: Mapping[str, Any]) -> list[str]:
    """What should be known before training on data by a recipe."""
    batch, count = recipe["global_batch_size"], len(data.train)
    if count >= batch:
        return list(data.notes)
    return [
        *data.notes,
        f"{data.uri}: has {count} training images, and the batch is {batch}: each step takes all "
        f"{count}, at the learning rate for a batch of {count}",
    ]


class OnData(Task):
    """A task on a data set with two parts, which takes images one optimizer's batch at a time."""

    def __init__(self, run: Run, runtime: Runtime, data: DataParts) -> None:
        self.run, self.runtime = run, runtime
        self.recipe = make_recipe(run.recipe).for_images(len(data.train))
        self._parts = data
        self._sharding = BatchSharding(runtime.rank, runtime.world_size, runtime.micro_batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch, the same in every process."""
        return self._order(0).steps

    @property
    def accum_steps(self) -> int:
        """How many batches of this process make one optimizer step."""
        return accum_steps(self.recipe.global_batch_size, self._sharding)

    @property
    def corrupt_images(self) -> int:
        """How often an image that cannot be used was met, in this process."""
        return self._parts.corrupt.replaced

    @property
    def corrupt_names(self) -> frozenset[str]:
        """Which images those were."""
        return frozenset(self._parts.corrupt.names)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON values that identify the data: names, sizes, digests."""
        return fingerprint(self._parts)

    def check_data(self, recorded: dict[str, Any], where: str) -> None:
        """Raise UserError, one line that begins with ``where``, for other data than recorded."""
        check_same(recorded, self.fingerprint, where)

    def schedule(self, recipe: Recipe) -> Recipe:
        """The recipe with a batch that the data can fill."""
        return recipe.for_images(len(self._parts.train))

    def warnings(self) -> Sequence[str]:
        """What is left unread, and a batch that the data cannot fill."""
        return warnings_of(self._parts, self.run.recipe)

    def _order(self, epoch: int) -> Order:
        count = len(self._parts.train)
        return Order(count, self.recipe.global_batch_size, self.run.seed, epoch)


Args = TypeVar("Args", bound=BaseModel)


def _weights(given: tuple[float, ...]) -> tuple[float, ...]:
    if not given or min(given) < 0 or max(given) == 0:
        raise ValueError("no number may be below 0, and one has to be above it")
    return given


# Of terms in a sum that is minimised: a loss of nothing trains nothing.
Weights = Annotated[tuple[float, ...], AfterValidator(_weights)]


def parse(kind: type[Args], task: TaskRef) -> Args:
    """A task's arguments, checked. Raises TaskError, one line that names the one at fault."""
    try:
        return kind.model_validate(task.args)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = first["type"] != "extra_forbidden"
        hint = "" if known else did_you_mean(where, list(kind.model_fields))
        raise TaskError(f"task {task.name}: {where}: {first['msg'].lower()}{hint}") from None
