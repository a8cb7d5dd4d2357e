"""The kinds of error that a user can cause, with a message of one line and an exit code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(ValueError):
    """An invalid request: exit code 2, before anything is lost."""


class RunFailed(RuntimeError):
    """What was begun could not be finished: exit code 1."""


class Busy(RunFailed):
    """Another process is working on what was requested, or may: exit code 75, nothing is lost."""


EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, EXIT_STOPPED = 0, 1, 2, 75
EXIT_INTERRUPTED = 130  # by Ctrl-C, where there is nothing to resume


# What steers a terminal, overrides the direction of writing, ends a line where none is to end, or
# cannot stand in XML: controls but tab and newline, overrides, halves of pairs.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """The text with the replacement character for each sign that is no sign to be read."""
    return _UNPRINTABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """The text as one line of signs to be read, whoever wrote it."""
    return re.sub(r"[\t\n]+", " ", printable(text)).strip()


def first_line(error: BaseException) -> str:
    """Of an error's message; its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def reason_of(error: Exception) -> str:
    """Why values or a file cannot be read, on one line: the system's words, or the first fault."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return one_line(": ".join([*map(str, first["loc"]), first["msg"]]))[:500]
    return one_line(getattr(error, "strerror", None) or first_line(error))[:500]


def first_fault(error: ValidationError, known: Iterable[str]) -> str:
    """What is wrong first with given values, and where: ``epochs: input should be ...``.

    ``known`` are the names that may be given.
    """
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "settings"
    what = first["msg"].lower().removeprefix("value error, ")
    if first["type"] == "string_pattern_mismatch":
        what = "a character that cannot stand here, or nothing at all"
    hint = did_you_mean(where, list(known)) if first["type"] == "extra_forbidden" else ""
    return " ".join(f"{where}: {what}{hint}".split())


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of an error message: the closest known name, else all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; use one of {', '.join(known)}"
