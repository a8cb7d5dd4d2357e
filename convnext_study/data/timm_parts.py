"""Files of ``timm.data`` by themselves: ``timm_part("mixup")``.

``import timm`` takes three seconds, for all its networks. What reads and mixes images needs three
files of it: Mixup, RandAugment and Random Erasing. They are timm's own, under the name of this
module, so that what holds them can be pickled.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_timm = find_spec("timm")  # which imports nothing
__path__ = (
    [str(Path(one) / "data") for one in _timm.submodule_search_locations or ()] if _timm else []
)


def timm_part(file: str) -> Any:
    """A file of ``timm.data`` that needs none of the others but ``constants``, by its name."""
    return import_module(f"{__name__}.{file}")
