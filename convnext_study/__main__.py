"""``convnext-study``, and ``python -m convnext_study``: the command line from its first import."""

import sys

from convnext_study.errors import EXIT_INTERRUPTED


def main() -> None:
    """Run the command line; Ctrl-C is one line, also while it is imported."""
    try:
        from convnext_study.cli import main as run
    except KeyboardInterrupt:
        print("convnext-study: stopped", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
