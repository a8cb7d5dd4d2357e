"""One thread a test process: the networks are tiny and the suite runs side by side."""

import pytest
import torch
from hypothesis import settings
from support.command import command, trains_here  # noqa: F401  fixtures

from convnext_study.experiments import measure

# However busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run times a network for half a second; here, for two steps."""
    monkeypatch.setattr(measure, "SECONDS", 0.0)


@pytest.fixture
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report's page without figures, which take seconds to draw."""
    from convnext_study.report import page

    for name in ("road_figures", "all_curves", "cost_charts"):
        monkeypatch.setattr(page, name, lambda *_: [])


@pytest.fixture
def no_figures(plain_page: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without figures, on the page and as files."""
    monkeypatch.setattr("convnext_study.report.write.write_figures", lambda *_: [])
