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
    """Rows that may be pooled: of the code and, in each family, the recipe that most rows have."""

    def recipe(row: ResultRow) -> tuple[str, str]:
        fields = groups[row.name].run.recipe
        return str(fields.get("family")), json.dumps(fields, sort_keys=True)

    several = [row for row in rows if len(row.seeds) > 1]
    codes = Counter(groups[row.name].code for row in several).most_common(1)
    usual: dict[str, str] = {}
    for (family, fields), _ in Counter(map(recipe, several)).most_common():
        usual.setdefault(family, fields)
    return [
        row
        for row in several
        if groups[row.name].code == codes[0][0] and recipe(row) in usual.items()
    ]


def _whole(rows: Sequence[ResultRow], groups: Mapping[str, RunGroup]) -> Comparison | None:
    """The two ends, where every adopted row between them was compared with the one before."""
    road = [row for row in rows if row.adopted]
    linked = all(row.gain is not None for row in road[1:])
    if len(road) < 3 or not linked or any(row.parent is None for row in road[1:]):
        return None
    return compare_groups(groups[road[-1].name], groups[road[0].name])
