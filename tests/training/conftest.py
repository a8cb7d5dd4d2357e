"""A run that is trained once, for all tests that compare with it or go on from it."""

from pathlib import Path

import pytest
from support.runs import make_tiny_run

from convnext_study.training.loop import train


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make_tiny_run`, trained to its end without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    train(make_tiny_run(), folder)
    return folder
