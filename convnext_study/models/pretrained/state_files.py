"""Read state dicts from files, without the wrappers that savers add."""

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

# Keys of state dicts in checkpoints, in timm's order of precedence; averaged weights first.
_PLACES: dict[Kind, tuple[str, ...]] = {
    "ema": ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema"),
    "raw": ("state_dict", "model", "model_state_dict", "module", "net"),
}
_AVERAGED_MODEL = "n_averaged"  # a buffer of torch's AveragedModel
# Parts of weight names added by wrappers of whole networks or of modules.
_WRAPPER = re.compile(r"(^|\.)(?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
_PARALLEL = "module."
_HEAD = 1024  # bytes read to recognise text files


class Weights(NamedTuple):
    """A state dict, and what its file says about it.

    Args:
        state: without prefixes of wrappers.
        kind: ``raw`` or averaged (``ema``); None if the file does not say.
        key: its key in the file; None if it was the whole file.
        others: the key of weights of the other kind, if there are any.
    """

    state: State
    kind: Kind | None
    key: str | None
    others: str | None


def read_weights(path: Path | str, kind: Kind | None = None) -> Weights:
    """The weights in a safetensors or torch file, without the wrappers that savers add.

    No code in the file is executed: besides tensors and plain values it may contain an
    `argparse.Namespace`, as in checkpoints of timm and of ConvNeXt's authors.

    Args:
        path: of the file.
        kind: ``raw`` or averaged (``ema``) weights; by default averaged if there are both, as in
            timm.

    Raises:
        PretrainedError: a file that is missing, unreadable, needs pickle or has no such weights.
    """
    path = Path(path)
    if path.is_dir():
        raise PretrainedError(f"{path}: is a folder; name the weight file in it")
    if not path.is_file():
        raise PretrainedError(f"{path}: no such file")
    try:
        return _weights(_content(path), kind)
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}") from None
    except pickle.UnpicklingError:
        raise PretrainedError(
            f"{path}: contains more than weights, such as Python objects that could run code when "
            "loaded; save only the state dict"
        ) from None
    except Exception as error:  # the readers raise any kind of exception for broken files
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise PretrainedError(f"{path}: cannot be read as weights ({reason})") from None


def unwrap(content: Any) -> State:
    """The state dict inside savers' wrappers, or ``content`` itself; see `read_weights`.

    Raises:
        PretrainedError: there is none, or it contains anything but tensors.
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
    # As a stream: torch reads a path that ends in .safetensors as such, whatever it contains.
    with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_not_text(head: bytes) -> None:
    """Raises PretrainedError for the first bytes of a text file: a web page, a Git LFS pointer."""
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
        if all(character.isprintable() or character.isspace() for character in text):
            raise PretrainedError(f"a text file, not weights; it starts with {text[:40]!r}")


def _weights(content: Any, kind: Kind | None) -> Weights:
    averaged, raw = (_place(content, which) for which in ("ema", "raw"))
    if averaged and kind != "raw":
        return _weights(content[averaged], None)._replace(kind="ema", key=averaged, others=raw)
    if raw:
        inside = _weights(content[raw], kind)
        found_kind = inside.kind or ("raw" if averaged else None)
        return Weights(inside.state, found_kind, inside.key or raw, inside.others or averaged)
    if averaged:
        raise PretrainedError(f"contains averaged weights ({averaged}) but no raw ones")
    state, found_kind = _bare(_tensors(content))
    if kind == "raw" and found_kind == "ema":
        raise PretrainedError(f"contains averaged weights ({_AVERAGED_MODEL}) but no raw ones")
    if kind == "ema" and found_kind is None:
        raise PretrainedError("contains no weights marked as averaged")
    return Weights(state, found_kind, None, None)


def _place(content: Any, kind: Kind) -> str | None:
    """The key of weights of a kind, or of a mapping that may contain them."""
    if not isinstance(content, Mapping):
        return None
    for key in _PLACES[kind]:
        inside = content.get(key)
        if isinstance(inside, Mapping) and any(
            isinstance(value, Tensor | Mapping) for value in inside.values()
        ):
            return key
    return None


def _tensors(content: Any) -> State:
    if not isinstance(content, Mapping) or not content:
        raise PretrainedError("not a state dict, which maps names to tensors")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            keys = few([str(key)[:60] for key in content])
            raise PretrainedError(
                f"not the state dict of a network: {str(key)[:60]} is of type "
                f"{type(value).__name__} (it holds {keys})"
            )
    return dict(content)


def _bare(state: State) -> tuple[State, Kind | None]:
    """A state dict without wrappers, however nested; ``ema`` if one of them averages."""
    kind: Kind | None = None
    bare = {_WRAPPER.sub(r"\1", key): value for key, value in state.items()}
    while rest := [key for key in bare if key != _AVERAGED_MODEL]:
        if not all(key.startswith(_PARALLEL) for key in rest):
            break
        if bare.pop(_AVERAGED_MODEL, None) is not None:
            kind = "ema"
        bare = {key.removeprefix(_PARALLEL): value for key, value in bare.items()}
    if len(bare) + (kind == "ema") < len(state):
        raise PretrainedError("not the state dict of one network: two weights have the same name")
    return bare, kind
