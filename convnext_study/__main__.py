"""``convnext-study``, and ``python -m convnext_study``: the command line from its first import."""

import os
import runpy
import sys
from pathlib import Path

from convnext_study.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR


def main() -> None:
    """Run the command line; Ctrl-C prints one line, even during imports."""
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


def _run_timms_script(args: list[str]) -> None:
    """Run a script of timm's repository with this package's networks registered in timm.

    With torchrun: ``torchrun ... -m convnext_study timm train.py ...``.
    """
    if not args or not Path(args[0]).is_file():
        reason = f"{args[0]}: no such file" if args else "no script"
        print(f"convnext-study timm: {reason}; name a script of timm's repository", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    # As Python does: the script's folder comes first in sys.path, its name first in sys.argv.
    sys.argv = args
    sys.path.insert(0, str(Path(args[0]).resolve().parent))
    runpy.run_path(args[0], run_name="__main__")


if __name__ == "__main__":
    main()
