"""The tasks of the pruning study: what an arm starts from, what stays masked, and resuming."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.pruning_nets import DENSENET, PREACT, PRERESNET
from support.pruning_runs import TINY, WIDTHS, arm_of, context, prepared, tiny_run, train_in
from support.runs import make_tiny_run
from support.training import assert_resumes, weights
from torch import Tensor, nn

from convnext_study.cost import count
from convnext_study.data.rng import fold_in, seed_everything
from convnext_study.errors import UserError
from convnext_study.evaluation.load_run import load_run
from convnext_study.imports import TaskError
from convnext_study.runs.parents import ParentError
from convnext_study.runs.records import ModelRef, Result, Run, TaskRef, read
from convnext_study.studies.pruning.arms import with_epochs
from convnext_study.studies.pruning.channel_groups import PruningError
from convnext_study.studies.pruning.costs import Images, budget_flops, untrained
from convnext_study.studies.pruning.methods.selection import factored_ref
from convnext_study.studies.pruning.plans import runs_of
from convnext_study.studies.pruning.spec import Spec
from convnext_study.studies.pruning.tasks import ARM_TASK, SparseTraining, TrainingArm
from convnext_study.studies.pruning.trained_weights import find_weights
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import find_parent
from convnext_study.training.tasks.classification import Classification

STRUCTURED = ["l1-norm", "l1-smallest", "l1-random", "taylor", "thinet", "regression"]
DENSE = tiny_run()
SLIMMED = prepared(tiny_run(epochs=2), slimming=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's, with a trained network and one that was prepared for slimming."""
    path = tmp_path_factory.mktemp("study")
    train_in(path, DENSE, SLIMMED)
    return path


def started(folder: Path, run: Run) -> tuple[TrainingArm, nn.Module]:
    """The task and its network before its first step, as the engine builds them."""
    path = folder / "runs" / run.id
    task = TrainingArm(run, Runtime())
    seed_everything(fold_in(run.seed, "weights"))
    return task, task.build(find_parent(run, path))


def fresh(run: Run) -> nn.Module:
    """A network as a run without a parent starts it."""
    seed_everything(fold_in(0, "weights"))
    return Classification(run, Runtime()).build()


def widths_in(result: Result) -> list[int]:
    assert result.model is not None
    return [width for width in result.model.args["widths"] if width != "M"]


@pytest.mark.parametrize("method", STRUCTURED)
def test_predefined_methods_end_to_end(folder: Path, method: str) -> None:
    few: dict[str, Any] = {} if "l1" in method else {"images_per_class": 2}
    arm = arm_of(DENSE, method, widths=WIDTHS, **few)
    (result,) = train_in(folder, arm)
    widths = widths_in(result)
    if method == "regression":  # at most a tenth more
        assert all(a <= b <= 1.1 * a + 1 for a, b in zip((2, 3, 4), widths, strict=True))
    else:
        assert widths == [2, 3, 4]
    # A finished arm is what it is without its parent.
    loaded = load_run(folder / "runs" / arm.id)
    assert sum(p.numel() for p in loaded.net.parameters()) == result.cost.params
    assert not (loaded.net.training or loaded.notes)


def test_weights_are_the_parents_or_those_of_a_run_without_one(folder: Path) -> None:
    whole = weights(folder / "runs" / DENSE.id)
    (_, mine), (_, drawn) = (
        started(folder, arm_of(DENSE, "l1-norm", start, widths=WIDTHS))
        for start in ("inherited", "random")
    )
    norms = whole["stem.conv.weight"].abs().sum((1, 2, 3))
    kept = sorted(norms.sort(descending=True).indices[:2].tolist())
    for name in ("stem.conv.weight", "stem.norm.running_mean"):
        assert torch.equal(mine.state_dict()[name], whole[name][kept])
    alone = fresh(tiny_run(TINY.replace(widths=(2, "M", 3, "M", 4))))
    for name, value in alone.state_dict().items():
        assert torch.equal(drawn.state_dict()[name], value), name


def test_automatic_methods_end_to_end(folder: Path) -> None:
    half = arm_of(SLIMMED, "slimming", ratio=0.5)
    budget = arm_of(SLIMMED, "slimming", "random", macs=40_000)
    by_ratio, by_budget = train_in(folder, half, budget)
    assert by_ratio.model is not None
    left = [*widths_in(by_ratio), *by_ratio.model.args["hidden"]]
    assert sum(left) == 26 - int(26 * 0.5) - 1
    assert by_budget.cost.macs == pytest.approx(40_000, rel=0.15)


def test_the_penalty_shrinks_the_scales(folder: Path) -> None:
    plain = tiny_run(epochs=2)
    train_in(folder, plain)
    sizes = [
        float(weights(folder / "runs" / run.id)["stem.norm.weight"].abs().mean())
        for run in (plain, SLIMMED)
    ]
    assert sizes[1] < 0.9 * sizes[0]


def test_branches_are_selected(folder: Path) -> None:
    spec = PREACT.replace(widths=(2, 2, 2, 2))
    dense = tiny_run(spec, epochs=2)
    factored = dense.model_copy(update={"model": factored_ref(dense.model)})
    # So strong a penalty that branches go within a few steps.
    factored = prepared(factored, selection=2.0)
    _, result = train_in(folder, factored, arm_of(factored, "structure-selection"))
    assert result.model is not None and result.model.builder == "pruning"
    branches = sum(count for count, _ in result.model.args["stages"])
    assert branches < sum(count for count, _ in spec.stages)
    assert load_run(folder / "runs" / factored.id).net is not None


@pytest.mark.parametrize("start", ["inherited", "rewound", "random", "redrawn"])
def test_masked_weights_stay_zero(folder: Path, start: str) -> None:
    arm = arm_of(DENSE, "magnitude", start, ratio=0.7)
    (result,) = train_in(folder, arm)
    whole, left = (weights(folder / "runs" / run.id) for run in (DENSE, arm))
    total = kept = 0
    for value in left.values():
        if value.ndim == 4:
            total, kept = total + value.numel(), kept + int((value != 0).sum())
    assert kept == total - int(total * 0.7) - 1
    assert result.cost.model_extra == {"nonzero": result.cost.params - total + kept}
    threshold = min(
        float(whole[name][value != 0].abs().min())
        for name, value in left.items()
        if value.ndim == 4 and (value != 0).any()
    )
    for name, value in left.items():
        if value.ndim == 4:  # the large network's largest, whatever the arm starts from
            assert bool(((whole[name].abs() >= threshold) == (value != 0)).all())


def test_soft_filters_leave_a_pattern_that_scratch_keeps(tmp_path: Path) -> None:
    dense = prepared(tiny_run(), soft_filters=0.5)
    arm = arm_of(dense, "soft-filters", "redrawn", ratio=0.5)
    train_in(tmp_path, dense, arm)
    mine, its = (zero_filters(weights(tmp_path / "runs" / run.id)) for run in (arm, dense))
    for name, zero in its.items():
        assert int(zero.sum()) == len(zero) // 2 and torch.equal(mine[name], zero)
    # Before the first epoch too, where the method's authors do.
    for at_start in (False, True):
        task = SparseTraining(prepared(DENSE, soft_filters=0.5, at_start=at_start), Runtime())
        net = fresh(DENSE)
        task.begin(net)
        assert int(zero_filters(net.state_dict())["stem.conv.weight"].sum()) == 2 * at_start


def zero_filters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each convolution, which of its filters are zero."""
    return {
        name: value.flatten(1).abs().sum(1) == 0 for name, value in state.items() if value.ndim == 4
    }


# How the parent is trained, the arm, its amount, and after how many steps both are stopped.
ARMS: dict[str, tuple[dict[str, float], tuple[Any, ...], dict[str, Any], int]] = {
    "removed": ({}, ("l1-norm",), {"widths": WIDTHS}, 3),
    "sampled": ({}, ("thinet",), {"widths": WIDTHS, "images_per_class": 2}, 4),
    "masked": ({}, ("magnitude", "redrawn"), {"ratio": 0.7}, 7),
    "slimmed": (
        {"slimming": 0.05},
        ("slimming", "random"),
        {"ratio": 0.6, "length": "scratch_b"},
        3,
    ),
    "soft": ({"soft_filters": 0.3}, ("soft-filters", "redrawn"), {"ratio": 0.3}, 4),
}


@pytest.mark.parametrize("name", ARMS)
def test_arms_and_their_parents_resume_bit_for_bit(tmp_path: Path, name: str) -> None:
    sparsity, method, amount, steps = ARMS[name]
    dense = tiny_run(epochs=2)
    dense = prepared(dense, **sparsity) if sparsity else dense
    arm = arm_of(dense, *method, **amount)
    train_in(tmp_path / "calm", dense, arm)
    for run in (dense, arm):
        path = tmp_path / "cut" / "runs" / run.id
        assert_resumes(tmp_path / "calm" / "runs" / run.id, run, path, steps)


def test_a_row_of_the_road_map_is_pruned(folder: Path) -> None:
    dense = make_tiny_run("separate_downsampling", epochs=1, global_batch_size=256)
    arm = arm_of(dense, "l1-norm", widths={"stages.0.blocks.0.branch.pw1": 8})
    _, result = train_in(folder, dense, arm)
    assert result.model is not None and result.model.builder == "pruning-narrowed"
    loaded = load_run(folder / "runs" / arm.id)
    assert sum(p.numel() for p in loaded.net.parameters()) == result.cost.params


ALONE = arm_of(DENSE, "l1-norm", widths=WIDTHS).model_copy(update={"init_from": None})
ARM, SPARSE = "^task pruning-arm: ", "^task pruning-sparse: "
REFUSED: dict[str, tuple[Run, type[Exception]]] = {
    "^x: has no channels to prune": (arm_of(DENSE, "l1-norm", widths={"x": 1}), PruningError),
    "^method: 'l1-nrom'.*l1-norm": (arm_of(DENSE, "l1-nrom"), UserError),
    "^method magnitude: needs a ratio": (arm_of(DENSE, "magnitude"), UserError),
    f"{ARM}.* does not name its parent run": (ALONE, TaskError),
    f"{ARM}.*use inherited or random$": (arm_of(DENSE, "l1-norm", "rewound"), TaskError),
    f"{ARM}.*; use random$": (arm_of(SLIMMED, "stage-shares", ratio=0.5), TaskError),
    f"{ARM}ratio: .* than 1$": (arm_of(SLIMMED, "slimming", ratio=1.0), TaskError),
    f"{ARM}ratio: .* equal to 0$": (arm_of(DENSE, "magnitude", ratio=-0.1), TaskError),
    f"{ARM}ratoi: ": (arm_of(DENSE, "magnitude", ratoi=0.5), TaskError),
    f"{SPARSE}slimming: ": (prepared(DENSE, slimming=-1), TaskError),
    f"{SPARSE}soft_filters: ": (prepared(DENSE, soft_filters=1.0), TaskError),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_one_line(folder: Path, message: str) -> None:
    run, error = REFUSED[message]
    with pytest.raises(error, match=message):
        train_in(folder, run)


def test_rounds_prune_what_the_rounds_before_left(folder: Path) -> None:
    runs = [DENSE]
    for weights_of in ("rewound", "inherited", "rewound", "random"):
        parent = runs[-1] if weights_of != "random" else runs[-2]
        runs.append(arm_of(parent, "magnitude-round", weights_of, ratio=0.4))
    train_in(folder, *runs[1:])
    left = [convolutions(folder, run) for run in runs]
    count = sum(mask.numel() for mask in left[0].values())
    for before, after in itertools.pairwise(left[:4]):
        count -= int(count * 0.4) + 1  # strictly greater than the weight at that index
        assert sum(int(mask.sum()) for mask in after.values()) == count
        assert all((mask <= before[name]).all() for name, mask in after.items())
    assert all(torch.equal(mask, left[4][name]) for name, mask in left[3].items())
    # Rewound: to the start of the first training, through all rounds.
    begun, net = started(folder, runs[3])
    first = fresh(DENSE).state_dict()
    for name, mask in left[3].items():
        assert torch.equal(net.state_dict()[name], first[name] * mask)
    assert begun.schedule(begun.recipe) == begun.recipe


def convolutions(folder: Path, run: Run) -> dict[str, torch.Tensor]:
    """Where a trained network's convolutions are not zero."""
    found = weights(folder / "runs" / run.id)
    return {name: value != 0 for name, value in found.items() if value.ndim == 4}


def test_scratch_b_of_masks_counts_what_they_leave(folder: Path) -> None:
    arm = arm_of(DENSE, "magnitude", "redrawn", ratio=0.9, length="scratch_b")
    (result,) = train_in(folder, arm)
    left = {name: int(mask.sum()) for name, mask in convolutions(folder, arm).items()}
    whole = untrained(DENSE.model, Images(16, 10)).cost
    assert result.epochs == whole.budget // budget_flops(fresh(DENSE), (3, 16, 16), left) > 1
    assert result.cost.macs == whole.macs


@pytest.mark.parametrize("method", ["slimming", "stage-shares"])
def test_scratch_b_is_as_long_as_the_parents_architecture_says(folder: Path, method: str) -> None:
    arm = arm_of(SLIMMED, method, "random", ratio=0.5, length="scratch_b")
    (result,) = train_in(folder, arm)
    assert result.model is not None
    images = Images(16, 10)
    large, pruned = (
        untrained(model, images).cost.budget for model in (SLIMMED.model, result.model)
    )
    assert result.epochs == int(2 * large / pruned) > 2
    record = read(folder / "runs" / arm.id)
    assert [line.epochs for line in record.epochs] == [result.epochs] * result.epochs
    # At the same fractions, as where the length is known beforehand.
    task, _ = started(folder, arm)
    assert task.schedule(task.recipe) == with_epochs(task.recipe, result.epochs)
    note = f"after epoch {result.epochs} of {result.epochs} on"
    assert note in load_run(folder / "runs" / arm.id).weights


def test_another_network_is_designed_by_the_parents_shares(folder: Path) -> None:
    dense = prepared(tiny_run(TINY.replace(widths=(4, 4, "M", 6, "M", 8))), slimming=0.05)
    deeper = tiny_run(TINY.replace(widths=(8, 8, "M", 12, 12, "M", 16)))
    free = arm_of(dense, "stage-shares", "random", ratio=0.5)
    budget = arm_of(dense, "stage-shares", "random", ratio=0.5, design_macs=60_000)
    free, budget = (one.model_copy(update={"model": deeper.model}) for one in (free, budget))
    _, as_is, fitted = train_in(folder, dense, free, budget)
    assert widths_in(as_is)[0] == widths_in(as_is)[1] < 8  # one share a stage
    _, net = started(folder, free)
    convolutions = [one for one in net.modules() if isinstance(one, nn.Conv2d)]
    assert widths_in(as_is) == [one.out_channels for one in convolutions]
    # Whole channels, and those of a stage at once: steps are coarse in so small a network.
    assert fitted.cost.macs == pytest.approx(60_000, rel=0.15)
    assert as_is.cost.macs != pytest.approx(60_000, rel=0.15)


@pytest.mark.parametrize("spec", [TINY.replace(widths=(4, 4, "M", 6, "M", 8)), PRERESNET, DENSENET])
def test_a_guided_network_has_the_slimmed_ones_budget(tmp_path: Path, spec: Spec) -> None:
    dense = prepared(tiny_run(spec), slimming=0.05)
    guided = arm_of(dense, "stage-shares", "random", ratio=0.3)
    slimmed = arm_of(dense, "slimming", "random", ratio=0.3)
    _, one, other = train_in(tmp_path, dense, guided, slimmed)
    assert one.cost.macs == pytest.approx(other.cost.macs, rel=0.15)
    assert one.cost.macs < read(tmp_path / "runs" / dense.id).result.cost.macs  # type: ignore[union-attr]


def test_shares_of_a_network_that_was_slimmed_on_other_data(tmp_path: Path) -> None:
    spec = TINY.replace(widths=(8, 8, "M", 12, "M", 16))
    there = prepared(tiny_run(spec), slimming=0.05)
    there = there.model_copy(
        update={"data": "synthetic:7,24,512", "recipe": {**there.recipe, "image_size": None}}
    )
    here = tiny_run(spec).model_copy(update={"init_from": there.key, "name": "transferred"})
    method = {"method": "stage-shares", "weights": "random", "ratio": 0.5}
    args = {**method, "source": {"side": 24, "classes": 7}, "length": "scratch_b"}
    arm = here.model_copy(update={"task": TaskRef(name=ARM_TASK, args=args)})
    _, result = train_in(tmp_path, there, arm)
    _, net = started(tmp_path, arm)
    logits = net.eval()(torch.zeros(1, 3, 16, 16))
    assert logits.shape == (1, 10)  # of the digits, not of the parent's 7 classes
    assert result.cost.macs < untrained(arm.model, Images(16, 10)).cost.macs and result.epochs > 1
    # As large as the slimmed network, on the images that this one sees; steps are coarse.
    same = arm_of(there, "slimming", "random", ratio=0.5).model_copy(update={"data": there.data})
    _, slimmed = started(tmp_path, same)
    assert result.cost.macs == pytest.approx(count(slimmed, (3, 16, 16)).macs, rel=0.2)
    wrong = {**args, "source": {"side": 24, "classes": 5}}
    other = arm.model_copy(update={"task": TaskRef(name=ARM_TASK, args=wrong)})
    with pytest.raises(ParentError, match="do not fit"):
        started(tmp_path, other)


def test_pruning_starts_from_trained_weights(tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = timm.create_model("test_resnet", num_classes=7)  # of other classes
    file = tmp_path / "trained.pth"
    torch.save(other.state_dict(), file)
    asked = context(networks=(f"timm:test_resnet@{file}",), targets=("half", "sparse"))
    runs = {run.name.partition("-")[2]: run for run in runs_of(asked)}
    assert not any(
        run.init_from or "dense" in name or "ticket" in name for name, run in runs.items()
    )
    _, net = started(tmp_path, runs["sparse-inherited"])
    mask = net.get_parameter("conv1.0.weight") != 0
    assert 0 < mask.sum() < mask.numel()
    assert torch.equal(
        net.get_parameter("conv1.0.weight")[mask], other.get_parameter("conv1.0.weight")[mask]
    )
    assert net.get_parameter("fc.weight").shape[0] == 10
    few = {**runs["half-fine_tuned"].recipe, "epochs": 1}
    short = runs["half-fine_tuned"].model_copy(update={"recipe": few, "data": "synthetic:10,16,64"})
    _, narrow = started(tmp_path, short)
    norms = other.get_parameter("layer1.0.conv1.weight").abs().sum((1, 2, 3))
    kept = sorted(norms.sort(descending=True, stable=True).indices[:16].tolist())
    inherited = narrow.get_parameter("layer1.0.conv1.weight")
    assert torch.equal(inherited, other.get_parameter("layer1.0.conv1.weight")[kept])
    network, moved = ModelRef(builder="timm", args={"name": "test_resnet"}), tmp_path / "moved.pth"
    here = find_weights(network, str(file))
    assert short.metadata["network"] == f"timm_test_resnet_{here.sha256[:8]}"
    file.rename(moved)
    there = find_weights(network, str(moved))
    assert here.file != there.file and here.model_dump() == there.model_dump()
    with pytest.raises(UserError, match=r"cannot be read .* rerun the study"):
        started(tmp_path, short)
    torch.save({}, file)
    with pytest.raises(UserError, match="changed after the run was created"):
        started(tmp_path, short)
    tagged, tag = find_weights(network, "pretrained"), "test_resnet.r160_in1k"
    assert (tagged.pretrained, tagged.origin, tagged.short) == (tag, f"timm/{tag}", "pretrained")
