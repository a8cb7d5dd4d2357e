"""One thread a test process: the networks are tiny and the suite runs side by side."""

from typing import Any

import pytest
import torch

from convnext_study.build import ROADMAP_BUILDER
from convnext_study.records import ModelRef, Run
from convnext_study.roadmap import get_roadmap
from convnext_study.training.recipe import MODERN_SMALL


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_tiny_run(step: str = "layer_norm", **changes: Any) -> Run:
    """A row of the nano road, narrower still, two epochs on digits: a few seconds."""
    spec = get_roadmap("nano").upto(step).with_(width=8, stem_stride=4, kernel=3)
    fields = {"epochs": 2, "warmup_epochs": 0, "global_batch": 128, "drop_path": 0.1, **changes}
    return Run(
        study="test",
        name="tiny",
        model=ModelRef(builder=ROADMAP_BUILDER, args=spec.to_dict()),
        recipe=MODERN_SMALL.changed(**fields).model_dump(mode="json"),
        data="digits",
        seed=0,
    )


@pytest.fixture
def tiny_run() -> Run:
    return make_tiny_run()
