"""``convnext-study``: the commands, their help and their errors. Heavy imports live inside them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from convnext_study.cli import (
    bench,
    evaluate,
    inspect,
    pack,
    report,
    runs,
    study,
)
from convnext_study.cli.defaults import options_of, project_defaults
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

# typer includes click, or depends on it in older versions: this is the class in both.
_UsageError: type[Any] = typer.BadParameter.__bases__[0]

# Every command by its name, with examples of its arguments.
COMMANDS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "steps": (inspect.steps, ("", "--regime t")),
    "show": (inspect.show, ("depthwise_conv", "gelu --regime t")),
    "cost": (inspect.cost, ("--regime t,b", "--verify", "--study pruning")),
    "train": (
        study.train,
        ("depthwise_conv", "gelu --regime t --data folder:/data/imagenet --launcher torchrun"),
    ),
    "roadmap": (
        study.roadmap,
        (
            "--seeds 3",
            "--data cifar10:data --download --epochs 50",
            "--regime t --seeds 3 --data folder:/data/imagenet --launcher torchrun "
            "--processes 8 --dry-run --gpu h100",
        ),
    ),
    "study": (study.study, ("", "leave_one_out --seeds 3", "pruning --dry-run", "mine.py")),
    "pack": (
        pack.pack,
        ("folder:/data/imagenet /data/imagenet-256", "folder:PATH OUT --side 160"),
    ),
    "report": (report.report, ("runs/nano-clutter", "runs/nano-clutter --watch")),
    "power": (report.power, ("--effect 0.3", "--effect 1 --study runs/nano-clutter")),
    "eval": (
        evaluate.evaluate,
        (
            "runs/nano-clutter/runs/RUN",
            "convnext_tiny.fb_in1k --pretrained --data folder:/data/imagenet",
        ),
    ),
    "export": (
        evaluate.export,
        ("runs/nano-clutter/runs/RUN", "runs/nano-clutter/runs/RUN --to onnx"),
    ),
    "bench": (bench.bench, ("--quick", "--parts anytime")),
}

app = typer.Typer(
    name="convnext-study",
    help="The road from ResNet-50 to ConvNeXt: build, count, train and compare every step.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for _name, (_command, _examples) in COMMANDS.items():
    _lines = [f"convnext-study {_name} {example}".rstrip() for example in _examples]
    app.command(_name, epilog="\n\n".join(["Examples:", *_lines]))(_command)


app.add_typer(runs.app, name="runs")


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"convnext-study {version('convnext-study')}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Give the command that follows a project's defaults; its help comes without a good file."""
    group: Any = ctx.command
    options = {name: options_of(group.commands[name]) for name in COMMANDS}
    try:
        ctx.default_map = project_defaults(options)
    except UserError:
        if not {"--help", "-h"} & set(sys.argv):
            raise


def main() -> None:
    """Run the command line. Errors that a user can cause are one line on standard error."""
    if sys.stdout is None:  # closed by the caller (`>&-`)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  for as long as we live
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the locale may lack the tables' characters
    try:
        _check_words(sys.argv[1:])
        code = app(
            args=sys.argv[1:] or ["--help"],
            prog_name="convnext-study",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except _UsageError as error:
        where = error.ctx.command_path if error.ctx else "convnext-study"
        message = " ".join(error.format_message().split()).replace(" Value error,", "").rstrip(".")
        _leave(f"{message}; see {where} --help", EXIT_USER_ERROR)
    except UserError as error:
        _leave(str(error), EXIT_USER_ERROR)
    except Busy as error:
        _leave(str(error), EXIT_STOPPED)
    except RunFailed as error:
        _leave(str(error), EXIT_FAILED)
    except OSError as error:
        _drop_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(EXIT_FAILED)  # the reader has ended (`| head`), with all that it wanted
        # Errors on files name them; those on standard output do not.
        where = error.filename or "standard output, or a file or device"
        _leave(f"{where}: {error.strerror or error}", EXIT_FAILED)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:  # also typer's code for Ctrl-C
        _leave("stopped", code)
    sys.exit(code)


def _check_words(arguments: list[str]) -> None:
    """Raises UserError for an empty value, as of an unset shell variable, which would be ignored;
    and for a word that the locale cannot decode and our files cannot encode.
    """
    for number, argument in enumerate(arguments):
        option, assigned, value = argument.partition("=")
        if not argument or (option.startswith("--") and assigned and not value):
            before = arguments[number - 1] if number else ""
            follows_option = before.startswith("-") and "=" not in before
            name = option or (before if follows_option else f"argument {number + 1}")
            raise UserError(f"{name}: the value is empty; give one, or leave it out")
        if not argument.isascii() and argument.encode("utf-8", "replace").decode() != argument:
            raise UserError(
                f"{argument}: cannot be decoded in this locale; set a UTF-8 locale, for example "
                "LC_ALL=C.UTF-8"
            )


def _drop_output() -> None:
    """Flush the output, or discard it, since Python would try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(message: str, code: int) -> NoReturn:
    print(f"convnext-study: {one_line(message)}", file=sys.stderr)
    sys.exit(code)
