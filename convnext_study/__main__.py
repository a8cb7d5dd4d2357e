"""``convnext-study``, and ``python -m convnext_study``: the command line from its first import."""

import os
import runpy
import sys
from pathlib import Path

from convnext_study.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR


def main() -> None:
    """Run the command line; Ctrl-C is one line, also while it is imported."""
    if os.name == "nt":
        print("convnext-study: runs on Linux and macOS; on Windows use WSL", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    if sys.argv[1:2] == ["timm"]:
        _run_timms_script(sys.argv[2:])
        return
    try:
        from convnext_study.cli import main as run
    except KeyboardInterrupt:
        print("convnext-study: stopped", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    run()


def _run_timms_script(words: list[str]) -> None:
    """A script of timm's repository, with its arguments, where timm knows this package's networks.

    Under torchrun: ``torchrun ... -m convnext_study timm train.py ...``.
    """
    if not words or not Path(words[0]).is_file():
        what = f"{words[0]}: no such file" if words else "no script"
        print(f"convnext-study timm: {what}; name a script of timm's repository", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    # As Python itself does: the script's folder comes first, and its name is the first argument.
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
