"""From the plain values of a record to a module: what `ModelRef.builder` may name.

A builder takes the arguments of the record and, by keyword, what the data and the recipe decide.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.errors import BadRequest

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

ROADMAP_BUILDER = "convnext_study.build:roadmap_net"
TIMM_BUILDER = "convnext_study.build:timm_net"
FILE_BUILDER = "convnext_study.build:file_net"


def roadmap_net(
    args: dict[str, Any], *, num_classes: int, drop_path: float, init: str
) -> nn.Module:
    """The network of a spec: ``args`` are `NetSpec`'s fields."""
    from convnext_study.net import RoadmapNet
    from convnext_study.spec import NetSpec

    net = RoadmapNet(NetSpec.from_dict(args), num_classes=num_classes, drop_path_rate=drop_path)
    net.init_weights(init)
    return net


def timm_net(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """Any timm model: ``args`` hold its ``name`` and further keywords. It keeps its own init."""
    import timm

    keywords = {"drop_path_rate": drop_path, **args}
    net: nn.Module = timm.create_model(keywords.pop("name"), num_classes=num_classes, **keywords)
    return net


def file_net(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """A network from a function in a file of the user's.

    ``args`` hold the ``file``, the name of the ``function``, the `file_digest` as ``sha256``, and
    the function's own ``args``, which it gets as its first argument; the rest is as for any
    builder. Raises BadRequest where the file has changed: its content decides the run.
    """
    path = Path(args["file"])
    if file_digest(path) != args["sha256"]:
        raise BadRequest(f"{path}: has changed since this run was asked for; give the study again")
    function = getattr(load_file(path), args["function"], None)
    if not callable(function):
        raise BadRequest(f"{path}: has no function {args['function']!r}; define it there")
    own = dict(args["args"])
    net: nn.Module = function(own, num_classes=num_classes, drop_path=drop_path, init=init)
    return net


def file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256. Raises BadRequest where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read ({error.strerror}); name a Python file") from None


def load_file(path: Path) -> ModuleType:
    """The module that a Python file makes. Raises BadRequest, naming the file and the line."""
    file_digest(path)
    name = f"convnext_study_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise BadRequest(f"{path}: is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for themselves there
    try:
        spec.loader.exec_module(module)
    except BadRequest:
        raise
    except Exception as error:
        raise BadRequest(f"{path}: {fault(error, path)}") from error
    return module


def fault(error: Exception, path: Path) -> str:
    """What went wrong in a user's file, and in which line of it."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    what = (str(error).splitlines() or ["no message"])[0]
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}: {what}"
