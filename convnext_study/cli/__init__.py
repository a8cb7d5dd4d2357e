"""``convnext-study``: the commands, their help and their errors. Heavy imports live inside them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

import typer

from convnext_study.cli import (
    bench,
    evaluate,
    export,
    inspect,
    plan,
    power,
    report,
    study,
    train,
)
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

app = typer.Typer(
    name="convnext-study",
    help="The road from ResNet-50 to ConvNeXt: every step a network to count, train and compare.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
inspect.add_to(app)
train.add_to(app)
study.add_to(app)
power.add_to(app)
evaluate.add_to(app)
plan.add_to(app)
export.add_to(app)
bench.add_to(app)
report.add_to(app)


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
    return f"{' '.join(error.format_message().split()).rstrip('.')}; see {where} --help"


def _leave(message: str, code: int) -> NoReturn:
    print(f"convnext-study: {one_line(message)}", file=sys.stderr)
    sys.exit(code)
