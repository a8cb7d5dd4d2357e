"""State dicts from files, without what savers wrap around them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnext_study.models.pretrained.key_maps import PretrainedError

State = dict[str, Tensor]


def read_state(path: Path | str) -> State:
    """The state dict in a ``.safetensors`` or torch file, without what savers wrap around it.

    Raises:
        PretrainedError: no such file, not readable, in need of pickle, or without a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise PretrainedError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        return unwrap(content)
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}") from None
    except pickle.UnpicklingError:
        raise PretrainedError(
            f"{path}: not weights alone, but another kind of file or Python objects, which could "
            "run code when read; save the state dict alone"
        ) from None
    except Exception as error:  # the readers raise whatever a broken file makes them trip over
        reason = str(error).partition("\n")[0]
        raise PretrainedError(f"{path}: not readable as weights ({reason})") from None


def unwrap(content: Any) -> State:
    """The state dict in ``{"model": ...}`` or ``{"state_dict": ...}``, or ``content`` itself.

    Raises:
        PretrainedError: there is none, or it holds something else than tensors.
    """
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise PretrainedError("no state dict, which maps names to tensors")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise PretrainedError(f"no state dict: {key} is of type {type(value).__name__}")
    if all(key.startswith("module.") for key in content):  # saved by DistributedDataParallel
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)
