"""What a run's record may call and open if the user does not trust it.

A record is a file of unknown origin. It may only name builders of this package, with arguments
that describe a network and nothing else, and data that is read without executing code or using the
network. A Python file is executed only if the user names that very file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from convnext_study.data.sources import SOURCES, split_uri
from convnext_study.errors import UserError
from convnext_study.imports import TaskError, file_digest, load_function, resolve
from convnext_study.models.builders import FILE_BUILDER, TIMM_BUILDER, checked, get_builder
from convnext_study.runs.records import ModelRef, Run

if TYPE_CHECKING:
    from torch import nn


class EvaluationError(UserError):
    """A network cannot be evaluated as requested; the message says what is wrong."""


class TrustError(EvaluationError):
    """A record requests what is not allowed; the message names it and how to allow it."""


_HELP = "add --trust if you know where the run comes from"

# timm's own keywords give access to files and the network (pretrained, pretrained_cfg,
# checkpoint_path, cache_dir, a source before the name), and its networks take classes and
# functions. The keywords here are numbers, switches and names of layers.
NUMBERS = frozenset((
    "attn_drop", "attn_drop_rate", "avg_down", "base_width", "block_reduce_first", "cardinality",
    "channels", "conv_bias", "conv_mlp", "deep_stem", "depth", "depths", "dims", "drop_block_rate",
    "drop_path_rate", "drop_rate", "embed_dim", "embed_dims", "head_hidden_size", "head_init_scale",
    "head_norm_first", "img_size", "in_chans", "init_values", "kernel_sizes", "layers",
    "ls_init_value", "mlp_ratio", "mlp_ratios", "norm_eps", "num_heads", "output_stride",
    "patch_size", "proj_drop_rate", "qkv_bias", "replace_stem_pool", "stem_width", "use_grn",
    "window_size", "zero_init_last",
    # of this package's own networks, which are registered with timm
    "activations", "depthwise", "expansion", "grn", "inverted", "kernel", "layer_scale", "modules",
    "norms", "spatial_first", "stem_stride", "width",
))  # fmt: skip
WORDS = frozenset((
    "act_layer", "activation", "attention", "block", "downsampling", "form", "global_pool",
    "layout", "norm", "norm_layer", "stem", "stem_type",
))  # fmt: skip
_WORD = re.compile(r"[A-Za-z0-9_]*", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_. +-]*", re.ASCII)
_NAME = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)?", re.ASCII)


@dataclass(frozen=True)
class Allowed:
    """The calls of a run's record: its builder and arguments, and its task if it is not ours."""

    builder: Callable[..., nn.Module]
    args: dict[str, Any]
    task: Callable[..., Any] | None


def allowed_calls(run: Run, *, trust: bool = False, code: Path | None = None) -> Allowed:
    """The builder and the task that a record names, if they may be called.

    Args:
        run: of the record.
        trust: import anything it names, with any arguments.
        code: a file of the user that defines the builder or the task.

    Raises TrustError for anything else, before importing it.
    """
    reference, args = run.model.builder, _checked(run, run.model, trust, code)
    task_name = run.task.name if ":" in run.task.name else None  # others are this package's own
    if task_name is not None:
        _check_import(run, task_name, trust, code)
    # Only now: a file is not executed for a record that is rejected.
    task = None if task_name is None else _find(task_name, code) or resolve(task_name)
    own = _find(reference, code)
    return Allowed(checked(reference, own) if own else get_builder(reference), args, task)


def _checked(run: Run, model: ModelRef, trust: bool, code: Path | None) -> dict[str, Any]:
    """A builder's arguments, if it may be called with them. This package's builders check theirs
    themselves, take plain values, and may name another network, which is checked likewise."""
    reference, args = model.builder, model.args
    if reference == FILE_BUILDER:
        return _file_arguments(run, model, trust, code)
    if reference == TIMM_BUILDER:
        if not trust:
            check_timm_arguments(run.id, args)
    elif not _is_own(reference):
        _check_import(run, reference, trust, code)
    else:
        for value in args.values():
            if isinstance(value, dict) and "builder" in value:
                try:
                    inner = ModelRef.model_validate(value)
                except ValidationError:
                    raise TrustError(
                        f"{run.id}: its record does not name the inner network"
                    ) from None
                _checked(run, inner, trust, code)
            elif not trust:
                _check_words(run, value)
        if not trust and args.get("pretrained"):
            raise TrustError(f"{run.id}: its record requests a download of weights; {_HELP}")
    return args


def _is_own(builder: str) -> bool:
    """Whether a builder belongs to this package or one of its studies."""
    if ":" in builder:
        return False
    try:
        get_builder(builder)
    except TaskError:
        return False
    return True


def _check_words(run: Run, value: Any) -> None:
    """Raises TrustError for a text that could be a path or an address."""
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        raise TrustError(f"{run.id}: its record names {value!r:.100} of a network; {_HELP}")
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_words(run, item)


def check_timm_arguments(where: str, args: dict[str, Any]) -> None:
    """Raises TrustError unless the arguments only name and describe a network of timm."""
    from convnext_study.models.lean_timm import timm

    name = args.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not timm.is_model(name):
        raise TrustError(
            f"{where}: its record names {name!r:.100}, which is not a timm network; {_HELP}"
        )
    for key, value in args.items():
        if key != "name" and not _is_plain(key, value):
            raise TrustError(f"{where}: its record sets {key!r:.60} of a timm network; {_HELP}")


def check_data(where: str, uri: str) -> None:
    """Raises TrustError for data that an untrusted record may not open."""
    scheme, path, _ = split_uri(uri)
    source = SOURCES.get(scheme)
    if source is not None and path.partition("/")[0].lower() not in source.unsafe:
        return
    raise TrustError(
        f"{where}: its record names the data {uri!r:.100}, which may download or run code; name "
        f"the data yourself, as in --data digits, or {_HELP}"
    )


def _is_plain(key: str, value: Any) -> bool:
    if isinstance(value, str):
        return key in WORDS and _WORD.fullmatch(value) is not None
    if isinstance(value, list):
        return key in NUMBERS and all(
            not isinstance(item, str) and _is_plain(key, item) for item in value
        )
    return key in NUMBERS | WORDS and isinstance(value, int | float | None)


def _file_arguments(run: Run, model: ModelRef, trust: bool, code: Path | None) -> dict[str, Any]:
    """The arguments of `file_net`, with the user's file, if any, in place of the record's."""
    args = model.args
    if code is not None:
        if file_digest(code) != args.get("sha256"):
            raise TrustError(
                f"{code}: is not the file with which {run.id} was trained; pass the original file"
            )
        return {**args, "file": str(code)}
    if not trust:
        raise TrustError(
            f"{run.id}: its record requests to run the Python file "
            f"{str(args.get('file'))!r:.200}; pass that file with --code, or {_HELP}"
        )
    return args


def _check_import(run: Run, reference: str, trust: bool, code: Path | None) -> None:
    if not trust and not _is_in(reference, code):
        module = reference.partition(":")[0]
        raise TrustError(
            f"{run.id}: its record requests to import {module!r:.100}, which records may not do; "
            f"pass the file with --code, or {_HELP}"
        )


def _is_in(reference: str, code: Path | None) -> bool:
    """Whether a module's name is that of the user's file; never for modules of this package."""
    module = reference.partition(":")[0].split(".")
    return code is not None and module[-1] == code.stem and module[0] != "convnext_study"


def _find(reference: str, code: Path | None) -> Any:
    """The object of that name in the user's file; None if the name is not of that file."""
    if code is None or not _is_in(reference, code):
        return None
    return load_function(code, reference.partition(":")[2])
