"""What the file of a study is told, and what it makes runs with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convnext_study.build import FILE_BUILDER, ROADMAP_BUILDER, file_digest
from convnext_study.errors import BadRequest
from convnext_study.launching.runs import roadmap_runs
from convnext_study.records import ModelRef, Record, Run
from convnext_study.results.subset_results import SubsetResults, group_by_subset
from convnext_study.roadmap import Point, Roadmap, Step
from convnext_study.roadmap.beyond import SECTION, extend, network_steps
from convnext_study.spec import NetSpec

DEFAULT_ORDERS = 8


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a study's file is told, and what it makes runs with.

    Args:
        road: the road map, with the further steps that were switched on.
        data: as on the command line.
        seeds: one run of every network for each.
        recipe: as in `recipe_for`; None is the road map's own.
        changes: recipe fields to set in every run.
        orders: how many orders of the steps to sample, half of them reverses of the others.
        by: ``step`` or ``section``: what an attribution shares the gain among.
        plain: the road map without further steps, by which networks are named.
        any_commit: whether runs made with other versions of the code count too.
    """

    road: Roadmap
    data: str = "digits"
    seeds: tuple[int, ...] = (0,)
    recipe: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    orders: int = DEFAULT_ORDERS
    by: str = "step"
    plain: Roadmap | None = None
    any_commit: bool = False

    def beside(self, *steps: Step) -> Context:
        """A context whose road has these steps beside its end, each on its own."""
        return self._extended(steps, adopted=False)

    def after(self, *steps: Step) -> Context:
        """A context whose road goes on with these steps, each after the one before."""
        return self._extended(steps, adopted=True)

    def _extended(self, steps: Iterable[Step], *, adopted: bool) -> Context:
        road = extend(self.road, *steps, adopted=adopted)
        return replace(self, road=road, plain=self.plain or self.road)

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that lead from the base to the end and change the network, in order."""
        return network_steps(self.road)

    @property
    def end(self) -> str:
        """The name of the last adopted row."""
        return self.road.adopted()[-1]

    def rows(self, names: Iterable[str] | None = None) -> list[Run]:
        """Runs of rows of the road map, all of them or those named, for every seed."""
        points = [self.road.point(name) for name in names] if names else self.road.points()
        return self._of(points)

    def sets(self, subsets: Iterable[Iterable[str]], kind: str) -> list[Run]:
        """Runs of the base with sets of steps, for every seed; repeats are trained once.

        ``kind`` is that of the study, such as ``leave_one_out``. A set that is a row of the road
        map is asked for as that row. Raises StepError for a step that the road does not have.
        """
        rows = {point.spec: point for point in self.road.points()[1:]}
        chosen = [frozenset(subset) for subset in subsets]
        templates = self._of([self.road.points()[1]])
        found = []
        for template in templates:
            for subset in chosen:
                spec = self.road.apply(subset)
                if point := rows.get(spec):
                    found += replace(self, seeds=(template.seed,))._of([point])
                else:
                    found.append(self._set(template, subset, spec, kind))
        return found

    def without_recipe(self) -> list[Run]:
        """Runs of the last network with the first row's recipe: the end without its training."""
        technique = next(name for name in self.road.adopted() if not self.road.step(name).sets)
        base = self.road.points()[0]
        end = self.road.point(self.end).spec
        return [
            self._set(run, frozenset(self.steps), end, "leave_one_out", without=technique)
            for run in self._of([base])
        ]

    def network(
        self, name: str, label: str, builder: str, args: dict[str, Any] | None = None
    ) -> list[Run]:
        """Runs of a network of your own, which stands beside the end of the road in every table.

        ``builder`` is ``module:function`` of something that is installed, or
        ``path/to/file.py:function``. It is called with ``args``, and by keyword with
        ``num_classes``, ``drop_path`` and ``init``, and returns a module from images to logits.
        """
        file, _, function = builder.rpartition(":")
        if not (file and function):
            raise BadRequest(f"builder: {builder!r}; use module:function or FILE.py:function")
        model = ModelRef(builder=builder, args=args or {})
        if file.endswith(".py"):
            path = _from_here(Path(file))
            about = {"file": str(path), "function": function, "sha256": file_digest(path)}
            model = ModelRef(builder=FILE_BUILDER, args={**about, "args": args or {}})
        step = Step(name=name, label=label, section=SECTION, why="")
        runs = self.beside(step).rows([name])
        return [run.model_copy(update={"model": model}) for run in runs]

    def group_by_subset(self, records: Iterable[Record]) -> SubsetResults:
        """The finished runs of this road's networks, as the functions of `attribution` take them.

        Those with the second row's recipe and this data count, whichever study asked for them.
        """
        like = self._of([self.road.points()[1]])[0]
        return group_by_subset(
            records,
            self.road,
            recipe=like.recipe,
            data=like.data,
            seeds=self.seeds,
            any_commit=self.any_commit,
        )

    def _of(self, points: Iterable[Point]) -> list[Run]:
        return roadmap_runs(
            self.road,
            points,
            data=self.data,
            seeds=self.seeds,
            recipe=self.recipe,
            changes=self.changes,
        )

    def _set(
        self, run: Run, subset: frozenset[str], spec: NetSpec, kind: str, without: str = ""
    ) -> Run:
        """``run`` with the network of a set of steps; ``without`` the recipe's step, if named."""
        technique = [name for name in self.road.adopted() if not self.road.step(name).sets]
        has = [name for name in self.road.adopted() if name in {*technique, *subset} - {without}]
        name, label = self._name_set(subset, without)
        facts = {
            "regime": self.road.regime,
            "study_kind": kind,
            "label": label,
            "steps": has,
            "adopted": False,
            "published": False,
        }
        study = f"{kind.replace('_', '-')}-{self.road.regime}"
        model = ModelRef(builder=ROADMAP_BUILDER, args=spec.to_dict())
        return run.model_copy(update={"study": study, "name": name, "model": model, "facts": facts})

    def _name_set(self, subset: frozenset[str], recipe: str) -> tuple[str, str]:
        """A name that depends on the set alone, whichever study asks for it, and words for it."""
        own = network_steps(self.plain or self.road)
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
