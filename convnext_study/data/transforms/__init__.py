"""Transforms between an image's file and the network; and three files of ``timm.data``.

``import timm`` takes three seconds, for all its networks. Reading and mixing images needs only
Mixup, RandAugment and Random Erasing: ``timm_part("mixup")``. These are timm's own files, imported
under this package's name so that objects containing them can be pickled.
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
    """A file of ``timm.data`` by name, one that imports none of the others but ``constants``."""
    return import_module(f"{__name__}.{file}")
