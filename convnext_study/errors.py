"""The errors that a user can cause, each with a one-line message and an exit code."""

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
    """Work that was started could not be finished: exit code 1."""


class Busy(RunFailed):
    """Another process is, or may be, working on this: exit code 75, nothing is lost."""


EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, EXIT_STOPPED = 0, 1, 2, 75
EXIT_INTERRUPTED = 130  # by Ctrl-C, where there is nothing to resume


# Characters that control a terminal, override the writing direction, break a line or are invalid
# in XML: controls except tab and newline, overrides, surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """The text with each unprintable character replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """Untrusted text as one line of printable characters."""
    return re.sub(r"[\t\n]+", " ", printable(text)).strip()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def reason_of(error: Exception) -> str:
    """Why values or a file cannot be read, in one line: the system's message or the first fault."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return one_line(": ".join([*map(str, first["loc"]), first["msg"]]))[:500]
    return one_line(getattr(error, "strerror", None) or first_line(error))[:500]


def first_fault(error: ValidationError, valid: Iterable[str]) -> str:
    """The first invalid value and what is wrong with it: ``epochs: input should be ...``.

    ``valid`` are the valid names.
    """
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "settings"
    problem = first["msg"].lower().removeprefix("value error, ")
    if first["type"] == "string_pattern_mismatch":
        problem = "a character that cannot stand here, or nothing at all"
    hint = did_you_mean(where, list(valid)) if first["type"] == "extra_forbidden" else ""
    return " ".join(f"{where}: {problem}{hint}".split())


def did_you_mean(name: str, choices: list[str]) -> str:
    """The end of an error message: the closest of the choices, else all of them."""
    close = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {close[0]}?" if close else f"; use one of {', '.join(choices)}"
