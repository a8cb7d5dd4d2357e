"""The study's finished runs by arm, and their metrics exit by exit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from convnext_study.runs.records import Record, Result

Arms: TypeAlias = Mapping[str, Sequence[Record]]
JUDGED = "judged"  # the metric that a comparison is about


def by_arm(records: Iterable[Record]) -> dict[str, dict[str, list[Record]]]:
    """The finished runs of each backbone by arm, in the order of the records."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record.result is not None:
            about = record.run.metadata
            arms = found.setdefault(str(about["backbone"]), {})
            arms.setdefault(str(about["row"]), []).append(record)
    return found


def exits_of(records: Sequence[Record]) -> int:
    """How many exits answer in an arm."""
    return exits_in(_first(records))


def exits_in(result: Result) -> int:
    """How many exits a result has metrics of."""
    return sum(name.startswith("macs_exit") for name in result.metrics)


def miou_metric(records: Sequence[Record], exit: int) -> str:
    """The name of mIoU at an exit, from 1; 0 for the mean of all, -1 for the last."""
    return f"miou{_end(records, exit)}" if exits_of(records) > 1 else "miou"


def macs_metric(records: Sequence[Record], exit: int) -> str:
    """The name of the MACs up to an exit, as `miou_metric` has them."""
    return f"macs{_end(records, exit)}"


def judged_by(records: Sequence[Record], metric: str) -> list[Record]:
    """The same records, judged by another metric of theirs, so that arms can be compared."""
    found = []
    for record in records:
        result = record.result
        assert result is not None  # noqa: S101  by_arm keeps no others
        judged = result.metrics[metric].model_copy(update={"label": "mIoU"})
        update = {"metrics": {**result.metrics, JUDGED: judged}, "primary": JUDGED}
        found.append(record.model_copy(update={"result": result.model_copy(update=update)}))
    return found


def _end(records: Sequence[Record], exit: int) -> str:
    if exit == 0:
        return ""
    return f"_exit{exits_of(records) if exit == -1 else exit}"


def _first(records: Sequence[Record]) -> Result:
    result = records[0].result
    assert result is not None  # noqa: S101  by_arm keeps no others
    return result
