"""The networks of a folder by the steps they have, whichever study trained them.

Rows of a road map have the steps up to their own; others say theirs in the fact ``steps``, or
``left_out`` (of the end of the road) or ``added`` (to its base).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from convnext_study.results.attribution import Subset
from convnext_study.results.report.gather import Study
from convnext_study.results.setups import Group
from convnext_study.results.summary import Row
from convnext_study.roadmap import ROADMAPS, Roadmap, get_roadmap


@dataclass(frozen=True)
class Network:
    """A trained network and the steps it has, the one of the recipe among them."""

    steps: Subset
    row: Row
    group: Group


@dataclass(frozen=True)
class Family:
    """Networks of one road map that may be compared: on the same data, by the same code."""

    road: Roadmap
    data: str
    networks: dict[Subset, Network]

    @property
    def technique(self) -> Subset:
        """The steps that change the recipe and not the network."""
        return frozenset(step.name for step in self.road.steps if not step.sets)


def families(studies: Iterable[Study]) -> list[Family]:
    """All networks whose steps are known, sorted into families.

    Of each family, networks with another recipe than most that have the same training technique
    are left out, and so is a second network with the same steps.
    """
    found: dict[tuple[str, str, int | None, str], list[Network]] = {}
    for study in studies:
        for row in study.done:
            steps = steps_of(row)
            if steps is not None and row.regime is not None:
                group = study.groups[row.name]
                key = (row.regime, row.data, row.val_images, group.code)
                found.setdefault(key, []).append(Network(steps, row, group))
    return [_family(key[0], key[1], networks) for key, networks in found.items()]


def _family(regime: str, data: str, networks: list[Network]) -> Family:
    family = Family(get_roadmap(regime), data, {})
    for trained in (True, False):
        alike = [one for one in networks if (one.steps >= family.technique) == trained]
        recipes = Counter(one.row.recipe for one in alike)
        for one in alike:
            if one.row.recipe == recipes.most_common(1)[0][0]:
                family.networks.setdefault(one.steps, one)
    return family


def steps_of(row: Row) -> Subset | None:
    """The steps that a row's network has; None where its facts do not say.

    Networks whose width was set to match MACs are another family of their own.
    """
    if row.regime not in ROADMAPS or "equal_macs" in row.facts:
        return None
    road = get_roadmap(row.regime)
    technique = [name for name in road.adopted() if not road.step(name).sets]
    if "steps" in row.facts:
        return _names(row.facts["steps"])
    if "left_out" in row.facts:
        return frozenset(road.adopted()) - _names(row.facts["left_out"])
    if "added" in row.facts:
        return frozenset(technique) | _names(row.facts["added"])
    points = {point.name: point for point in road.points()}
    if row.study != f"roadmap-{road.regime}" or row.name not in points:
        return None
    step = points[row.name].step
    if step is None:
        return frozenset()
    before = road.steps[: road.steps.index(step)]
    return frozenset([*(one.name for one in before if one.adopted), step.name])


def _names(given: object) -> Subset:
    if isinstance(given, str):
        return frozenset([given])
    return frozenset(map(str, given)) if isinstance(given, list | tuple) else frozenset()
