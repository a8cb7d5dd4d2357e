"""Joints by heatmaps: targets, peaks, PCKh of each exit, and a run that goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.exits import TwoExits, exit_run
from support.mpii import make_split
from support.training import evidence
from torch import Tensor

from convnext_study.errors import UserError
from convnext_study.runs.metrics import NoResultError
from convnext_study.training.runtime import Runtime
from convnext_study.training.tasks import make_task
from convnext_study.training.tasks.base import PLACES
from convnext_study.training.tasks.pose import Pose, gaussians, peaks


def people(places: Tensor, head: float = 10.0) -> Tensor:
    """Rows of people, all of whose joints are labelled."""
    rows = torch.zeros(len(places), places.shape[1] + 1, 4)
    rows[:, :-1, :2], rows[:, :-1, 2] = places, 1
    rows[:, -1] = torch.tensor([32.0, 32.0, 64.0, head])
    return rows


def somewhere(seed: int = 0) -> Tensor:
    """(3, 16, 2) places well inside a square of 64."""
    return 8 + 48 * torch.rand(3, 16, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def task(tmp_path: Path) -> Pose:
    run = exit_run(f"mpii:{make_split(tmp_path)}", task="pose", size=64)
    made = make_task(run, Runtime())
    assert isinstance(made, Pose)
    return made


@pytest.mark.parametrize("cells", [(64, 64), (16, 32)])
def test_peaks_find_the_joints_of_gaussians(cells: tuple[int, int]) -> None:
    places = somewhere()
    maps, seen = gaussians(people(places), cells, 64, 2.0)
    assert maps.shape == (3, 16, *cells)
    assert seen.all()
    off = (peaks(maps, 64) - places).abs().amax((0, 1))
    # A quarter of a cell is the best that a cell and its larger neighbour tell.
    assert off[0] <= 0.251 * 64 / cells[1]
    assert off[1] <= 0.251 * 64 / cells[0]


def test_a_gaussian_is_1_at_its_joint_and_falls_off() -> None:
    maps, _ = gaussians(people(torch.tensor([[[8.5, 16.5]]])), (64, 64), 64, 2.0)
    assert maps[0, 0, 16, 8] == 1
    assert maps[0, 0, 16, 10].item() == pytest.approx(np.exp(-0.5))
    assert maps[0, 0, 18, 8].item() == pytest.approx(np.exp(-0.5))


def test_joints_far_outside_and_unlabelled_ones_are_not_seen() -> None:
    rows = people(torch.tensor([[[32.0, 32.0], [200.0, 32.0], [32.0, -2.0], [30.0, 30.0]]]))
    rows[0, 3, 2] = 0
    _, seen = gaussians(rows, (64, 64), 64, 2.0)
    assert seen.tolist() == [[True, False, True, False]]


def test_the_loss_is_half_the_mean_squared_error_over_the_exits(task: Pose) -> None:
    rows = people(somewhere())
    rows[0, 2, 2] = 0
    exits = [torch.rand(3, 16, 16, 16), torch.rand(3, 16, 32, 32)]
    expected = torch.zeros(3)
    for maps in exits:
        wanted, _ = gaussians(rows, maps.shape[2:], 64, 2.0)
        errors = (maps - wanted).square().mean((2, 3))
        errors[0, 2] = 0
        expected += errors.sum(1) / 16 / 2
    assert torch.allclose(task.image_losses(exits, rows), expected)


def test_pckh_counts_joints_within_half_a_head(task: Pose) -> None:
    places = somewhere()
    rows = people(places, head=10.0)
    rows[0, 1, 2] = 0  # is not labelled
    rows[2, -1, 3] = torch.nan  # its head is not known
    moved = places.clone()
    moved[0, 0] += torch.tensor([4.0, 0.0])  # within
    moved[0, 4] += torch.tensor([8.0, 0.0])  # beyond
    moved[1, 6] += torch.tensor([0.0, 9.0])  # the pelvis, which does not count
    exits = [gaussians(people(one), (64, 64), 64, 2.0)[0] for one in (places, moved)]
    counts = task.measure(exits, rows)["joints"]
    assert counts.tolist() == [[[13, 13], [12, 13]], [[14, 14], [14, 14]], [[0, 0], [0, 0]]]


def test_metrics_of_exits_and_their_evidence(task: Pose) -> None:
    counts = torch.tensor(
        [[[13, 13], [12, 13]], [[14, 14], [7, 14]], [[2, 8], [0, 8]], [[0, 0]] * 2]
    )
    metrics, primary = task.metrics({"joints": counts, PLACES: torch.arange(4)})
    values = {name: metric.value for name, metric in metrics.items()}
    assert primary == "pckh"
    assert values == pytest.approx(
        {
            "pckh": 100 * (29 + 19) / 35 / 2,
            "pckh_exit1": 100 * 29 / 35,
            "pckh_exit2": 100 * 19 / 35,
        }
    )
    samples = evidence(metrics["pckh"])
    assert np.array_equal(samples.array(), counts.numpy())
    groups = samples.group_array()
    assert groups is not None
    assert groups.tolist() == [2, 3, 0, 1]  # images 10, 11, 8, 9 by their names


def test_nobody_to_measure_is_no_result(task: Pose) -> None:
    rows = people(somewhere(), head=0.0)
    exits = [gaussians(rows, (64, 64), 64, 2.0)[0]]
    with pytest.raises(NoResultError, match="PCKh has nothing to measure"):
        task.metrics(task.measure(exits, rows))


def test_people_are_evaluated_once_each(task: Pose) -> None:
    found = task.evaluate(TwoExits(16).eval())
    samples = evidence(found.metrics["pckh_exit2"])
    assert found.images == samples.count == 4
    # Joint 3 is not labelled, and pelvis and thorax do not count.
    assert samples.array()[:, 0, 1].tolist() == [13] * 4


def test_people_in_bad_images_are_left_out_with_their_groups(tmp_path: Path) -> None:
    root = make_split(tmp_path)
    (root / "images" / "9.png").write_bytes(b"")
    run = exit_run(f"mpii:{root}", task="pose", size=64)
    found = make_task(run, Runtime(corrupt_images="skip")).evaluate(TwoExits(16).eval())
    samples = evidence(found.metrics["pckh"])
    groups = samples.group_array()
    assert (found.images, samples.count, found.corrupt_images) == (3, 3, 1)
    assert groups is not None
    assert groups.tolist() == [2, 0, 1]  # images 8, 10, 11 by their names


def test_arguments_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task pose: size: .*greater than or equal to 1"):
        make_task(exit_run(f"mpii:{tmp_path}", task="pose", size=0), Runtime())
