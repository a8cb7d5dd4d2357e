"""The context of a study file, which makes its runs."""

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
    """What a study file gets from the command line, and makes runs with.

    Args:
        road: the road map, with the extra steps that were requested.
        data: as on the command line.
        seeds: one run of every network for each.
        recipe: as in `recipe_for`; None is the road map's own.
        changes: recipe fields to set in every run.
        permutations: how many orders of the steps to sample, half of them reverses of the others.
        players: ``step`` or ``section``: what an attribution divides the gain among.
        base_road: the road map without extra steps, by which networks are named.
        networks: names of networks, for studies that accept a choice; none: the study's own.
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
        """A context whose road has each of these steps as a branch at its end."""
        return self._extended(steps, adopted=False)

    def with_steps(self, *steps: Step) -> Context:
        """A context whose road continues with these steps, one after another."""
        return self._extended(steps, adopted=True)

    def _extended(self, steps: Iterable[Step], *, adopted: bool) -> Context:
        road = extend(self.road, *steps, adopted=adopted)
        return replace(self, road=road, base_road=self.base_road or self.road)

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps between base and end that change the network, in order."""
        return network_steps(self.road)

    @property
    def last_step(self) -> str:
        """The name of the last adopted row."""
        return self.road.adopted()[-1]

    def runs(self, names: Iterable[str] | None = None) -> list[Run]:
        """Runs of the road map's rows, all of them or those named, for every seed."""
        variants = [self.road.variant(name) for name in names] if names else self.road.variants()
        return self._runs_of(variants)

    def subsets(self, coalitions: Iterable[Iterable[str]], kind: str) -> list[Run]:
        """Runs of the base with sets of steps, for every seed; repeats are trained once.

        ``kind`` is the study's, such as ``leave_one_out``. A set that is a row of the road map
        becomes that row. Raises StepError for a step that the road does not have.
        """
        first, *others = self.road.variants()[1:]
        # Only rows with the same recipe: one with another, such as ConvNeXt-B, is not comparable.
        rows = {row.spec: row for row in (first, *others) if row.recipe == first.recipe}
        step_sets = [frozenset(subset) for subset in coalitions]
        templates = self._runs_of([first])
        runs = []
        for template in templates:
            for subset in step_sets:
                spec = self.road.apply(subset)
                if variant := rows.get(spec):
                    runs += replace(self, seeds=(template.seed,))._runs_of([variant])
                else:
                    runs.append(self._subset_run(template, subset, spec, kind))
        return runs

    def without_recipe(self) -> list[Run]:
        """Runs of the last network with the first row's recipe, without the training step."""
        technique = next(name for name in self.road.adopted() if not self.road.step(name).overrides)
        base = self.road.variants()[0]
        end = self.road.variant(self.last_step).spec
        return [
            self._subset_run(run, frozenset(self.steps), end, "leave_one_out", without=technique)
            for run in self._runs_of([base])
        ]

    def network(
        self, name: str, label: str, builder: str, args: dict[str, Any] | None = None
    ) -> list[Run]:
        """Runs of a network of your own, which is compared with the last row in every table.

        ``builder`` is ``path/to/file.py:function``, an installed ``module:function``, or ``timm``.
        It is called with ``args`` (for timm including a ``name``) and the keywords
        ``num_classes``, ``drop_path`` and ``init``, and returns a module that maps images to
        logits.
        """
        file, _, function = builder.rpartition(":")
        if not (file and function) and builder != TIMM_BUILDER:
            raise UserError(f"builder: {builder!r}; use FILE.py:function, module:function or timm")
        model = ModelRef(builder=builder, args=args or {})
        if file.endswith(".py"):
            path = _relative_to_cwd(Path(file))
            source = {"file": str(path), "function": function, "sha256": file_digest(path)}
            model = ModelRef(builder=FILE_BUILDER, args={**source, "args": args or {}})
        step = Step(name=name, label=label, section=SECTION, rationale="")
        runs = self.with_branches(step).runs([name])
        return [run.model_copy(update={"model": model}) for run in runs]

    def group_by_subset(self, records: Iterable[Record]) -> SubsetResults:
        """The finished runs of this road's networks, for the functions of `attribution`.

        Runs with the second row's recipe and this data count, whichever study requested them.
        """
        records = list(records)
        requested = self._runs_of([self.road.variants()[1]])
        example = identify(requested, [record.run for record in records])[0]
        return group_by_subset(
            records,
            self.road,
            recipe=example.recipe,
            data=example.data_identity,
            seeds=self.seeds,
            any_commit=self.any_commit,
        )

    def _runs_of(self, variants: Iterable[Variant]) -> list[Run]:
        return roadmap_runs(
            self.road,
            variants,
            data=self.data,
            seeds=self.seeds,
            recipe=self.recipe,
            changes=self.changes,
        )

    def _subset_run(
        self, run: Run, subset: frozenset[str], spec: NetSpec, kind: str, without: str = ""
    ) -> Run:
        """``run`` with a set of steps' network, and ``without`` the recipe's step if named."""
        technique = [name for name in self.road.adopted() if not self.road.step(name).overrides]
        steps = [name for name in self.road.adopted() if name in {*technique, *subset} - {without}]
        name, label = self._name_set(subset, without)
        metadata = {
            "regime": self.road.regime,
            "study_kind": kind,
            "label": label,
            "steps": steps,
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
        """A name that depends only on the set, not on the study, and a label."""
        road_steps = network_steps(self.base_road or self.road)
        adopted = [name for name in self.road.adopted() if name in subset]
        extensions = [name for name in adopted if name not in road_steps]
        present = [name for name in road_steps if name in subset]
        missing = [name for name in road_steps if name not in subset]
        if recipe:
            name, label = f"without_{recipe}", f"without {self.road.step(recipe).label}"
        elif not missing:
            name, label = "end", "the end"
        elif not present:
            name, label = "base", "the base"
        elif len(missing) <= 2:
            name, label = "without_" + "-".join(missing), "without " + self._labels(missing)
        elif len(present) <= 2:
            name, label = "only_" + "-".join(present), "only " + self._labels(present)
        else:
            digest = hashlib.sha256(",".join(sorted(present)).encode()).hexdigest()[:8]
            name, label = f"set-{digest}", self._labels(present)
        return "+".join([name, *extensions]), " + ".join([label, *extensions])

    def _labels(self, names: Iterable[str]) -> str:
        return ", ".join(self.road.step(name).label for name in names)


def _relative_to_cwd(path: Path) -> Path:
    """Relative to the working directory if it is below it, so that a record names no home."""
    absolute, cwd = path.absolute(), Path.cwd()
    return absolute.relative_to(cwd) if absolute.is_relative_to(cwd) else absolute
