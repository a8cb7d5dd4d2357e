"""Weights that were trained elsewhere: timm's, or a file's. Pruning then starts from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from convnext_study.errors import UserError
from convnext_study.imports import file_digest
from convnext_study.models.builders import check_timm_name
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.removal import network_of

PRETRAINED = "pretrained"  # timm's own weights of a name


class TrainedWeights(BaseModel):
    """The ``network`` as it is built at random, and where its weights are: in a ``file`` of that
    content, or, where there is none, with timm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ModelRef
    file: str = ""
    sha256: str = ""


def find_weights(network: ModelRef, where: str) -> TrainedWeights:
    """Those of a network of timm's at ``where``, a file or `PRETRAINED`.

    Raises UserError for a file that is not there, or a name without weights.
    """
    import timm

    name = network.args["name"]
    check_timm_name(name)
    if where == PRETRAINED:
        if not timm.is_model_pretrained(name):
            raise UserError(f"networks: timm:{name}@{where}: timm has no weights; give a file")
        return TrainedWeights(network=network)
    if not Path(where).is_file():
        raise UserError(f"networks: timm:{name}@{where}: no such file; give one, or {PRETRAINED}")
    return TrainedWeights(network=network, file=where, sha256=file_digest(Path(where)))


def put_weights(net: nn.Module, weights: TrainedWeights, classes: int) -> None:
    """Give a network, with so many classes, these weights; for other classes than theirs the
    classifier keeps its start.

    Raises UserError for a file that changed or is another network's.
    """
    mine = net.state_dict()
    if weights.file:
        path = Path(weights.file)
        if file_digest(path) != weights.sha256:
            raise UserError(f"{path}: changed after the run was created; rerun the study")
        from convnext_study.models.pretrained.state_files import read_weights

        state = read_weights(path).state
    else:
        args = {**weights.network.args, "pretrained": True}
        state = network_of(weights.network.model_copy(update={"args": args}), classes).state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if name in mine and value.shape == mine[name].shape
    }
    cfg: Any = net.pretrained_cfg
    heads: Any = cfg["classifier"]
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    for name in mine.keys() - fitting.keys():
        if not name.startswith(heads):
            what = weights.network.args["name"]
            raise UserError(f"{weights.file}: no {name} of {what}'s shape; give its own weights")
    net.load_state_dict({**mine, **fitting})
