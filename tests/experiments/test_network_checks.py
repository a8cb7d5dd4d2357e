"""Networks that no step can be taken of are refused in one line, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convnext_study.data.sources import DatasetSize
from convnext_study.errors import UserError
from convnext_study.experiments.context import Context
from convnext_study.experiments.network_checks import check_networks
from convnext_study.imports import TaskError
from convnext_study.models.builders import get_builder
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import Run, TaskRef
from convnext_study.training.loop import train

NANO = get_roadmap("nano")
OWN = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.fc, self.answer = nn.Linear(3, 10), answer

    def forward(self, x):
        return self.answer(self.fc(x.mean((2, 3))), x)


def good(args, **given): return Net(lambda logits, x: logits)
def nothing(args, **given): pass
def number(args, **given): return 3
def function(args, **given): return lambda x: x
def a_class(args, **given): return Net
def raises(args, **given): raise ValueError("one\\ntwo")
def leaves(args, **given): raise SystemExit(3)
def takes_less(args): return Net(None)
def lazy(args, **given): return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
def fewer(args, **given): return Net(lambda logits, x: logits[:, 1:])
def a_row_short(args, **given): return Net(lambda logits, x: logits[1:])
def maps(args, **given): return nn.Conv2d(3, 10, 1)
def several(args, **given): return Net(lambda logits, x: (logits, logits))
def silent(args, **given): return Net(lambda logits, x: None)
def looks(args, **given): return Net(lambda logits, x: logits if x.sum().item() < 1 else -logits)
def classes(args, **given): return Net(lambda logits, x: logits.argmax(1))
def detached(args, **given): return Net(lambda logits, x: logits.detach())
def frozen(args, **given): return Net(lambda logits, x: logits).requires_grad_(False)
def grey(args, **given): return nn.Conv2d(1, 10, 1)
def large(args, **given): return nn.Conv2d(3, 10, 99)
def half(args, **given): return Net(lambda logits, x: logits).half()
def normed(args, **given): return nn.Sequential(
    nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 10))
missing = None
"""
BAD = [line[4:].partition("(")[0] for line in OWN.splitlines() if line.startswith("def ")]
BAD = [name for name in BAD if name not in ("good", "normed")] + ["missing", "nowhere"]


def own(folder: Path, name: str, **recipe: Any) -> Run:
    path = folder / "own.py"
    path.write_text(OWN)
    changes = {"epochs": 1, "image_size": 32, **recipe}
    (run,) = Context(road=NANO, changes=changes).network(name, "mine", f"{path}:{name}")
    return run


def check(run: Run, count: int = 64) -> None:
    size = DatasetSize(1000, 100, 10, 32)
    check_networks([run], lambda _: size, lambda _: count)


def said(run: Run, count: int = 64) -> str:
    with pytest.raises(UserError) as caught:
        check(run, count)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_builder_is_named(name: str, tmp_path: Path) -> None:
    line = said(own(tmp_path, name))
    assert "own.py" in line and name in line


def test_a_good_builder_is_taken(tmp_path: Path) -> None:
    check(own(tmp_path, "good"))
    check(own(tmp_path, "normed"))


@pytest.mark.parametrize("name", ["nothing", "raises", "fewer", "several", "maps"])
def test_the_engine_names_it_too(name: str, tmp_path: Path) -> None:
    run = own(tmp_path, name)
    with pytest.raises(TaskError, match=f"own.py:{name}"):
        train(run, tmp_path / run.id)


def test_one_value_per_channel_is_no_batch(tmp_path: Path) -> None:
    batch_norm, layer_norm = Context(road=NANO, changes={"image_size": 32}).runs(
        ["patchify_stem", "layer_norm"]
    )
    assert "--batch-size" in said(batch_norm, 1)
    assert "--batch-size" in said(own(tmp_path, "normed"), 1)
    check(batch_norm, 2)
    one = DatasetSize(1, 1, 10, 32)
    with pytest.raises(UserError, match="--batch-size"):
        check_networks([batch_norm], lambda _: one, lambda recipe: recipe.global_batch_size)
    check(layer_norm, 1)
    check(Context(road=NANO, changes={"image_size": 64}).runs(["patchify_stem"])[0], 1)


def test_an_image_that_shrinks_to_nothing_is_refused(tmp_path: Path) -> None:
    small = Context(road=NANO, changes={"image_size": 4}).runs(["separate_downsampling"])
    assert "image size: 4 is too small" in said(small[0])
    assert "does not accept 32x32 images" in said(own(tmp_path, "large"))


def test_a_name_that_timm_lacks_is_told_with_the_nearest() -> None:
    (run,) = Context(road=NANO).network("mine", "mine", "timm", {"name": "resnet81"})
    assert "timm has no network 'resnet81'; did you mean resnet" in said(run)
    for args in ({}, {"name": 3}, {"name": "resnet18", "no_such": 1}, {"name": "resnet18.nothing"}):
        with pytest.raises(TaskError, match=r"^[^\n]*timm[^\n]*$"):
            get_builder("timm")(args, num_classes=10, drop_path=0.0, init="kaiming")


def test_what_other_tasks_make_of_a_network_is_theirs(tmp_path: Path) -> None:
    def of(name: str, task: str, **recipe: Any) -> Run:
        run = own(tmp_path, name)
        about = {"task": TaskRef(name=task), "recipe": {**run.recipe, "image_size": None, **recipe}}
        return run.model_copy(update=about)

    check(of("nothing", "support.toys:ToySegmentation"))
    check(of("maps", "segmentation"))
    with pytest.raises(TaskError, match="returns nothing"):
        check(of("nothing", "segmentation"))
    assert "not supported by the task" in said(of("maps", "segmentation", image_size=32))
    assert "--batch-size" in said(of("normed", "segmentation"), 1)
