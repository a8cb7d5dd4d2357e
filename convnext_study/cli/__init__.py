"""``convnext-study``: the commands, their help and their errors. Heavy imports live inside them."""

from __future__ import annotations

import sys

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
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    RunFailed,
    UserError,
)

app = typer.Typer(
    name="convnext-study",
    help="The road from ResNet-50 to ConvNeXt: every step a network to count, train and compare.",
    no_args_is_help=True,
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
    try:
        app()
    except UserError as error:
        _leave(str(error), EXIT_USER_ERROR)
    except RunFailed as error:
        _leave(str(error), EXIT_FAILED)
    except BrokenPipeError:
        # The reader has gone (`| head`); what it wanted it has.
        sys.stderr.close()
    except KeyboardInterrupt:
        _leave("stopped", EXIT_STOPPED)


def _leave(message: str, code: int) -> None:
    print(f"convnext-study: {message}", file=sys.stderr)
    sys.exit(code)
