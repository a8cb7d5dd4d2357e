"""What a study file is given, and what it makes runs with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convnext_study.errors import UserError
from convnext_study.experiments.data_identity import identify
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.imports import file_digest
from convnext_study.models.builders import FILE_BUILDER, ROADMAP_BUILDER, TIMM_BUILDER
from convnext_study.results.subset_results import RECIPE, SubsetResults, group_by_subset
from convnext_study.results.summary import MAY_DIFFER
from convnext_study.roadmap import Roadmap, Step, Variant
from convnext_study.roadmap.extensions import SECTION, extend, network_steps
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.records import ModelRef, Record, Run

DEFAULT_PERMUTATIONS = 8


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a study file is given, and what it makes runs with.

    Args:
        road: the road map, with the further steps that were switched on.
        data: as on the command line.
        seeds: one run of every network for each.
        recipe: as in `recipe_for`; None is the road map's own.
        changes: recipe fields to set in every run.
        permutations: how many orders of the steps to sample, half of them reverses of the others.
        players: ``step`` or ``section``: what an attribution shares the gain among.
        base_road: the road map without further steps, by which networks are named.
        networks: names of networks, for studies that can be made on any; none: the study's own.
        targets: what a study does to them, for studies that accept a choice; none: its own.
        any_commit: whether runs made with other versions of the code count too.
    """

    road: Roadmap
    data: str = "digits"
    seeds: tuple[int, ...] = (0,)
    recipe: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    permutations: int = DEFAULT_PERMUTATIONS
    players: str = "step"
    base_road: Roadmap | None = None
    networks: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    any_commit: bool = False

    def with_branches(self, *steps: Step) -> Context:
        """A context whose road has these steps beside its end, each on its own."""
        return self._extended(steps, adopted=False)

    def with_steps(self, *steps: Step) -> Context:
        """A context whose road goes on with these steps, each after the one before."""
        return self._extended(steps, adopted=True)

    def _extended(self, steps: Iterable[Step], *, adopted: bool) -> Context:
        road = extend(self.road, *steps, adopted=adopted)
        return replace(self, road=road, base_road=self.base_road or self.road)

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that lead from the base to the end and change the network, in order."""
        return network_steps(self.road)

    @property
    def last_step(self) -> str:
        """The name of the last adopted row."""
        return self.road.adopted()[-1]

    def runs(self, names: Iterable[str] | None = None) -> list[Run]:
        """Runs of rows of the road map, all of them or those named, for every seed."""
        variants = [self.road.variant(name) for name in names] if names else self.road.variants()
        return self._of(variants)

    def subsets(self, coalitions: Iterable[Iterable[str]], kind: str) -> list[Run]:
        """Runs of the base with sets of steps, for every seed; repeats are trained once.

        ``kind`` is that of the study, such as ``leave_one_out``. A set that is a row of the road
        map is made as that row. Raises StepError for a step that the road does not have.
        """
        first, *others = self.road.variants()[1:]
        # All with one recipe: a row with another, as ConvNeXt-B's, is no set of the same kind.
        rows = {row.spec: row for row in (first, *others) if row.recipe == first.recipe}
        chosen = [frozenset(subset) for subset in coalitions]
        templates = self._of([first])
        found = []
        for template in templates:
            for subset in chosen:
                spec = self.road.apply(subset)
                if variant := rows.get(spec):
                    found += replace(self, seeds=(template.seed,))._of([variant])
                else:
                    found.append(self._set(template, subset, spec, kind))
        return found

    def without_recipe(self) -> list[Run]:
        """Runs of the last network with the first row's recipe: the end without its training."""
        technique = next(name for name in self.road.adopted() if not self.road.step(name).overrides)
        base = self.road.variants()[0]
        end = self.road.variant(self.last_step).spec
        return [
            self._set(run, frozenset(self.steps), end, "leave_one_out", without=technique)
            for run in self._of([base])
        ]

    def network(
        self, name: str, label: str, builder: str, args: dict[str, Any] | None = None
    ) -> list[Run]:
        """Runs of a network of your own, which is compared with the last row in every table.

        ``builder`` is ``path/to/file.py:function``, ``module:function`` of something that is
        installed, or ``timm``. It is called with ``args`` (timm's with a ``name`` among them), and
        by keyword with ``num_classes``, ``drop_path`` and ``init``, and returns a module from
        images to logits.
        """
        file, _, function = builder.rpartition(":")
        if not (file and function) and builder != TIMM_BUILDER:
            raise UserError(f"builder: {builder!r}; use FILE.py:function, module:function or timm")
        model = ModelRef(builder=builder, args=args or {})
        if file.endswith(".py"):
            path = _from_here(Path(file))
            about = {"file": str(path), "function": function, "sha256": file_digest(path)}
            model = ModelRef(builder=FILE_BUILDER, args={**about, "args": args or {}})
        step = Step(name=name, label=label, section=SECTION, rationale="")
        runs = self.with_branches(step).runs([name])
        return [run.model_copy(update={"model": model}) for run in runs]

    def group_by_subset(self, records: Iterable[Record]) -> SubsetResults:
        """The finished runs of this road's networks, as the functions of `attribution` take them.

        Those with the second row's recipe and this data count, whichever study requested them.
        """
        records = list(records)
        asked = self._of([self.road.variants()[1]])
        like = identify(asked, [record.run for record in records])[0]
        return group_by_subset(
            records,
            self.road,
            recipe=like.recipe,
            data=like.data_identity,
            seeds=self.seeds,
            any_commit=self.any_commit,
        )

    def _of(self, variants: Iterable[Variant]) -> list[Run]:
        return roadmap_runs(
            self.road,
            variants,
            data=self.data,
            seeds=self.seeds,
            recipe=self.recipe,
            changes=self.changes,
        )

    def _set(
        self, run: Run, subset: frozenset[str], spec: NetSpec, kind: str, without: str = ""
    ) -> Run:
        """``run`` with the network of a set of steps; ``without`` the recipe's step, if named."""
        technique = [name for name in self.road.adopted() if not self.road.step(name).overrides]
        has = [name for name in self.road.adopted() if name in {*technique, *subset} - {without}]
        name, label = self._name_set(subset, without)
        metadata = {
            "regime": self.road.regime,
            "study_kind": kind,
            "label": label,
            "steps": has,
            "adopted": False,
            "published": False,
            RECIPE: run.metadata[RECIPE],
            **({MAY_DIFFER: ["recipe"]} if without else {}),
        }
        study = f"{kind.replace('_', '-')}-{self.road.regime}"
        model = ModelRef(builder=ROADMAP_BUILDER, args=spec.to_dict())
        return run.model_copy(
            update={"study": study, "name": name, "model": model, "metadata": metadata}
        )

    def _name_set(self, subset: frozenset[str], recipe: str) -> tuple[str, str]:
        """A name that depends on the set alone, whichever study asks for it, and words for it."""
        own = network_steps(self.base_road or self.road)
        further = [name for name in self.road.adopted() if name in subset and name not in own]
        inside = [name for name in own if name in subset]
        outside = [name for name in own if name not in subset]
        if recipe:
            name, label = f"without_{recipe}", f"without {self.road.step(recipe).label}"
        elif not outside:
            name, label = "end", "the end"
        elif not inside:
            name, label = "base", "the base"
        elif len(outside) <= 2:
            name, label = "without_" + "-".join(outside), "without " + self._labels(outside)
        elif len(inside) <= 2:
            name, label = "only_" + "-".join(inside), "only " + self._labels(inside)
        else:
            digest = hashlib.sha256(",".join(sorted(inside)).encode()).hexdigest()[:8]
            name, label = f"set-{digest}", self._labels(inside)
        return "+".join([name, *further]), " + ".join([label, *further])

    def _labels(self, names: Iterable[str]) -> str:
        return ", ".join(self.road.step(name).label for name in names)


def _from_here(path: Path) -> Path:
    """Relative to the working directory where it lies below it, so that a record names no home."""
    whole, here = path.absolute(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole
