"""The task with a class for every pixel: its loss, its metrics, and a run that goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix, jaccard_score
from support.dense import make_pairs
from support.exits import Constant, TwoExits, exit_run
from support.mpii import make_split
from support.training import assert_same, cut_off
from torch import Tensor

from convnext_study.data.dataset import IGNORE
from convnext_study.errors import UserError
from convnext_study.runs import records
from convnext_study.runs.metrics import NoResultError
from convnext_study.runs.records import Run
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks import make_task
from convnext_study.training.tasks.segmentation import (
    Segmentation,
    confusion,
    miou_metrics,
    overlap_of,
)

CLASS_WEIGHTS = [0.5, *[1.0 + number / 10 for number in range(10)]]


def task(run: Run | None = None, **runtime: Any) -> Segmentation:
    made = make_task(run or exit_run(), Runtime(channels_last=False, **runtime))
    assert isinstance(made, Segmentation)
    return made


def labels(*shape: int, classes: int = 11, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    found = torch.randint(0, classes, shape, generator=draw).to(torch.uint8)
    return found.masked_fill(torch.rand(shape, generator=draw) < 0.2, IGNORE)


def logits(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_loss_of_an_image_is_torchs_summed_over_exits() -> None:
    made = task(exit_run(class_weights=CLASS_WEIGHTS, exit_weights=[1.0, 0.25]))
    wanted, exits = labels(3, 16, 16), [logits(3, 11, 4, 4), logits(3, 11, 16, 16, seed=2)]
    found = made.image_losses(exits, wanted)
    whole = F.interpolate(exits[0], size=(16, 16), mode="bilinear", align_corners=False)
    for image in range(3):
        expected = sum(
            weight
            * F.cross_entropy(
                one[image : image + 1],
                wanted[image : image + 1].long(),
                torch.tensor(CLASS_WEIGHTS),
                ignore_index=IGNORE,
            )
            for weight, one in zip((1.0, 0.25), (whole, exits[1]), strict=True)
        )
        assert found[image].item() == pytest.approx(float(expected), rel=1e-5)


def test_an_image_without_a_class_costs_nothing_and_spoils_nothing() -> None:
    made, wanted = task(), labels(2, 8, 8)
    wanted[1] = IGNORE
    exits = logits(2, 11, 8, 8).requires_grad_()
    losses = made.image_losses([exits], wanted)
    losses.mean().backward()
    assert losses[1] == 0 < losses[0]
    assert exits.grad is not None and exits.grad.isfinite().all()
    assert exits.grad[1].abs().max() == 0


def test_the_mean_of_the_pieces_is_the_mean_of_the_batch() -> None:
    run = exit_run(class_weights=CLASS_WEIGHTS)
    net = TwoExits(11).eval()
    (whole,) = list(task(run).train_batches(0, 1))
    pieces = list(task(run, micro_batch_size=4).train_batches(0, 1))
    assert [len(one) for one in pieces] == [4] * 4
    parts = [task(run).loss(net, one)[0].item() for one in pieces]
    assert np.mean(parts) == pytest.approx(task(run).loss(net, whole)[0].item(), rel=1e-5)


def test_confusion_is_scikit_learns() -> None:
    wanted, said = labels(2, 9, 7), labels(2, 9, 7, seed=5) % 11
    found = confusion(said, wanted, 11)
    for image in range(2):
        known = wanted[image] != IGNORE
        expected = confusion_matrix(wanted[image][known], said[image][known], labels=range(11))
        assert found[image].tolist() == expected.tolist()


def evaluated(exits: list[Tensor], wanted: Tensor) -> Any:
    counts = [overlap_of(confusion(one, wanted, 11)) for one in exits]
    return miou_metrics(torch.stack(counts, 1))[0]


def test_miou_is_of_one_matrix_over_all_images_and_its_evidence_gives_it_again() -> None:
    wanted = labels(6, 9, 7, classes=9)  # of classes 9 and 10 there is no pixel
    exits = [labels(6, 9, 7, seed=seed) % 11 for seed in (5, 6)]
    found = evaluated(exits, wanted)
    known = wanted != IGNORE
    each = [
        100 * jaccard_score(wanted[known], one[known], labels=range(9), average="macro")
        for one in exits
    ]
    values = {name: metric.value for name, metric in found.items()}
    expected = {"miou": np.mean(each), "miou_exit1": each[0], "miou_exit2": each[1]}
    assert values == pytest.approx(expected)
    for metric in found.values():
        assert (metric.samples.kind, metric.samples.count) == ("ratio", 6)
        inside, union = metric.samples.array().sum(0).T
        again = 100 * np.mean(inside[union > 0] / union[union > 0])
        assert again == pytest.approx(metric.value)
    assert list(evaluated(exits[:1], wanted)) == ["miou"]


def test_no_labelled_pixel_is_no_result() -> None:
    wanted = labels(6, 9, 7).fill_(IGNORE)
    with pytest.raises(NoResultError, match="no validation pixel has a class"):
        evaluated([labels(6, 9, 7) % 11], wanted)


def test_evaluation_is_of_whole_images_without_what_is_ignored(tmp_path: Path) -> None:
    """Photographs of 40x50 pixels are padded to 64x64; the margin counts for nothing."""
    run = exit_run(f"pairs:{make_pairs(tmp_path, 4)}", crop=(16, 24))
    made = task(run)
    found = made.evaluate(Constant(3, (0, 2)))
    wanted = torch.stack([made.data.val.pixels(index)[1] for index in range(4)])  # type: ignore[misc]
    known = wanted != IGNORE
    for exit, said in ((1, 0), (2, 2)):
        share = float((wanted[known] == said).float().mean())
        assert found.metrics[f"miou_exit{exit}"].value == pytest.approx(100 * share / 3)
    assert made.image_shape == (3, 64, 64)
    assert found.images == 4


@pytest.mark.parametrize("what", ["one exit", "two exits", "joints"])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path: Path, what: str) -> None:
    run = exit_run(model={"exits": 1 if what == "one exit" else 2}, class_weights=CLASS_WEIGHTS)
    if what == "joints":
        data = f"mpii:{make_split(tmp_path / 'mpii')}"
        run = exit_run(data, task="pose", recipe={"global_batch_size": 4}, size=64)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train(run, whole)
    cut_off(run, parts, 3)
    assert train(run, parts).metrics == result.metrics
    assert_same(whole, parts)
    assert result.primary == ("pckh" if what == "joints" else "miou")
    assert 0 <= result.value < 100
    assert records.read(whole).result == result


def test_each_exit_has_its_cost() -> None:
    made = task()
    costs = made.costs(made.build())
    assert list(costs) == ["network", "exit1", "exit2"]
    assert costs["exit2"] == costs["network"]
    stem, head = 16 * 16 * 8 * 27, 16 * 16 * 8 * 11
    assert costs["exit1"].macs == stem + head


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"crops": 1}, "task segmentation: crops: .*did you mean crop"),
        ({"class_weights": [1.0]}, "class_weights: has 1 numbers, but .* has 11 classes"),
        ({"exit_weights": [1.0]}, "exit_weights: has 1 numbers, but there are 2 exits"),
        ({"crop": [0, 4]}, "crop 0x4"),
        ({"exit_weights": [0.0, 0.0]}, "exit_weights: .*one must be above 0"),
        ({"class_weights": [-1.0] + 10 * [1.0]}, "class_weights: .*below 0"),
        ({"scales": [float("nan")]}, "scales.*finite"),
        ({"recipe": {"mixup": 0.8}}, r"mixup 0\.8: not supported by the task segmentation"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(args: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        made = task(exit_run(**args))
        made.loss(TwoExits(11), next(made.train_batches(0, 0)))
    assert "\n" not in str(caught.value)


def test_a_network_of_another_kind_is_refused() -> None:
    made = task()
    with pytest.raises(UserError, match=r"returns \(16, 3, 16, 16\), but the task"):
        made.loss(TwoExits(3), next(made.train_batches(0, 0)))
