"""What happens to images between their files and the network; and three files of ``timm.data``.

``import timm`` takes three seconds, for all its networks. What reads and mixes images needs Mixup,
RandAugment and Random Erasing alone: ``timm_part("mixup")``. They are timm's own files, under the
name of this package, so that what holds them can be pickled.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_timm = find_spec("timm")  # which imports nothing
for _folder in (_timm.submodule_search_locations or ()) if _timm else ():
    __path__.append(str(Path(_folder) / "data"))


def timm_part(file: str) -> Any:
    """A file of ``timm.data`` that needs none of the others but ``constants``, by its name."""
    return import_module(f"{__name__}.{file}")
