"""A study's progress, read from its records: a live table on terminals, and lines elsewhere."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from convnext_study.report.tables.formatting import duration, number, with_unit
from convnext_study.results.metric_spec import UNNAMED, MetricSpec, spec_of
from convnext_study.runs.files import LOG
from convnext_study.runs.records import Epoch, Record, Run

if TYPE_CHECKING:
    from rich.console import RenderableType

State = Literal["waiting", "running", "done", "failed"]
_BAR = 16  # columns
_STYLES: dict[State, str] = {
    "waiting": "dim",
    "running": "bold",
    "done": "",
    "failed": "bold reverse",
}


@dataclass(frozen=True)
class Progress:
    """How far a run is. ``loss`` is the last epoch's, ``value`` of ``metric`` the last evaluated
    epoch's.

    ``seconds_left`` is known once an epoch has ended: the remaining epochs times the median
    duration. An interrupted run is ``waiting`` with some epochs done.
    """

    id: str
    label: str
    seed: int
    state: State = "waiting"
    epoch: int = 0
    epochs: int | None = None
    loss: float | None = None
    value: float | None = None
    metric: MetricSpec = UNNAMED
    seconds_left: float | None = None


def progress(records: Iterable[Record], requested: Sequence[Run]) -> list[Progress]:
    """The state of each requested run, in that order."""
    by_id = {record.run.id: record for record in records}
    return [_progress(run, by_id.get(run.id)) for run in requested]


def _progress(run: Run, record: Record | None) -> Progress:
    fields: dict[str, Any] = {
        "id": run.id,
        "label": str(run.metadata.get("label", run.name)),
        "seed": run.seed,
        "epochs": run.recipe.get("epochs"),
    }
    if record is None:
        return Progress(**fields)
    states: dict[str, State] = {"done": "done", "running": "running", "failed": "failed"}
    fields["state"] = states.get(record.status, "waiting")
    if record.epochs:
        last = record.epochs[-1]
        fields |= {"epoch": last.epoch, "epochs": last.epochs, "loss": last.loss}
    if result := record.result:
        fields |= {"value": result.value, "metric": spec_of(result.primary, result.metric)}
    elif evaluated := [line for line in record.epochs if line.value is not None]:
        fields |= {"value": evaluated[-1].value, "metric": _metric(evaluated[-1])}
    return Progress(**fields, seconds_left=_seconds_left(record))


def _metric(line: Epoch) -> MetricSpec:
    spec = MetricSpec(name=line.primary, label=line.label or line.primary, unit=line.unit)
    return spec.scaled_to([line.value])


def _seconds_left(record: Record) -> float | None:
    if record.status == "done":
        return 0.0
    if not record.epochs or record.status == "failed":
        return None
    last = record.epochs[-1]
    per_epoch = statistics.median(epoch.seconds for epoch in record.epochs)
    left = per_epoch * (last.epochs - last.epoch)
    log = record.folder / LOG
    if record.status == "running" and log.exists():  # part of the next epoch has gone by
        left -= min(max(time.time() - log.stat().st_mtime, 0), per_epoch)
    return max(left, 0.0)


def live_table(runs: Sequence[Progress], jobs: int = 1, height: int = 24) -> RenderableType:
    """The table shown while training, with ``jobs`` runs in parallel.

    At most ``height`` runs are listed, in the given order; running and failed ones are preferred.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    shown = _most_relevant(runs, height)
    grid = Table(box=None, padding=(0, 1), caption=caption(runs, jobs, len(shown)))
    grid.caption_justify = "left"
    grid.add_column("step", max_width=36)
    grid.add_column("seed", justify="right")
    grid.add_column("state", no_wrap=True, min_width=7)
    grid.add_column("", width=_BAR)
    headings = {run.metric.heading for run in runs if run.value is not None}
    metric = headings.pop() if len(headings) == 1 else UNNAMED.heading
    for name in ("epoch", "loss", metric, "left"):
        grid.add_column(name, justify="right", no_wrap=True, min_width=6)
    for run in shown:
        style = _STYLES[run.state]
        grid.add_row(
            Text(run.label, style=style, no_wrap=True, overflow="ellipsis"),
            Text(str(run.seed)),
            Text(run.state, style=style),
            ProgressBar(run.epochs or 1, run.epoch, width=_BAR, complete_style="blue"),
            Text(f"{run.epoch}/{run.epochs or '?'}"),
            Text("" if run.loss is None else f"{run.loss:.3f}"),
            Text(number(run.value, run.metric.decimals)),
            Text("" if run.state == "done" else duration(run.seconds_left)),
        )
    return grid


def plain_line(run: Run, line: Epoch) -> str:
    """An epoch in one line, for output that is not a terminal."""
    width, metric = len(str(line.epochs)), _metric(line)
    value = "" if line.value is None else f"{metric.label} {with_unit(line.value, metric)}  "
    return (
        f"{run.name} seed {run.seed}  epoch {line.epoch:>{width}}/{line.epochs}  "
        f"loss {line.loss:.3f}  {value}{line.seconds:.1f} s"
    )


def _most_relevant(runs: Sequence[Progress], height: int) -> list[Progress]:
    """In the order requested; if there is no room for all, running and failed ones come before
    those that were done last or start next."""
    next_up = next((n for n, run in enumerate(runs) if run.state == "waiting"), len(runs))

    def rank(n: int) -> tuple[bool, int]:
        return runs[n].state in ("done", "waiting"), abs(n - next_up)

    return [runs[n] for n in sorted(sorted(range(len(runs)), key=rank)[:height])]


def caption(runs: Sequence[Progress], jobs: int, shown: int | None = None) -> str:
    """How many runs are done, running and failed, and how long the rest takes; ``shown`` of them
    are listed."""
    count = Counter(run.state for run in runs)
    parts = [f"{count['done']} of {len(runs)} done"]
    parts += [f"{count[state]} {state}" for state in ("running", "failed") if count[state]]
    left = total_left(runs, jobs)
    if left is not None and count["done"] < len(runs):
        parts.append(f"about {duration(left)} left")
    if shown is not None and shown < len(runs):
        parts.append(f"{len(runs) - shown} not listed")
    return ", ".join(parts)


def total_left(runs: Sequence[Progress], jobs: int) -> float | None:
    """Seconds until all runs are done, with ``jobs`` in parallel; None while nothing is known.

    A run that has not begun is assumed to take as long as the mean of those that are running.
    """
    durations = [
        run.seconds_left / (run.epochs - run.epoch) * run.epochs
        for run in runs
        if run.seconds_left and run.epochs and run.epoch < run.epochs
    ]
    if not durations:
        return None
    typical = statistics.fmean(durations)
    left = [
        typical if run.seconds_left is None else run.seconds_left
        for run in runs
        if run.state in ("waiting", "running")
    ]
    return max(sum(left) / jobs, *left) if left else None
