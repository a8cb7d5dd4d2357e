"""The Python API for notebooks and scripts: build, count, train, load, compare and plot.

The package exports these names: ``from convnext_study import roadmap, run_roadmap``. The command
line uses the same plan, and writes and reads the same folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from convnext_study.errors import RunFailed, UserError, did_you_mean
from convnext_study.roadmap import DEFAULT_REGIME, Roadmap, Step, Variant, get_roadmap
from convnext_study.roadmap.extensions import extend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from convnext_study.cost import Cost
    from convnext_study.experiments.progress import Progress
    from convnext_study.models.roadmap_net import RoadmapNet
    from convnext_study.results.compare import Comparison
    from convnext_study.results.load import StudyResults
    from convnext_study.results.rows import ResultRow

OnProgress = Callable[[Sequence["Progress"]], None]


@dataclass(frozen=True)
class Network:
    """One row of a road map: a network to build and count.

    Args:
        variant: the row: its ``name``, ``label``, ``spec`` and ``recipe``.
        image_size: side of the road map's images, in pixels.
        num_classes: number of classes of the road map.
    """

    variant: Variant
    image_size: int
    num_classes: int

    def build(self, num_classes: int | None = None, **options: Any) -> RoadmapNet:
        """The network with random weights: images (N, 3, H, W) to logits (N, num_classes).

        ``options`` are `RoadmapNet`'s, such as ``in_chans``.
        """
        from convnext_study.models.roadmap_net import RoadmapNet

        classes = self.num_classes if num_classes is None else num_classes
        return RoadmapNet(self.variant.spec, num_classes=classes, **options)

    def cost(self, image_size: int | None = None) -> Cost:
        """MACs, parameters and activations for one image. Raises ImageTooSmall."""
        from convnext_study.cost import closed_form

        return closed_form(self.variant.spec, image_size or self.image_size, self.num_classes)


class Road(Mapping[str, Network]):
    """A road map: its networks by name, in the paper's order.

    ``roadmap("nano")["gelu"].build()`` is a torch module. An unknown name raises StepError, which
    suggests the closest one.
    """

    def __init__(self, road: Roadmap) -> None:
        self.road = road
        self._rows = {variant.name: variant for variant in road.variants()}

    def __getitem__(self, name: str) -> Network:
        return Network(self.road.variant(name), self.road.image_size, self.road.num_classes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __repr__(self) -> str:
        return f"<road map {self.road.regime}: {self.road.title}; {', '.join(self)}>"


def roadmap(regime: str = DEFAULT_REGIME, *steps: Step) -> Road:
    """The road map ``t``, ``b`` or ``nano``; further steps are appended to it.

    Raises StepError for an unknown road map or a step name that already exists, SpecError for a
    field that networks do not have.
    """
    return Road(extend(get_roadmap(regime), *steps))


class TrainOptions(TypedDict, total=False):
    """Further options of `train` and `run_roadmap`, the same as on the command line.

    ``recipe`` is a name or a .toml file; ``batch_size``, ``image_size`` and ``precision`` override
    the recipe's; ``wandb`` is off, offline, online or tensorboard, as in ``--mirror``; the others
    are those of `Machine`.
    """

    recipe: str
    batch_size: int
    image_size: int
    precision: str
    wandb: str
    download: bool
    device: str
    jobs: int
    threads: int
    workers: int
    micro_batch_size: int
    compile: bool
    grad_checkpointing: bool
    deterministic: bool


class RoadOptions(TrainOptions, total=False):
    """All options of `train`: those of `run_roadmap` and `TrainOptions`."""

    seeds: int | Sequence[int]
    data: str
    epochs: int | None
    folder: Path | str | None
    progress: bool | OnProgress


def train(step: str, road: str | Road = DEFAULT_REGIME, **options: Unpack[RoadOptions]) -> Results:
    """Train one row of a road map: `run_roadmap` with that step alone."""
    return run_roadmap(road, [step], **options)


def run_roadmap(
    road: str | Road = DEFAULT_REGIME,
    steps: Sequence[str] | str | None = None,
    *,
    seeds: int | Sequence[int] = 1,
    data: str = "clutter",
    epochs: int | None = None,
    folder: Path | str | None = None,
    progress: bool | OnProgress = True,
    **options: Unpack[TrainOptions],
) -> Results:
    """Train rows of a road map, each with every seed. Finished runs are kept, others resume.

    Args:
        road: a road map or its name.
        steps: names of rows, or ``adopted``; by default all.
        seeds: their number, or the seeds themselves.
        data: as for ``--data`` on the command line.
        epochs: overrides the recipe's.
        folder: of the study. (default: runs/REGIME-DATA in the working directory)
        progress: print a line whenever a run ends; or a function that is called with the state of
            every run about twice a second.
        options: see `TrainOptions`.

    Raises:
        UserError: the request is invalid; nothing was started.
        RunFailed: runs failed, with the reason of the first; the others are finished.
        KeyboardInterrupt: stopped, every run's state saved; call it again to resume.
    """
    from convnext_study.data.forkserver import without_main
    from convnext_study.experiments.plan import RunCollection, identify_in, plan, with_status
    from convnext_study.experiments.progress import progress as progress_of
    from convnext_study.experiments.roadmap_runs import (
        choose_variants,
        default_folder,
        parse_seeds,
        roadmap_runs,
    )
    from convnext_study.launchers.resources import Machine
    from convnext_study.results.load import make_study

    selected = road.road if isinstance(road, Road) else get_roadmap(road)
    step_names = steps if isinstance(steps, str) or steps is None else ",".join(steps)
    machine_options: dict[str, Any] = {**options}
    changes = {
        "epochs": epochs,
        "global_batch_size": machine_options.pop("batch_size", None),
        "image_size": machine_options.pop("image_size", None),
        "precision": machine_options.pop("precision", None),
    }
    recipe, wandb = machine_options.pop("recipe", None), machine_options.pop("wandb", "off")
    machine = Machine(**machine_options)
    runs = roadmap_runs(
        selected,
        choose_variants(selected, step_names),
        data=data,
        seeds=parse_seeds(
            f"{seeds}" if isinstance(seeds, int) else f"{','.join(map(str, seeds))},"
        ),
        recipe=recipe,
        changes=changes,
    )
    where = Path(folder) if folder is not None else default_folder(selected, data)
    study = RunCollection(tuple(identify_in(where, runs, machine)), where, wandb)
    planned = plan(study, machine)
    show = progress if callable(progress) else _PrintProgress(planned.jobs) if progress else None
    study.record_data_paths()
    with without_main():
        outcomes = planned.train(
            lambda: show(progress_of(study.records(), study.runs)) if show else None
        )
    if failed := with_status(outcomes, "failed") + with_status(outcomes, "busy"):
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise RunFailed(f"{failed[0].run.id}: {failed[0].reason}{others}")
    if with_status(outcomes, "stopped"):
        raise KeyboardInterrupt("stopped; call the function again to resume")
    name = f"roadmap-{selected.regime}"
    records = [record for record in study.ledger() if record.run.study == name]
    return Results(where, make_study(name, records, study.runs))


class _PrintProgress:
    """Prints a line whenever a run has ended."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.ended = jobs, -1

    def __call__(self, runs: Sequence[Progress]) -> None:
        from convnext_study.experiments.progress import caption

        ended = sum(run.state in ("done", "failed") for run in runs)
        if ended != self.ended:
            print(caption(runs, self.jobs), flush=True)
            self.ended = ended


@dataclass(frozen=True)
class Results:
    """Results of one study as rows: one per network, over its seeds.

    Args:
        folder: contains the runs.
        study: what was read from it: ``rows``, ``groups`` of runs, ``tests``, ``excluded`` runs.
    """

    folder: Path
    study: StudyResults

    @property
    def rows(self) -> list[ResultRow]:
        """All rows, in the order of the road map."""
        return self.study.rows

    def __getitem__(self, name: str) -> ResultRow:
        """The row of that name. Raises UserError, suggesting the closest one."""
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            raise UserError(f"{self.folder}: no row {name!r}{did_you_mean(name, [*rows])}")
        return rows[name]

    def __repr__(self) -> str:
        return f"<{len(self.rows)} rows of {self.study.name} in {self.folder}>"

    def to_pandas(self) -> pd.DataFrame:
        """The table of results, with the columns of ``results.csv``. Requires pandas."""
        import pandas as pd

        from convnext_study.report.tables.results import results_table

        return pd.DataFrame(results_table(self.rows).records(csv=True))


def load_results(folder: Path | str, study: str | None = None) -> Results:
    """The results in a folder of runs; ``study`` selects one if there are several.

    Raises UserError for a folder without runs or without that study.
    """
    from convnext_study.results.load import load_results as load

    studies = {loaded.name: loaded for loaded in load(Path(folder)).studies}
    name = next(iter(studies), "") if study is None else study
    if name not in studies:
        raise UserError(f"{folder}: has no study {name!r}{did_you_mean(name, [*studies])}")
    return Results(Path(folder), studies[name])


def compare(results: Results, step: str, other: str | None = None) -> Comparison:
    """The difference between a row and another, or its parent: Welch's t test over seeds.

    The p-value is for this pair alone; each row's ``significant`` is Holm-corrected over the road
    map. Raises UserError if a row has no finished run or no parent.
    """
    from convnext_study.results.compare import compare as compare_records

    other = other or results[step].parent
    if other is None:
        raise UserError(f"{step}: has no previous row; name a row to compare with")
    names = results[step].name, results[other].name
    return compare_records(*map(results.study.records, names))


def figure(results: Results, path: Path | str | None = None) -> Figure:
    """The road-map figure; also written to ``path`` (.svg, .pdf or .png) if given."""
    from convnext_study.report.figures.roadmap import roadmap as draw
    from convnext_study.report.figures.style import KINDS, save

    plot = draw(results.rows, results.study.meta)
    if path is not None:
        file = Path(path)
        if (kind := file.suffix.removeprefix(".")) not in KINDS:
            raise UserError(f"{file}: not a figure file; its name must end in .{', .'.join(KINDS)}")
        save(plot, file.parent, file.stem, [kind])
    return plot
