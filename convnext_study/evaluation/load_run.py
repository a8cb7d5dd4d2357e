"""Load a run's network in evaluation mode, with its evaluation transform."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.data.transforms.evaluation import EvalTransform
from convnext_study.errors import UserError, first_line
from convnext_study.evaluation.trust import (
    Allowed,
    EvaluationError,
    TrustError,
    allowed_calls,
    check_data,
)
from convnext_study.imports import TaskError
from convnext_study.runs import records
from convnext_study.runs.records import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convnext_study.data.dataset import DatasetPair
    from convnext_study.recipes import Recipe

__all__ = ["EvaluationError", "LoadedModel", "TrustError", "load_run"]


@dataclass(frozen=True)
class LoadedModel:
    """A network to evaluate. ``classes`` is its number of outputs; ``weights`` their origin.

    ``class_names`` is a digest (`digest_of_names`), if the run's checkpoint has one.
    """

    name: str
    net: nn.Module
    classes: int
    transform: EvalTransform
    weights: str
    run: Run | None = None
    notes: tuple[str, ...] = ()
    class_names: str | None = None

    def check_names(self, uri: str, names: str | None) -> None:
        """Raises EvaluationError if the data's class names have another digest."""
        if None not in (self.class_names, names) and self.class_names != names:
            raise EvaluationError(
                f"{self.name}: was trained on other class names, or another order, than {uri} "
                "has, so its results there are meaningless; restore the names and their order"
            )

    @property
    def is_classifier(self) -> bool:
        """Whether it classifies images, which networks not trained here always do."""
        from convnext_study.training.tasks import task_class
        from convnext_study.training.tasks.classification import Classification

        if self.run is None or ":" in self.run.task.name:
            return True
        return issubclass(task_class(self.run.task.name), Classification)

    @property
    def precision(self) -> str:
        """The precision of training, also for evaluation: ``float32``, ``bf16`` or ``fp16``."""
        return str(self.run.recipe.get("precision", "float32")) if self.run else "float32"


def load_run(folder: Path, *, trust: bool = False, code: Path | None = None) -> LoadedModel:
    """The network of a run's folder with its newest readable weights.

    A record may come from anywhere and names code to call and data to open: see `evaluation.trust`
    for what is allowed without ``trust``, and with the file ``code``.

    Raises:
        RecordError: no run in this folder.
        EvaluationError: no weights, or a network that cannot be built.
        TrustError: the record names what is not trusted.
    """
    from convnext_study.recipes import make_recipe
    from convnext_study.training import checkpoint_file

    record = records.read(folder)
    run, recipe, notes = record.run, make_recipe(record.run.recipe), list[str]()
    if record.result is not None and record.result.model is not None:
        run = run.model_copy(
            update={"model": record.result.model}
        )  # determined by its parent or by training
    calls = allowed_calls(run, trust=trust, code=code)
    saved = checkpoint_file.load(folder, notes.append)
    if saved is None:
        raise EvaluationError(f"{folder}: no readable checkpoint; train the run first")
    # The weights whose accuracy is the run's result: raw or averaged, as in its recipe.
    state = dict(saved["model_ema" if recipe.eval_weights == "ema" else "model"])
    epochs = len(saved["state"]["history"])
    total_epochs = record.epochs[-1].epochs if record.epochs else recipe.epochs
    if epochs < total_epochs:
        notes.append(f"the run is not finished: {epochs} of {total_epochs} epochs")
    data = _open(run, trust, notes)
    net = _build(run, calls, saved.get("num_classes"), recipe, state, str(folder))
    return LoadedModel(
        name=run.id,
        net=net,
        classes=saved.get("num_classes") or len(classifier_of(net)[1]),
        transform=EvalTransform(
            image_size=recipe.image_size or (data.size if data else 0),
            crop_pct=recipe.crop_pct,
            interpolation=recipe.interpolation,
            mean=data.mean if data else None,
            std=data.std if data else None,
        ),
        weights=f"{recipe.eval_weights}, after epoch {epochs} of {total_epochs} on {run.data}",
        run=run,
        notes=tuple(notes),
        class_names=saved.get("data", {}).get("class_names"),
    )


def _open(run: Run, trust: bool, notes: list[str]) -> DatasetPair | None:
    """The data of a run; None, with a note, if it is missing or must not be opened.

    Also None if its labels are not classes: such data is prepared by the run's task.
    """
    from convnext_study.data import open_data
    from convnext_study.data.dataset import DataError
    from convnext_study.data.sources import OF_IMAGES, wrong_labels

    if wrong_labels(run.data, OF_IMAGES):
        return None
    try:
        if not trust:
            check_data(run.id, run.data)
        return open_data(run.data)
    except (DataError, TrustError) as error:
        reason = str(error)
        trusted = isinstance(error, DataError)
    with contextlib.suppress(DataError):
        if trusted and (data := open_data(run.data, val_alone=True)):
            notes.append(f"only the validation part of its data can be opened ({reason})")
            return data
    notes.append(f"the training data cannot be opened ({reason})")
    return None


def _build(
    run: Run, calls: Allowed, classes: int | None, recipe: Recipe, state: dict[str, Any], where: str
) -> nn.Module:
    from convnext_study.training.runtime import Runtime

    try:
        if calls.task is None:
            # Not the weights that it started from: its own are loaded below.
            args = {name: value for name, value in calls.args.items() if name != "pretrained"}
            net = calls.builder(args, num_classes=classes, drop_path=0.0, init=recipe.init)
        else:
            model = run.model.model_copy(update={"args": calls.args})
            net = calls.task(run.model_copy(update={"model": model}), Runtime()).build()
    except TaskError as error:
        raise EvaluationError(f"{where}: its network cannot be built ({error})") from error
    except UserError:
        raise
    except Exception as error:  # any error of arguments that do not fit together
        raise EvaluationError(
            f"{where}: its network cannot be built ({first_line(error):.200})"
        ) from error
    load_weights(net, state, where)
    return net.eval()


def classifier_of(net: Any) -> tuple[str, Tensor]:
    """Name and weight of the layer whose outputs, its first axis, are a network's classes.

    It is the result of ``get_classifier``, the first if there are several; for networks without
    that method, the last layer, as in torchvision.

    Raises EvaluationError if there is none.
    """
    classifiers = net.get_classifier() if hasattr(net, "get_classifier") else net
    head = classifiers[0] if isinstance(classifiers, tuple | list) else classifiers
    names = {id(weight): name for name, weight in net.named_parameters()}
    matrices = [weight for weight in head.parameters() if weight.ndim > 1 and id(weight) in names]
    if not matrices:
        raise EvaluationError(
            f"{type(net).__name__}: has no classifier, so its classes cannot be counted"
        )
    return names[id(matrices[-1])], matrices[-1]


def load_weights(net: nn.Module, state: Mapping[str, Any], where: str) -> None:
    """Load all weights. Raises EvaluationError, one line, if they do not fit."""
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        first = lines[0] if lines else "no reason given"
        raise EvaluationError(
            f"{where}: the weights do not fit {type(net).__name__}: {first[:200]}"
        ) from None
