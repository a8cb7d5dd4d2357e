"""Options that several commands share, and how commands print."""

from __future__ import annotations

import errno
import functools
import inspect
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, get_type_hints

import typer

from convnext_study.cli.defaults import (
    PRESETS,
    PROJECT_FILE,
    apply_preset,
    complete_data,
    complete_preset,
    complete_regime,
)
from convnext_study.data.sources import LABELS, usages
from convnext_study.errors import EXIT_STOPPED, RunFailed, one_line
from convnext_study.recipes.recipe import LEAST_PIXELS, MOST_EPOCHS, MOST_IMAGES, MOST_PIXELS
from convnext_study.roadmap import DEFAULT_REGIME

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from convnext_study.launchers.resources import Machine
    from convnext_study.report.tables import Table
    from convnext_study.runs.records import RecordError

PLAIN_WIDTH = 120  # of output to a file or a pipe
# Texts, such as a label with brackets or a name with colons, are printed as they are.
PLAIN_TEXT: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}

MAX_PROCESSES = 1024  # and threads, a generous limit per machine

Regime = Annotated[
    str, typer.Option(help="Road map: t, b or nano.", autocompletion=complete_regime)
]
SCHEMA = 1  # of all --json output: increased when a key is removed or changes its meaning
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
OnCorruptImage = Literal["stop", "skip"]
DEVICE = "cpu, cuda or mps. (default: auto-detected)"
CORRUPT = "What to do with an image that cannot be decoded: stop the run, or skip and count it."
PIXELS = "Side of the input images, in pixels."
ImageSize = Annotated[int | None, typer.Option(min=LEAST_PIXELS, max=MOST_PIXELS, help=PIXELS)]


def finite(number: float | None) -> float | None:
    """Returns a number. Raises typer.BadParameter for NaN and infinity, which ranges accept."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is not a finite number")
    return number


WHAT, RECIPE, WHERE, MACHINE = "What to train", "Recipe", "Where", "Machine"
ESTIMATE, OTHER = "Estimate", "Options"
_DATA = "; ".join(f"{labels}: {', '.join(usages(labels).values())}" for labels in LABELS)


def option(panel: str, text: str, default: Any = None, *names: str, **limits: Any) -> Any:
    """A dataclass field that is an option, with its panel and its text in the help."""
    metadata = {"names": names, "rich_help_panel": panel, "help": text, **limits}
    return field(default=default, metadata=metadata)


def count(panel: str, text: str, least: int = 1, most: int = MAX_PROCESSES) -> Any:
    """An `option` with an integer value."""
    return option(panel, text, min=least, max=most)


@dataclass(frozen=True)
class StudyOptions:
    """The options of every command that trains."""

    regime: str | None = option(
        WHAT,
        f"Road map: t, b or nano. (default: {DEFAULT_REGIME}, or the study's own)",
        autocompletion=complete_regime,
    )
    data: str | None = option(
        WHAT,
        f"{_DATA}. (default: clutter, or the study's own)",
        autocompletion=complete_data,
    )
    preset: str | None = option(
        WHAT,
        f"Several defaults at once: {', '.join(PRESETS)}. Put your project's own defaults into "
        f"{PROJECT_FILE} in the working directory.",
        is_eager=True,
        callback=apply_preset,
        autocompletion=complete_preset,
    )
    seeds: str = option(WHAT, "Number of seeds (3 means 0,1,2), or a list (0,4,7).", "1")
    download: bool = option(WHAT, "Download the data set if it is missing.", False)
    corrupt_images: OnCorruptImage = option(WHAT, CORRUPT, "stop")
    recipe: str | None = option(
        RECIPE,
        "published, small or composed; or one recipe for every row, by name or .toml file. "
        "(default: for nano composed on clutter and small on other data; for t and b published; "
        "or the study's own)",
    )
    epochs: int | None = count(
        RECIPE, "Number of epochs, instead of the recipe's.", most=MOST_EPOCHS
    )
    batch_size: int | None = count(
        RECIPE, "Images per optimizer step, instead of the recipe's.", most=MOST_IMAGES
    )
    image_size: int | None = count(RECIPE, PIXELS, LEAST_PIXELS, MOST_PIXELS)
    precision: str | None = option(RECIPE, "float32, bf16 or fp16, instead of the recipe's.")
    sync_bn: bool = option(RECIPE, "Synchronise BatchNorm over all processes of a run.", False)
    out: Path | None = option(
        WHERE, "Folder for the study. (default: runs/REGIME-DATA, or runs/STUDY-DATA)"
    )
    launcher: str = option(WHERE, "local, torchrun (DDP on this machine), or slurm.", "local")
    processes: int | None = count(WHERE, "Processes per run, with torchrun. (default: one per GPU)")
    cluster: Path | None = option(
        WHERE, "With slurm: your site's cluster file; see launch/clusters/."
    )
    wait: bool = option(WHERE, "With slurm: follow the jobs until they end.", True)
    wandb: str = option(
        WHERE,
        "Mirror runs to Weights & Biases: off, offline or online; or write TensorBoard event "
        "files: tensorboard.",
        "off",
        "--wandb",
        "--mirror",
    )
    jobs: int | None = count(MACHINE, "Parallel trainings. (default: one per core, or per GPU)")
    threads: int | None = count(
        MACHINE, "Threads per training. (default: 1 for images up to 64 pixels)"
    )
    workers: int | None = count(
        MACHINE,
        "Processes per training that read image files. (default: with a GPU, the cores its "
        "training leaves, up to 16; on a CPU none)",
        least=0,
    )
    device: str | None = option(MACHINE, DEVICE)
    micro_batch_size: int | None = count(
        MACHINE,
        "Maximum number of images per process at a time. (default: the published number for "
        "published recipes, otherwise all)",
        most=MOST_IMAGES,
    )
    compile: bool = option(MACHINE, "Use torch.compile.", False)
    channels_last: bool = option(
        MACHINE, "Memory layout of images.", True, "--channels-last/--channels-first"
    )
    grad_checkpointing: bool = option(MACHINE, "Recompute activations: less memory, slower.", False)
    deterministic: bool = option(
        MACHINE, "Use only deterministic algorithms; slower on GPUs.", False
    )
    tf32: bool | None = option(
        MACHINE,
        "GPUs: use TF32 for float32 products; faster. (default: on in published recipes)",
        None,
        "--tf32/--no-tf32",
    )
    cudnn_benchmark: bool = option(
        MACHINE, "GPUs: let cuDNN benchmark its algorithms and use the fastest.", False
    )
    dry_run: bool = option(
        ESTIMATE,
        "List the runs, which are done, and the estimated cost of the rest; train nothing. With "
        "slurm, also print the batch script.",
        False,
    )
    gpu: str | None = option(
        ESTIMATE,
        "GPU for which to estimate hours: a100, h100, v100, rtx4090, ... (default: a100; CPU "
        "time is measured)",
    )
    mfu: float | None = option(
        ESTIMATE,
        "Model FLOPs utilisation to assume, as a share of the GPU's peak. (default: 0.1; 0.4 for "
        "float32 without TF32)",
        None,
        min=0.001,
        max=1,
        callback=finite,
    )
    as_json: bool = option(ESTIMATE, "Print the estimate as JSON.", False, "--json")

    def recipe_changes(self) -> dict[str, Any]:
        """The recipe fields set on the command line; None keeps the recipe's own."""
        return {
            "epochs": self.epochs,
            "global_batch_size": self.batch_size,
            "image_size": self.image_size,
            "precision": self.precision,
            "sync_bn": self.sync_bn or None,
        }

    def machine(self) -> Machine:
        """Where to train, and what resources each training may use."""
        from convnext_study.launchers.resources import Machine

        return Machine(**{f.name: getattr(self, f.name) for f in fields(Machine)})


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of the dataclass of its argument ``options``."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    options_type = parameters.pop("options").annotation
    hints = get_type_hints(options_type)
    for f in fields(options_type):
        settings = dict(f.metadata)
        names = settings.pop("names")
        if f.default is False and not names:  # no --no-NAME beside it
            names = (f"--{f.name.replace('_', '-')}",)
        parameters[f.name] = inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=f.default,
            annotation=Annotated[hints[f.name], typer.Option(*names, **settings)],
        )

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        from convnext_study.experiments.data_identity import clear_cache

        clear_cache()
        options = options_type(**{f.name: values.pop(f.name) for f in fields(options_type)})
        try:
            command(**values, options=options)
        except KeyboardInterrupt:  # before the first training, or while computing findings
            if not isinstance(options, StudyOptions) or options.dry_run:
                raise
            print("stopped; rerun the same command to resume", file=sys.stderr)
            raise typer.Exit(EXIT_STOPPED) from None

    wrapped.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    return wrapped


def output_of(options: StudyOptions) -> TextIO:
    """The stream for a command's messages: standard output, unless a batch script or JSON must be
    alone there."""
    from convnext_study.launchers import launcher_class

    for_machines = options.as_json or launcher_class(options.launcher).submits
    return sys.stderr if options.dry_run and for_machines else sys.stdout


def console(file: TextIO | None = None) -> Console:
    """A console with colours and the terminal's width, or with plain text of a fixed width
    elsewhere. It prints to ``file``, by default the standard output.
    """
    from rich.console import Console

    file = file or sys.stdout
    if file.isatty():
        return Console(file=file, width=max(shutil.get_terminal_size().columns, 80), **PLAIN_TEXT)
    return Console(
        file=file, width=PLAIN_WIDTH, color_system=None, force_terminal=False, **PLAIN_TEXT
    )


def print_json(value: Mapping[str, Any]) -> None:
    """Print JSON with the schema's version, for machines."""
    print(json.dumps({"schema": SCHEMA, **value}, indent=1, ensure_ascii=False))


def print_tables(*tables: Table[Any], file: TextIO | None = None) -> None:
    """Print tables with an empty line between them; ``file`` is as in `console`."""
    from convnext_study.report.tables.render import Screen

    parts = [part for table in tables for part in (Screen(table), "")]
    print_rich(*parts[:-1], file=file)


def print_rich(*parts: RenderableType, file: TextIO | None = None) -> None:
    """Print rich renderables, without trailing blanks in plain text; as in `console`."""
    target = console(file)
    if target.is_terminal:
        target.print(*parts)
        return
    with target.capture() as capture:
        target.print(*parts)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()), file=file)


def print_written(folder: Path, write: Callable[[], Sequence[Path]]) -> None:
    """Write files in a folder, and print their paths. A read-only folder may still be looked at:
    it causes only a warning. Raises RunFailed if writing fails for another reason."""
    try:
        files = write()
    except OSError as error:
        text = f"{folder}: cannot be written ({error.strerror})"
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise RunFailed(text) from error
        print(f"convnext-study: warning: {text}: no files are written", file=sys.stderr)
        return
    if files:
        print("written: " + ", ".join(map(str, files)))


def warn_of_unreadable(unreadable: Sequence[RecordError]) -> None:
    """Warn on standard error about runs that were left out because they cannot be read."""
    from convnext_study.runs.records import describe_unreadable

    if text := describe_unreadable(unreadable):
        print(f"convnext-study: warning: {one_line(text)}", file=sys.stderr)
