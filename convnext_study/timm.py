"""timm's own scripts, with this package's networks: ``python -m convnext_study.timm SCRIPT ARGS``.

timm's wheel has no scripts; they are in its repository: ``train.py``, ``validate.py``,
``onnx_export.py`` and others. Under torchrun: ``torchrun ... -m convnext_study.timm train.py ...``.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from convnext_study.errors import EXIT_USER_ERROR


def main() -> None:
    """Run the script that the first argument names, the others being its own."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        what = f"{sys.argv[1]}: no such file" if len(sys.argv) > 1 else "no script"
        print(f"convnext_study.timm: {what}; name a script of timm's repository", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    # As Python itself does: the script's folder comes first, and its name is the first argument.
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
