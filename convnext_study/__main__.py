"""``convnext-study``, and ``python -m convnext_study``: the command line from its first import."""

import os
import sys

from convnext_study.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR


def main() -> None:
    """Run the command line; Ctrl-C is one line, also while it is imported."""
    if os.name == "nt":
        print("convnext-study: runs on Linux and macOS; on Windows use WSL", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    try:
        from convnext_study.cli import main as run
    except KeyboardInterrupt:
        print("convnext-study: stopped", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
