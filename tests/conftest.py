"""One thread a test process: the networks are tiny and the suite runs side by side."""

import pytest
import torch
from support.command import command, trains_here  # noqa: F401  fixtures
from support.runs import make_tiny_run

from convnext_study.runs.records import Run


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny_run() -> Run:
    return make_tiny_run()
