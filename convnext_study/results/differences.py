"""Every row against its parent, tested in two ways and corrected for the number of rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnext_study.errors import UserError
from convnext_study.results.compare import IMAGES_ONLY, Comparison, compare, holm_adjust
from convnext_study.results.grouping import RunGroup
from convnext_study.results.noise import pooled_std
from convnext_study.results.statistics import PooledStd

if TYPE_CHECKING:
    from convnext_study.results.rows import ResultRow


@dataclass(frozen=True)
class RowTests:
    """Tests of each row against its parent, by the row's name.

    ``plain`` is the test that the two rows' own runs allow, and the one that decides what is
    marked; ``pooled`` takes the standard deviation between seeds from the whole study, where
    there are several seeds. Each is adjusted over its own rows. ``whole`` is the last
    adopted row against the first, tested alone.
    """

    plain: dict[str, Comparison]
    pooled: dict[str, Comparison]
    std: PooledStd | None
    whole: Comparison | None

    @property
    def one_seed(self) -> bool:
        """Whether some of the tests cover the choice of test images only."""
        return any(one.scope == IMAGES_ONLY for one in self.plain.values())

    def significant(self, name: str) -> bool | None:
        """Whether a row's change is significant; None where it was not tested."""
        return self.plain[name].significant if name in self.plain else None


def tests_of(rows: Sequence[ResultRow], groups: Mapping[str, RunGroup]) -> RowTests:
    """Test every row that has a gain over its parent."""
    std = pooled_std(_alike(rows, groups), "rows of this study")
    pairs = {row.name: row.parent for row in rows if row.gain is not None and row.parent}
    plain, pooled = {}, {}
    for name, parent in pairs.items():
        if found := compare_groups(groups[name], groups[parent]):
            plain[name] = found
        if std and (found := compare_groups(groups[name], groups[parent], std)):
            pooled[name] = found
    return RowTests(holm_adjust(plain), holm_adjust(pooled), std, _whole(rows, groups))


def compare_groups(
    child: RunGroup, parent: RunGroup, std: PooledStd | None = None
) -> Comparison | None:
    """None where the records do not allow a comparison, as with other test images."""
    try:
        return compare(child.seeds.values(), parent.seeds.values(), std=std)
    except UserError:
        return None


def _alike(rows: Sequence[ResultRow], groups: Mapping[str, RunGroup]) -> list[ResultRow]:
    """Rows that may be pooled: of one code and recipe, and those that may be compared with them.

    Of several such sets it is the one that most rows belong to.
    """
    kinds = {row.name: _conditions(groups[row.name]) for row in rows}
    for row in rows:  # what is compared with its parent belongs to it
        if row.gain is not None and row.parent in kinds:
            mine, its = kinds[row.name], kinds[row.parent]
            kinds = {name: its if kind == mine else kind for name, kind in kinds.items()}
    several = [row for row in rows if len(row.seeds) > 1]
    most = Counter(kinds[row.name] for row in several).most_common(1)
    return [row for row in several if kinds[row.name] == most[0][0]]


def _conditions(group: RunGroup) -> str:
    recipe = {name: value for name, value in group.run.recipe.items() if name != "name"}
    return json.dumps([group.code, recipe], sort_keys=True)


def _whole(rows: Sequence[ResultRow], groups: Mapping[str, RunGroup]) -> Comparison | None:
    """The two ends, where every adopted row between them was compared with the one before."""
    road = [row for row in rows if row.adopted]
    linked = all(row.gain is not None for row in road[1:])
    if len(road) < 3 or not linked or any(row.parent is None for row in road[1:]):
        return None
    return compare_groups(groups[road[-1].name], groups[road[0].name])
