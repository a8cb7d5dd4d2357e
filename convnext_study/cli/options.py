"""Options that several commands share, and how commands print."""

from __future__ import annotations

import errno
import functools
import inspect
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_type_hints

import typer

from convnext_study.data.sources import SOURCES
from convnext_study.errors import EXIT_STOPPED, RunFailed, UserError, one_line
from convnext_study.recipes.recipe import LEAST_PIXELS, MOST_EPOCHS, MOST_IMAGES, MOST_PIXELS

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from convnext_study.data.dataset import OnCorruptImage
    from convnext_study.report.tables import Table
    from convnext_study.runs.records import RecordError

PLAIN_WIDTH = 120  # of what is written to a file or a pipe
# A text, such as a label with brackets or a name with colons, is what it is, whoever wrote it.
PLAIN_TEXT: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}

MOST_PROCESSES = 1024  # and threads: of one machine, generously

Regime = Annotated[str, typer.Option(help="Which road map: t, b or nano.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
ImageSize = Annotated[
    int | None,
    typer.Option(min=LEAST_PIXELS, max=MOST_PIXELS, help="Side of the image, in pixels."),
]
CorruptImages = Annotated[
    str, typer.Option(help="An image that cannot be read: stop, or skip and count it.")
]


def on_corrupt_image(choice: str) -> OnCorruptImage:
    """What `CorruptImages` chose. Raises UserError."""
    if choice not in ("stop", "skip"):
        raise UserError(f"--corrupt-images {choice!r}: use stop or skip")
    return "skip" if choice == "skip" else "stop"


def finite(number: float | None) -> float | None:
    """A number as given. Raises typer.BadParameter for NaN and infinity, which ranges let pass."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is no finite number")
    return number


@dataclass(frozen=True)
class RunOptions:
    """What determines the runs and their cost: for every command that trains or plans."""

    data: Annotated[
        str, typer.Option(help=", ".join(source.usage for source in SOURCES.values()) + ".")
    ] = "digits"
    seeds: Annotated[str, typer.Option(help="How many (3 is 0,1,2), or which (0,4,7).")] = "1"
    recipe: Annotated[
        str | None,
        typer.Option(
            help="published, small, composed, or one recipe for every row: its name or a .toml "
            "file. (default: small for nano, composed on clutter; published for t and b)"
        ),
    ] = None
    epochs: Annotated[
        int | None, typer.Option(min=1, max=MOST_EPOCHS, help="Instead of the recipe's.")
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_IMAGES, help="Images per optimizer step, instead of the recipe's."
        ),
    ] = None
    image_size: ImageSize = None
    micro_batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_IMAGES, help="Most images a process takes at a time."),
    ] = None
    precision: Annotated[
        str | None, typer.Option(help="float32, bf16 or fp16, instead of the recipe's.")
    ] = None
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="BatchNorm over all processes of a run.")
    ] = False

    def recipe_changes(self) -> dict[str, Any]:
        """The recipe's fields that were set on the command line; None leaves the recipe's own."""
        return {
            "epochs": self.epochs,
            "global_batch_size": self.batch_size,
            "image_size": self.image_size,
            "precision": self.precision,
            "sync_bn": self.sync_bn or None,
        }


@dataclass(frozen=True)
class StudyOptions(RunOptions):
    """The options of every command that trains: also where, and how it uses the machine."""

    out: Annotated[
        Path | None, typer.Option(help="Folder of the study. (default: runs/REGIME-DATA)")
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_PROCESSES,
            help="Parallel trainings. (default: one per core, or per GPU)",
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_PROCESSES,
            help="Threads per training. (default: 1 for images up to 64 pixels)",
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST_PROCESSES,
            help="Processes per training that read image files. (default: with a GPU the "
            "cores that its training leaves, up to 16; on a CPU none)",
        ),
    ] = None
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps. (default: auto-detected)")
    ] = None
    wandb: Annotated[str, typer.Option(help="Mirror runs to wandb: off, offline, online.")] = "off"
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a data set that is missing.")
    ] = False
    corrupt_images: CorruptImages = "stop"
    launcher: Annotated[
        str, typer.Option(help="Where to train: local, torchrun (DDP on this machine), slurm.")
    ] = "local"
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_PROCESSES, help="Of each run, with torchrun. (default: one per GPU)"
        ),
    ] = None
    cluster: Annotated[
        Path | None, typer.Option(help="With slurm: the site's file, as in launch/clusters/.")
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the runs, which are done and what the rest will cost; train nothing. "
            "With slurm also what would be submitted.",
        ),
    ] = False
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With slurm: follow the jobs to their end.")
    ] = True
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False
    channels_last: Annotated[
        bool, typer.Option("--channels-last/--channels-first", help="Memory layout of images.")
    ] = True
    grad_checkpointing: Annotated[
        bool, typer.Option("--grad-checkpointing", help="Save memory, take longer.")
    ] = False
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Only algorithms that give the same bits every time, on GPUs too; slower there.",
        ),
    ] = False
    tf32: Annotated[
        bool,
        typer.Option("--tf32", help="GPUs: round factors of float32 products; faster."),
    ] = False
    cudnn_benchmark: Annotated[
        bool,
        typer.Option("--cudnn-benchmark", help="GPUs: try cuDNN's algorithms, take the fastest."),
    ] = False


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of the dataclass that its ``options`` are.

    Fields are its options in the terminal; the command gets them as one value.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    kind: type[RunOptions] = own.pop("options").annotation
    hints = get_type_hints(kind, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        from convnext_study.experiments.data_identity import forget

        forget()
        options = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        try:
            command(**given, options=options)
        except KeyboardInterrupt:  # before the first training, or while the findings are made
            if not isinstance(options, StudyOptions) or options.dry_run:
                raise
            print("stopped; rerun the same command to resume", file=sys.stderr)
            raise typer.Exit(EXIT_STOPPED) from None

    parameters = [*own.values(), *shared]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def output_of(options: StudyOptions) -> TextIO:
    """Where a command says what it does: a batch script must be all of the standard output."""
    return sys.stderr if options.dry_run and options.launcher == "slurm" else sys.stdout


def console(file: TextIO | None = None) -> Console:
    """Colours and the terminal's width on a terminal; plain text of a fixed width elsewhere.

    ``file`` is what it prints to. (default: standard output)
    """
    from rich.console import Console

    file = file or sys.stdout
    if file.isatty():
        return Console(file=file, width=max(shutil.get_terminal_size().columns, 80), **PLAIN_TEXT)
    return Console(
        file=file, width=PLAIN_WIDTH, color_system=None, force_terminal=False, **PLAIN_TEXT
    )


def print_tables(*tables: Table[Any], file: TextIO | None = None) -> None:
    """Print tables, an empty line after each but the last; ``file`` is as in `console`."""
    from convnext_study.report.tables.render import Screen

    parts = [part for table in tables for part in (Screen(table), "")]
    print_rich(*parts[:-1], file=file)


def print_rich(*parts: RenderableType, file: TextIO | None = None) -> None:
    """Print rich renderables, without trailing blanks in plain text; as in `console`."""
    shown = console(file)
    if shown.is_terminal:
        shown.print(*parts)
        return
    with shown.capture() as capture:
        shown.print(*parts)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()), file=file)


def print_written(folder: Path, write: Callable[[], Sequence[Path]]) -> None:
    """Write files in a folder, and print their paths. A folder that is only to be read is one to
    look at: it takes none, which is said. Raises RunFailed where they fail for another reason."""
    try:
        files = write()
    except OSError as error:
        text = f"{folder}: cannot be written ({error.strerror})"
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise RunFailed(text) from error
        print(f"convnext-study: warning: {text}: no files beside what is shown", file=sys.stderr)
        return
    if files:
        print("written: " + ", ".join(map(str, files)))


def warn_of_unreadable(unreadable: Sequence[RecordError]) -> None:
    """Say on standard error which runs were left out, since their records cannot be read."""
    from convnext_study.runs.records import tell_unreadable

    if text := tell_unreadable(unreadable):
        print(f"convnext-study: warning: {one_line(text)}", file=sys.stderr)
