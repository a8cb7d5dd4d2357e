"""What tests of pages and tables leave out: figures take seconds to draw."""

import pytest

from convnext_study.report import page, write


@pytest.fixture
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without figures."""
    for name in ("road_figures", "all_curves", "cost_charts"):
        monkeypatch.setattr(page, name, lambda *_: [])


@pytest.fixture
def no_figures(plain_page: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without figures, on the page and as files."""
    monkeypatch.setattr(write, "write_figures", lambda *_: [])
