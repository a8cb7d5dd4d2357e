"""Studies from Python files: the runs that a file requests, each network trained once.

A file defines ``runs(context)``, which returns runs, and may define ``report(records, context)``,
which returns what to print about the finished ones; ``STEPS``, its own steps, appended to the
road; ``REGIME``, the road map it is for; and ``NETWORKS`` and ``TARGETS``, which describe the
choices of networks, and of what is done to them, that it accepts. See docs/your_own_step.md.
The package's own studies are known by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from convnext_study.errors import UserError, did_you_mean
from convnext_study.experiments.context import Context
from convnext_study.experiments.data_identity import identify
from convnext_study.experiments.roadmap_runs import name_data, parse_names
from convnext_study.imports import fault, load_file
from convnext_study.roadmap import DEFAULT_REGIME, Step, get_roadmap
from convnext_study.roadmap.extensions import extension_step
from convnext_study.runs.files import RUN, RUNS, parse_json
from convnext_study.runs.records import Record, RecordError, Run, is_done, read_run_file

ABLATIONS = "ablations"
# In a run's metadata: the options of the command that requested it.
NETWORKS, TARGETS = "networks", "targets"


def _survives_json(run: Run) -> bool:
    """Whether it is the same run once it was written and read."""
    try:
        return Run.model_validate(parse_json(run.model_dump_json().encode())).key == run.key
    except (TypeError, ValueError):
        return False


@dataclass(frozen=True)
class StudyFile:
    """A loaded study file."""

    path: Path
    module: ModuleType

    @property
    def regime(self) -> str:
        """The road map that the file is for: its ``REGIME``, or the default."""
        return str(getattr(self.module, "REGIME", DEFAULT_REGIME))

    @property
    def data(self) -> str | None:
        """The file's default data: its ``DATA``."""
        return getattr(self.module, "DATA", None)

    def folder(self, data: str) -> Path | None:
        """The folder of its runs, if its ``FOLDER`` names one: for networks of no road map."""
        name = getattr(self.module, "FOLDER", None)
        return Path("runs") / f"{name}-{name_data(data)}" if name else None

    def networks(self, names: str) -> tuple[str, ...]:
        """The comma-separated names. Raises UserError if the file accepts none, that is, has no
        ``NETWORKS``."""
        parsed = parse_names(names)
        if parsed and not hasattr(self.module, "NETWORKS"):
            raise UserError(f"{self.path}: does not accept networks; leave --networks out")
        if names and not parsed:
            raise UserError(
                f"networks: {names!r} contains no name; leave --networks out, or give names"
            )
        return parsed

    def targets(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names. Raises UserError if the file has no ``TARGETS``."""
        if names and not hasattr(self.module, "TARGETS"):
            raise UserError(f"{self.path}: does not accept targets; leave --target out")
        return tuple(names)

    def runs(self, context: Context) -> list[Run]:
        """The runs that it requests. Raises UserError if it returns none, or something else."""
        returned = self._call("runs", context)
        if not isinstance(returned, Sequence) or not all(isinstance(run, Run) for run in returned):
            raise UserError(f"{self.path}: runs() must return a list of runs, as context.runs does")
        if not returned:
            raise UserError(f"{self.path}: runs() returned no runs; return at least one")
        if changed := next((run for run in returned if not _survives_json(run)), None):
            raise UserError(
                f"{self.path}: runs(): {changed.name}: its record would not be read again; use "
                "plain values: texts, finite numbers, lists, and objects whose names are texts"
            )
        return list(returned)

    def report(self, records: Sequence[Record], context: Context) -> Any:
        """What its ``report`` returns for the records; None if it has none."""
        return self._call("report", records, context) if hasattr(self.module, "report") else None

    def _call(self, name: str, *arguments: Any) -> Any:
        function: Callable[..., Any] = getattr(self.module, name)
        try:
            return function(*arguments)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"{self.path}: {name}(): {fault(error, self.path)}") from error


def named_studies() -> dict[str, Path]:
    """The package's own studies, by name.

    A wheel has their files inside the package, a checkout beside it.
    """
    package = Path(__file__).resolve().parent.parent
    installed = package / ABLATIONS
    folder = installed if installed.is_dir() else package.parent / ABLATIONS
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def find_study(name: str) -> Path:
    """The file of one of the package's studies, or the given path.

    Raises UserError for a name that is neither a path nor a study's.
    """
    if Path(name).suffix or len(Path(name).parts) > 1:
        return Path(name)
    named = named_studies()
    if name not in named:
        raise UserError(
            f"study: {name!r} is neither a file nor the name of a "
            f"study{did_you_mean(name, [*named])}"
        )
    return named[name]


def load_study(path: Path) -> StudyFile:
    """Load a study's file. Raises UserError, one line that names it and what is missing."""
    module = load_file(path)
    if not callable(getattr(module, "runs", None)):
        raise UserError(f"{path}: defines no runs(context); see docs/your_own_step.md")
    for name in ("REGIME", "DATA", "FOLDER", "NETWORKS", "TARGETS"):
        value = getattr(module, name, "")
        if not isinstance(value, str):
            raise UserError(f"{path}: {name} is {value!r:.60}; it must be text")
    return StudyFile(path, module)


def _steps_of(path: Path, module: ModuleType) -> list[Step]:
    """Its ``STEPS``. Raises UserError if they are not a list of steps."""
    steps = getattr(module, "STEPS", ())
    if not isinstance(steps, list | tuple) or not all(isinstance(step, Step) for step in steps):
        raise UserError(f"{path}: STEPS is {steps!r:.60}; it must be a list of Step")
    return list(steps)


def make_context(
    file: StudyFile, regime: str | None, extra_steps: str = "", **fields: Any
) -> Context:
    """The context of a study, with its own steps and ``extra_steps`` at the end of the road map.

    ``extra_steps`` names steps beyond the road, or Python files with ``STEPS``, comma-separated.
    """
    if file.data:
        fields.setdefault("data", file.data)
    road = get_roadmap(regime or file.regime)
    context = Context(road=road, base_road=road, **fields)
    steps = _steps_of(file.path, file.module)
    for name in parse_names(extra_steps):
        if not name.endswith(".py"):
            steps.append(extension_step(road, name))
            continue
        file_steps = _steps_of(Path(name), load_file(Path(name)))
        if not file_steps:
            raise UserError(f"{name}: defines no STEPS; see docs/your_own_step.md")
        steps += file_steps
    return context.with_steps(*steps) if steps else context


def with_metadata(run: Run, **facts: Any) -> Run:
    """The run with further metadata, which are not part of its key."""
    return run.model_copy(update={"metadata": {**run.metadata, **facts}})


def deduplicate(runs: Iterable[Run], folder: Path) -> tuple[list[Run], int]:
    """Each run once, as the folder has it already if it does; and how many are done there.

    Runs are identified by their keys, so that a network trained under another name, as a row or
    in another study, is found. Its builder and the path of its data are those requested now, since
    files may have moved.
    """
    existing = recorded(folder)
    by_key = {run.key: run for run in runs}
    distinct = [
        existing.get(key, run).model_copy(update={"model": run.model, "data": run.data})
        for key, run in by_key.items()
    ]
    done = sum(is_done(folder / RUNS / run.id) for run in distinct)
    return distinct, done


def recorded(folder: Path) -> dict[str, Run]:
    """The runs in a study's folder, by their keys; a finished one replaces others of its key."""
    begun: dict[str, Run] = {}
    finished: dict[str, Run] = {}
    for path in sorted((folder / RUNS).glob(f"*/{RUN}")):
        try:
            run = Run.model_validate(read_run_file(path.parent)["run"])
        except (RecordError, ValueError, KeyError):
            continue  # the command warns of it at its end
        if run.id == path.parent.name:  # a study does not find a renamed folder
            (finished if is_done(path.parent) else begun)[run.key] = run
    return {**begun, **finished}


def select_records(records: Iterable[Record], runs: Iterable[Run]) -> list[Record]:
    """The records of these runs, in their order, with the names and metadata of these runs.

    A record without the identity of its data, from a training outside a study, is found by URI.
    """
    by_key = {record.run.key: record for record in records}
    requested = list(runs)
    identified = identify(requested, [record.run for record in by_key.values()])
    return [
        record.model_copy(update={"run": with_id})
        for run, with_id in zip(requested, identified, strict=True)
        if (record := by_key.get(with_id.key) or by_key.get(run.key))
    ]
