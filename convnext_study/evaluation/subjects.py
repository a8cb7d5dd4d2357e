"""From a name or a run's folder to a network in evaluation mode, and the images it wants."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study import records
from convnext_study.errors import BadRequest
from convnext_study.records import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convnext_study.training.data import Data
    from convnext_study.training.recipe import Recipe

PACKAGE = "convnext_study"


class EvaluationError(BadRequest):
    """A network cannot be judged as asked; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Preparation:
    """The published evaluation transform: resize the short side, crop the centre, normalise.

    ``crop_ratio`` is the crop's side over the resized short side; ``mean`` and ``std`` are
    fractions of 255, None where the data's own are used.
    """

    image_size: int
    crop_ratio: float
    interpolation: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def changed(self, image_size: int | None, crop_ratio: float | None) -> Preparation:
        return replace(
            self,
            image_size=image_size or self.image_size,
            crop_ratio=crop_ratio or self.crop_ratio,
        )

    @property
    def resized(self) -> int:
        return int(self.image_size / self.crop_ratio)

    def __str__(self) -> str:
        return (
            f"short side to {self.resized}, centre crop of {self.image_size}, {self.interpolation}"
        )


@dataclass(frozen=True)
class Subject:
    """A network to judge. ``classes`` are its outputs; ``weights`` says where they come from."""

    name: str
    net: nn.Module
    classes: int
    preparation: Preparation
    weights: str
    run: Run | None = None
    notes: tuple[str, ...] = ()


def load_run(folder: Path, *, trust: bool = False, code: Path | None = None) -> Subject:
    """The network of a run's folder with its newest readable weights.

    A record may come from anywhere and names what to import, so only this package's builders, and
    those of the file ``code``, are called unless ``trust`` is set.

    Raises:
        RecordError: no run in this folder.
        EvaluationError: no weights, or the record names code that is not trusted.
    """
    from convnext_study.training import checkpoint
    from convnext_study.training.data import DataError, open_data
    from convnext_study.training.recipe import make_recipe

    record = records.read(folder)
    run, recipe, notes = record.run, make_recipe(record.run.recipe), list[str]()
    _may_import(run, trust, code)
    saved = checkpoint.load(folder, notes.append)
    if saved is None:
        raise EvaluationError(f"{folder}: no checkpoint that can be read; train the run first")
    state, epochs = _weights(saved, recipe), len(saved["state"]["history"])
    if epochs < recipe.epochs:
        notes.append(f"the run is not finished: {epochs} of {recipe.epochs} epochs")
    try:
        data: Data | None = open_data(run.data)
    except DataError as error:
        data = None
        notes.append(f"the data it was trained on cannot be opened ({error})")
    net, classes = _build(run, recipe, state, str(folder))
    return Subject(
        name=run.id,
        net=net,
        classes=classes,
        preparation=Preparation(
            image_size=recipe.image_size or (data.size if data else 0),
            crop_ratio=recipe.eval_crop_ratio,
            interpolation=recipe.interpolation,
            mean=data.mean if data else None,
            std=data.std if data else None,
        ),
        weights=f"{recipe.result}, after epoch {epochs} of {recipe.epochs} on {run.data}",
        run=run,
        notes=tuple(notes),
    )


def _weights(saved: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The weights whose accuracy is the run's result: raw, or averaged, as its recipe says."""
    return dict(saved["model_ema" if recipe.result == "ema" else "model"])


def _build(run: Run, recipe: Recipe, state: dict[str, Any], where: str) -> tuple[nn.Module, int]:
    from convnext_study.training.task import Machine, make_task, resolve

    classes = classes_in(state)
    if run.task == "classification":
        builder: Callable[..., nn.Module] = resolve(run.model.builder)
        net = builder(run.model.args, num_classes=classes, drop_path=0.0, init=recipe.init)
    else:
        net = make_task(run, Machine()).build()
    put_weights(net, state, where)
    return net.eval(), classes


def classes_in(state: Mapping[str, Tensor]) -> int:
    """Rows of the last matrix in a state dict, which is the classifier in every network known."""
    matrices = [value for value in state.values() if value.ndim == 2]
    if not matrices:
        raise EvaluationError("the weights hold no linear classifier to count classes by")
    return len(matrices[-1])


def put_weights(net: nn.Module, state: Mapping[str, Any], where: str) -> None:
    """Load all weights or none. Raises EvaluationError, one line, where they do not fit."""
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        first = lines[0] if lines else "no reason given"
        raise EvaluationError(
            f"{where}: the weights do not fit {type(net).__name__}: {first[:200]}"
        ) from None


def _may_import(run: Run, trust: bool, code: Path | None) -> None:
    """Refuse a record that would have a module imported which the user did not name."""
    if code is not None:
        _import_file(code)
    for reference in (run.model.builder, run.task):
        module, colon, _ = reference.partition(":")
        if not colon or module.split(".")[0] == PACKAGE:
            continue
        if trust or (code is not None and module.split(".")[-1] == code.stem):
            if code is not None and module.split(".")[-1] == code.stem:
                sys.modules[module] = sys.modules[code.stem]
            continue
        raise EvaluationError(
            f"{run.id}: its record asks to import {module!r}, which is not part of this package; "
            f"name the file with --code, or add --trust if you know where the run comes from"
        )


def _import_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise EvaluationError(f"{path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
