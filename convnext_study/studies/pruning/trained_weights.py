"""Weights that were trained elsewhere, timm's or a file's, to start pruning from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from convnext_study.errors import UserError
from convnext_study.imports import file_digest
from convnext_study.models.builders import check_timm_name
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.removal import network_of

PRETRAINED = "pretrained"  # timm's own weights of a name
_HINT = "rerun the study with the location of the weights"
WEIGHTS_FILE = "weights_file"  # in a run's metadata: the path, which is not part of its key


class TrainedWeights(BaseModel):
    """A ``network`` and its weights: a file's, by its ``sha256``, or timm's, by ``pretrained``, the
    name with its tag, and ``origin``, from where timm gets them. ``file`` is only the path, and is
    not stored with the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ModelRef
    file: str = Field(default="", exclude=True)
    sha256: str = ""
    pretrained: str = ""
    origin: str = ""

    @property
    def short(self) -> str:
        """Their name in runs and tables."""
        return self.sha256[:8] or PRETRAINED


def find_weights(network: ModelRef, where: str) -> TrainedWeights:
    """The weights of a network of timm's at ``where``, a file or `PRETRAINED`.

    Raises UserError for a missing file, or a name without weights.
    """
    import timm

    name = network.args["name"]
    check_timm_name(name)
    if where == PRETRAINED:
        if not timm.is_model_pretrained(name):
            raise UserError(
                f"networks: timm:{name}@{where}: timm has no weights for it; pass a file"
            )
        cfg: Any = timm.get_pretrained_cfg(name)
        tagged = ".".join(filter(None, (cfg.architecture, cfg.tag)))
        origin = cfg.hf_hub_id or cfg.url or ""
        return TrainedWeights(network=network, pretrained=tagged, origin=origin)
    path = Path(where).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"networks: timm:{name}@{where}: no such file; pass one, or {PRETRAINED}")
    return TrainedWeights(network=network, file=str(path), sha256=file_digest(path, _HINT))


def put_weights(net: nn.Module, weights: TrainedWeights, file: str, classes: int) -> None:
    """Load the weights into a network with ``classes``, from ``file`` if they are not timm's; for
    other classes than theirs the classifier keeps its initial weights.

    Raises UserError for a file that is missing, changed or another network's.
    """
    own = net.state_dict()
    if weights.sha256:
        path = Path(file)
        if file_digest(path, _HINT) != weights.sha256:
            raise UserError(f"{path}: changed after the run was created; rerun the study")
        from convnext_study.models.pretrained.state_files import read_weights

        state = read_weights(path).state
    else:
        args = {**weights.network.args, "name": weights.pretrained, "pretrained": True}
        state = network_of(weights.network.model_copy(update={"args": args}), classes).state_dict()
    fitting = {
        name: value
        for name, value in state.items()
        if name in own and value.shape == own[name].shape
    }
    cfg: Any = net.pretrained_cfg
    heads: Any = cfg["classifier"]
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    for name in own.keys() - fitting.keys():
        if not name.startswith(heads):
            what = weights.network.args["name"]
            where = file or weights.pretrained
            raise UserError(
                f"{where}: {name} does not have the shape of {what}'s; use its own weights"
            )
    net.load_state_dict({**own, **fitting})
