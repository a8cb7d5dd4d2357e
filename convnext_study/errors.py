"""The kinds of error that a user can cause, with a message of one line and an exit code."""

from __future__ import annotations

import difflib


class UserError(ValueError):
    """An invalid request: exit code 2, before anything is lost."""


class RunFailed(RuntimeError):
    """What was begun could not be finished: exit code 1."""


class Busy(RunFailed):
    """Another process is working on what was requested: exit code 75, as nothing is lost."""


EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, EXIT_STOPPED = 0, 1, 2, 75
EXIT_INTERRUPTED = 130  # by Ctrl-C, where there is nothing to resume


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of an error message: the closest known name, else all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; use one of {', '.join(known)}"
