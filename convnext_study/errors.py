"""The two kinds of error that a user can cause, each told in one line and an exit code."""

from __future__ import annotations


class BadRequest(ValueError):
    """What was asked for cannot be done as asked: exit code 2, before anything is lost."""


class Failed(RuntimeError):
    """What was begun could not be finished: exit code 1."""


EXIT_DONE, EXIT_FAILED, EXIT_BAD_REQUEST, EXIT_STOPPED = 0, 1, 2, 75
