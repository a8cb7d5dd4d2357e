"""What a study's records do not hold and its checkpoints do: a trained network, used again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.evaluation.errors import EvaluationError
from convnext_study.runs.files import make_within, read_json, write_json
from convnext_study.runs.records import CHECKPOINT, Record, Result

if TYPE_CHECKING:
    from convnext_study.studies.anytime.networks.network import AnytimeNet
    from convnext_study.studies.anytime.segmentation import AnytimeSegmentation

MEASURED = "anytime-measured"  # a folder beside the runs: what was measured of trained networks


@dataclass(frozen=True)
class Trained:
    """A network of a finished run, in evaluation mode, and the task that it was trained for."""

    net: AnytimeNet
    task: AnytimeSegmentation


def load(record: Record) -> Trained:
    """The network of a finished run, without heads that are for training alone.

    Raises EvaluationError where its weights are not there.
    """
    from convnext_study.evaluation.load_run import load_run
    from convnext_study.studies.anytime.controls import DeepSupervision, last_exit_alone
    from convnext_study.studies.anytime.networks.network import AnytimeNet
    from convnext_study.studies.anytime.segmentation import AnytimeSegmentation
    from convnext_study.training.runtime import Runtime
    from convnext_study.training.tasks import make_task

    loaded = load_run(record.folder)
    task = make_task(record.run, Runtime(corrupt_images="skip"))
    if not isinstance(loaded.net, AnytimeNet) or not isinstance(task, AnytimeSegmentation):
        raise EvaluationError(f"{record.folder}: not a run of this study's")
    net = last_exit_alone(loaded.net) if isinstance(task, DeepSupervision) else loaded.net
    return Trained(net, task)


def has_weights(record: Record) -> bool:
    """Whether a run's checkpoint is where it was trained."""
    return (record.folder / CHECKPOINT).is_file()


def remembered(record: Record, name: str, measure: Callable[[], Any]) -> Any:
    """What was measured of a run's network, in plain values; measured where it was not yet.

    Kept beside the runs, with the checksum of the weights that it belongs to.
    """
    from convnext_study.training import checkpoint_file

    digest = checkpoint_file.digest(record.folder / CHECKPOINT)
    home = make_within(record.folder.parents[1], MEASURED)
    path = home / f"{record.run.id}-{name}.json"
    try:
        kept = read_json(path)
        if kept["weights"] == digest:
            return kept["measured"]
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not there, or not whole: it is measured again
    measured = measure()
    write_json(path, {"weights": digest, "measured": measured})
    return measured


def first_seed(records: Sequence[Record]) -> Record | None:
    """The run of the lowest seed that has its weights."""
    here = [record for record in records if has_weights(record)]
    return min(here, key=lambda record: record.run.seed, default=None)


def result_of(record: Record) -> Result:
    """The result of a finished run."""
    assert record.result is not None  # noqa: S101  only finished ones are asked for
    return record.result
