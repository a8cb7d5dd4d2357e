"""A road map: a base network and named steps, each of which sets a few fields (no torch here)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from convnext_study.errors import UserError, did_you_mean
from convnext_study.roadmap.spec import NetSpec


class StepError(UserError):
    """A requested step or road map does not exist; the message names the closest one."""


@dataclass(frozen=True)
class Step:
    """A name and the fields it sets, in the network or in the recipe.

    No two steps of a road map set the same field, with the paper's two exceptions: the ResNet-200
    road's stage ratio sets the width that "increase width" sets again, and the side branches
    (``adopted=False``) are kernel sizes that were tried and not kept.

    Args:
        name: as used on the command line and in timm names.
        label: as printed in the paper's tables.
        section: of the paper.
        rationale: what the step changes and why it was tried, in a sentence or two.
        overrides: fields of `NetSpec`.
        recipe: the recipe of this row and all later ones, if the step sets it.
        adopted: False for a side branch.
    """

    name: str
    label: str
    section: str
    rationale: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    adopted: bool = True

    def __hash__(self) -> int:
        return hash(self.name)

    def replace(
        self, label: str, *, name: str | None = None, recipe: str | None = None, **overrides: Any
    ) -> Step:
        """The same step adapted to another road map."""
        return replace(
            self,
            label=label,
            name=name or self.name,
            recipe=recipe or self.recipe,
            overrides={**self.overrides, **overrides},
        )


@dataclass(frozen=True)
class Variant:
    """A row of a road map: a network, and the recipe that it was published with.

    ``parent`` is the name of the row it is compared with, the last adopted one before it.
    """

    regime: str
    name: str
    label: str
    spec: NetSpec
    recipe: str
    adopted: bool
    parent: str | None
    step: Step | None

    @property
    def model(self) -> str:
        """The name in timm. The first row is the second's network with another recipe."""
        name = self.name.removesuffix(BASELINE_SUFFIX)
        return f"roadmap_{self.regime}_{name}"


# The first row: the base network with its original recipe (90 epochs on ImageNet).
BASELINE_SUFFIX = "-90ep"
BASELINE_RECIPE = "classic"


@dataclass(frozen=True)
class Roadmap:
    """A base network and the steps from it, in the paper's order."""

    regime: str
    title: str
    base: NetSpec
    base_label: str
    steps: tuple[Step, ...]
    image_size: int = 224
    num_classes: int = 1000

    @property
    def published(self) -> bool:
        """Whether the paper has numbers for this road map."""
        from convnext_study.roadmap.paper import PAPER

        return self.regime in PAPER

    def step(self, name: str) -> Step:
        """The step of that name. Raises StepError, suggesting the closest one."""
        for step in self.steps:
            if step.name == name:
                return step
        raise StepError(
            f"{name}: no such step on the {self.regime} road map"
            f"{did_you_mean(name, [step.name for step in self.steps])}"
        )

    def apply(self, names: Iterable[str]) -> NetSpec:
        """The base network with a subset of the steps.

        The order of ``names`` does not matter: steps commute. If two set the same field (the
        exceptions above), the one that is later on the road wins.
        """
        wanted = {self.step(name).name for name in names}
        changes: dict[str, Any] = {}
        for step in self.steps:
            if step.name in wanted:
                changes.update(step.overrides)
        return self.base.replace(**changes)

    def adopted(self) -> tuple[str, ...]:
        """Names of the steps that lead to the end of the road, without side branches."""
        return tuple(step.name for step in self.steps if step.adopted)

    def scaled(self, factor: float) -> Roadmap:
        """The same road with every width multiplied and rounded: ours, not in the paper.

        Raises StepError if no channel is left.
        """
        narrowest = min(self.base.width, *(s.overrides.get("width", math.inf) for s in self.steps))
        if round(factor * narrowest) < 1:
            raise StepError(
                f"factor {factor:g}: leaves no channels of {narrowest}; use a larger factor"
            )
        steps = (
            step.replace(step.label, width=round(factor * step.overrides["width"]))
            if "width" in step.overrides
            else step
            for step in self.steps
        )
        base = self.base.replace(width=round(factor * self.base.width))
        return replace(self, base=base, steps=tuple(steps))

    def upto(self, name: str) -> NetSpec:
        """The network after all adopted steps up to and including ``name``."""
        before = self.steps[: self.steps.index(self.step(name))]
        return self.apply([*(step.name for step in before if step.adopted), name])

    def without(self, name: str) -> NetSpec:
        """The end of the road with one step left out."""
        left_out = self.step(name).name
        return self.apply(step for step in self.adopted() if step != left_out)

    def variants(self) -> tuple[Variant, ...]:
        """All rows, in the paper's order: the baseline, then one per step."""
        baseline = self.steps[0].name + BASELINE_SUFFIX
        rows = [
            Variant(
                regime=self.regime,
                name=baseline,
                label=self.base_label,
                spec=self.base,
                recipe=BASELINE_RECIPE,
                adopted=True,
                parent=None,
                step=None,
            )
        ]
        for step in self.steps:
            parent = _parent(rows, step)
            row = Variant(
                regime=self.regime,
                name=step.name,
                label=step.label,
                spec=self.upto(step.name),
                recipe=step.recipe or parent.recipe,
                adopted=step.adopted,
                parent=parent.name,
                step=step,
            )
            rows.append(row)
        return tuple(rows)

    def variant(self, name: str) -> Variant:
        """The row of that name. Raises StepError, suggesting the closest one."""
        rows = {variant.name: variant for variant in self.variants()}
        if name not in rows:
            raise StepError(
                f"{name}: no such step on the {self.regime} road "
                f"map{did_you_mean(name, list(rows))}"
            )
        return rows[name]


def _parent(rows: list[Variant], step: Step) -> Variant:
    """The last adopted row; for a side branch, the last one that does not set its fields."""
    fields = set() if step.adopted else set(step.overrides)
    on_road = [
        row for row in rows if row.adopted and not (row.step and fields & set(row.step.overrides))
    ]
    return on_road[-1]
