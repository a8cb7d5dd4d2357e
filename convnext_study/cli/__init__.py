"""``convnext-study``: the commands, their help and their errors. Heavy imports live inside them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Annotated, Any, NoReturn, TextIO

import typer

from convnext_study.cli import bench, evaluate, export, inspect, power, report, study, train
from convnext_study.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    Busy,
    RunFailed,
    UserError,
    one_line,
)

# typer has click within it, or beside it in older versions: this is the class in both.
_UsageError: type[Any] = typer.BadParameter.__bases__[0]

# Every command by its name, with examples of what follows that name.
COMMANDS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "steps": (inspect.steps, ("", "--regime t")),
    "show": (inspect.show, ("depthwise_conv", "gelu --regime t")),
    "cost": (inspect.cost, ("", "--verify", "--study pruning")),
    "train": (
        train.train,
        ("depthwise_conv", "gelu --regime t --data folder:/data/imagenet --launcher torchrun"),
    ),
    "roadmap": (
        train.roadmap,
        (
            "--seeds 3",
            "--data cifar10:data --download --epochs 50",
            "--regime t --seeds 3 --data folder:/data/imagenet --launcher torchrun "
            "--processes 8 --dry-run --gpu h100",
        ),
    ),
    "study": (study.study, ("leave_one_out --seeds 3", "pruning --dry-run", "mine.py")),
    "report": (report.report, ("runs/nano-clutter", "runs/nano-clutter --watch")),
    "power": (power.power, ("--effect 0.3", "--effect 1 --study runs/nano-clutter")),
    "eval": (
        evaluate.evaluate,
        (
            "runs/nano-clutter/runs/RUN",
            "convnext_tiny.fb_in1k --pretrained --data folder:/data/imagenet",
        ),
    ),
    "export": (
        export.export,
        ("runs/nano-clutter/runs/RUN", "runs/nano-clutter/runs/RUN --to onnx"),
    ),
    "bench": (bench.bench, ("--quick", "--parts anytime")),
}

app = typer.Typer(
    name="convnext-study",
    help="The road from ResNet-50 to ConvNeXt: every step a network to count, train and compare.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, (_command, _examples) in COMMANDS.items():
    _lines = [f"convnext-study {_name} {example}".rstrip() for example in _examples]
    app.command(_name, epilog="\n\n".join(["Examples:", *_lines]))(_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"convnext-study {version('convnext-study')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Errors that a user can cause are one line on standard error."""
    if sys.stdout is None:  # closed by the caller (`>&-`)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  for as long as we live
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without the signs of the tables
    if not isinstance(sys.stdout, _Output):
        sys.stdout = _Output(sys.stdout)
    try:
        _check_words(sys.argv[1:])
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        _leave(str(error), EXIT_USER_ERROR)
    except Busy as error:
        _leave(str(error), EXIT_STOPPED)
    except RunFailed as error:
        _leave(str(error), EXIT_FAILED)
    except _UsageError as error:
        _leave(_usage(error), EXIT_USER_ERROR)
    except OSError as error:
        _drop_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(EXIT_FAILED)  # the reader has gone (`| head`); what it wanted it has
        # Commands report their own files themselves.
        _leave(f"{error.filename or 'a file or device'}: {error.strerror or error}", EXIT_FAILED)
    except KeyboardInterrupt:
        _leave("stopped", EXIT_INTERRUPTED)
    else:
        if code == EXIT_INTERRUPTED:  # typer's answer to Ctrl-C
            _leave("stopped", code)
        sys.exit(code)


def _check_words(words: list[str]) -> None:
    """Raises UserError for a word that the locale cannot read, and no file of ours can hold."""
    for word in words:
        if not word.isascii() and word.encode("utf-8", "replace").decode() != word:
            raise UserError(
                f"{word}: cannot be read in this locale; set one of UTF-8, as in LC_ALL=C.UTF-8"
            )


class _Output:
    """Standard output, whose errors say that they are its own: no system names the file of them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or raise OSError with ``filename`` set."""
        with _named():
            return self._stream.write(text)

    def flush(self) -> None:
        """Flush, or raise OSError with ``filename`` set."""
        with _named():
            self._stream.flush()


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        raise


def _drop_output() -> None:
    """Write what output is left, or drop it: it would be tried once more at the very end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: Any) -> str:
    """What is wrong with the command's words, and where to read of them."""
    where = error.ctx.command_path if error.ctx else "convnext-study"
    what = " ".join(error.format_message().split()).replace(" Value error,", "")
    return f"{what.rstrip('.')}; see {where} --help"


def _leave(message: str, code: int) -> NoReturn:
    print(f"convnext-study: {one_line(message)}", file=sys.stderr)
    sys.exit(code)
