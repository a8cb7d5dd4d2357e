"""What cannot be evaluated, and what a record may not ask for."""

from __future__ import annotations

from convnext_study.errors import BadRequest


class EvaluationError(BadRequest):
    """A network cannot be evaluated as requested; the message says what is wrong."""


class TrustError(EvaluationError):
    """A record asks for more than it may; the message says for what, and how to allow it."""
