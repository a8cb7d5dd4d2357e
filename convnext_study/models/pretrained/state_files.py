"""State dicts from files, without what savers wrap around them."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from convnext_study.models.pretrained.key_maps import PretrainedError, few

State = dict[str, Tensor]
Kind = Literal["raw", "ema"]

# Under what savers keep a state dict, in the order in which timm looks; the averaged first.
_PLACES: dict[Kind, tuple[str, ...]] = {
    "ema": ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema"),
    "raw": ("state_dict", "model", "model_state_dict", "module", "net"),
}
_AVERAGED_MODEL = "n_averaged"  # torch's AveragedModel counts in a buffer of this name
# What wraps modules, whole networks or parts, leaves its mark in the names of weights.
_WRAPPER = re.compile(r"(^|\.)(?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
_PARALLEL = "module."
_HEAD = 1024  # bytes that tell a text file from others


class Weights(NamedTuple):
    """A state dict, and what its file says of it.

    Args:
        state: without wrappers' prefixes.
        kind: ``raw`` or averaged (``ema``); None where the file does not say.
        key: under which it was in the file; None: it was the file.
        others: the key of the other kind, where there is one.
    """

    state: State
    kind: Kind | None
    key: str | None
    others: str | None


def read_weights(path: Path | str, kind: Kind | None = None) -> Weights:
    """The weights in a safetensors or torch file, without what savers wrap around them.

    No code of the file runs: beside tensors and plain values it may hold an `argparse.Namespace`,
    as the checkpoints of timm and of ConvNeXt's authors do, which is read as timm reads it.

    Args:
        path: of the file.
        kind: ``raw`` or averaged (``ema``) weights; as timm does, averaged where there are both.

    Raises:
        PretrainedError: no such file, not readable, in need of pickle, or without such weights.
    """
    path = Path(path)
    if path.is_dir():
        raise PretrainedError(f"{path}: a folder; name the file of weights in it")
    if not path.is_file():
        raise PretrainedError(f"{path}: no such file")
    try:
        return _weights(_content(path), kind)
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}") from None
    except pickle.UnpicklingError:
        raise PretrainedError(
            f"{path}: not weights alone, but another kind of file or Python objects, which could "
            "run code when read; save the state dict alone"
        ) from None
    except Exception as error:  # the readers raise whatever a broken file makes them trip over
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise PretrainedError(f"{path}: not readable as weights ({reason})") from None


def unwrap(content: Any) -> State:
    """The state dict inside what savers wrap around it, or ``content`` itself; see `read_weights`.

    Raises:
        PretrainedError: there is none, or it holds something else than tensors.
    """
    return _weights(content, None).state


def _content(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise PretrainedError("an empty file; copy or download it again")
    _check_not_text(head)
    if head[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        from safetensors.torch import load_file

        return load_file(path)
    # As a stream: a path that ends in .safetensors torch reads as such, whatever it holds.
    with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_not_text(head: bytes) -> None:
    """Raises PretrainedError at the first bytes of a text file: a page, a pointer of Git LFS."""
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
        if all(one.isprintable() or one.isspace() for one in text):
            raise PretrainedError(f"a text file, not weights; it begins with {text[:40]!r}")


def _weights(content: Any, kind: Kind | None) -> Weights:
    averaged, raw = (_place(content, one) for one in ("ema", "raw"))
    if averaged and kind != "raw":
        return _weights(content[averaged], None)._replace(kind="ema", key=averaged, others=raw)
    if raw:
        inside = _weights(content[raw], kind)
        found = inside.kind or ("raw" if averaged else None)
        return Weights(inside.state, found, inside.key or raw, inside.others or averaged)
    if averaged:
        raise PretrainedError(f"holds averaged weights ({averaged}) and no raw ones")
    state, found = _bare(_tensors(content))
    if kind == "raw" and found == "ema":
        raise PretrainedError(f"holds averaged weights ({_AVERAGED_MODEL}) and no raw ones")
    if kind == "ema" and found is None:
        raise PretrainedError("holds no weights that it says are averaged")
    return Weights(state, found, None, None)


def _place(content: Any, kind: Kind) -> str | None:
    """The key under which there are weights of a kind, or what may hold them."""
    if not isinstance(content, Mapping):
        return None
    for key in _PLACES[kind]:
        inside = content.get(key)
        if isinstance(inside, Mapping) and any(
            isinstance(one, Tensor | Mapping) for one in inside.values()
        ):
            return key
    return None


def _tensors(content: Any) -> State:
    if not isinstance(content, Mapping) or not content:
        raise PretrainedError("no state dict, which maps names to tensors")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            what = few([str(key)[:60] for key in content])
            raise PretrainedError(
                f"no state dict of a network: {str(key)[:60]} is of type {type(value).__name__} "
                f"(it holds {what})"
            )
    return dict(content)


def _bare(state: State) -> tuple[State, Kind | None]:
    """A state dict without what wraps networks, in any nesting; ``ema`` where that averages."""
    kind: Kind | None = None
    bare = {_WRAPPER.sub(r"\1", key): value for key, value in state.items()}
    while rest := [key for key in bare if key != _AVERAGED_MODEL]:
        if not all(key.startswith(_PARALLEL) for key in rest):
            break
        if bare.pop(_AVERAGED_MODEL, None) is not None:
            kind = "ema"
        bare = {key.removeprefix(_PARALLEL): value for key, value in bare.items()}
    if len(bare) + (kind == "ema") < len(state):
        raise PretrainedError("no state dict of one network: two weights have one name")
    return bare, kind
