"""The report's page in a real browser: it loads quietly, sorts, opens, and can be read."""

from collections.abc import Iterator

import pytest
from support.browser import CHROMIUM, Browser
from support.fakes import fake_run, fake_runs, write_run, write_study

from convnext_study.report.page import render
from convnext_study.results.load import load_results
from convnext_study.roadmap import get_roadmap

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """17 rows x 3 seeds of 300 epochs, one label hostile, one run failed; its address."""
    folder = tmp_path_factory.mktemp("page")
    runs = [run for run in fake_runs("t", (0, 1, 2)) if run.name != "gelu"]
    write_study(folder, runs, val_images=50_000)
    for seed in (0, 1, 2):
        run = fake_run(get_roadmap("t").variant("gelu"), seed)
        metadata = {**run.metadata, "label": EVIL}
        write_run(
            folder,
            run.model_copy(update={"metadata": metadata}),
            status="done" if seed else "failed",
        )
    path = folder / "report.html"
    path.write_text(render(load_results(folder)).html)
    assert path.stat().st_size < 2_000_000
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def opened(browser: Browser, page: str) -> Browser:
    """The browser with the page, anew."""
    browser.open(page)
    return browser


def column(browser: Browser, number: int) -> list[str]:
    script = (
        "[...document.querySelector('#s1-results tbody').rows]"
        f".map((row) => row.cells[{number}].textContent)"
    )
    return list(browser.run(script))


def test_text_of_records_runs_nothing(opened: Browser) -> None:
    assert opened.run("document.scripts.length") == 2
    assert opened.run("document.images.length") == 0
    assert not [one for one in opened.events if "ialog" in one.get("method", "")]
    assert EVIL in opened.run("document.querySelector('#s1-results tbody').textContent")
    # What a hostile text would need, the page's policy refuses as well.
    opened.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=https://example.invalid/x>')"
    )
    opened.run(
        "document.body.append(Object.assign(document.createElement('script'),"
        "{textContent: 'window.taken = 1'}))"
    )
    assert opened.run("window.taken === undefined")
    assert any("Content Security Policy" in problem for problem in opened.problems)


def means(browser: Browser) -> list[float]:
    """The accuracies without their standard deviations, in the order shown."""
    return [float(text.split()[0]) for text in column(browser, 2)]


def test_tables_sort_by_click_and_by_key(opened: Browser) -> None:
    head = "#s1-results th:nth-child(3)"
    before = means(opened)
    opened.click(f"{head} button")
    assert opened.run(f"document.querySelector('{head}').ariaSort") == "ascending"
    assert means(opened) == sorted(before) != before
    opened.run(f"document.querySelector('{head} button').focus()")
    opened.press("Enter")
    assert opened.run(f"document.querySelector('{head}').ariaSort") == "descending"
    assert means(opened) == sorted(before, reverse=True)
    opened.press("Tab")  # on to the next column's head
    opened.press(" ")
    assert opened.run(f"document.querySelector('{head}').ariaSort") == "none"
    assert opened.run("document.querySelectorAll('#s1-results [aria-sort=ascending]').length") == 1
    opened.click("#s1-results th:nth-child(5) button")  # the gain, which the first row lacks
    assert column(opened, 4)[-1] == ""
    opened.click("#s1-results th:nth-child(5) button")
    assert column(opened, 4)[-1] == ""


def test_a_step_opens_by_click_and_by_key(opened: Browser) -> None:
    step = '[aria-controls="s1-r3"]'
    state = f"[...document.querySelectorAll('{step}')].map((one) => one.ariaExpanded).join()"
    assert opened.run(state) == "false,false"
    opened.click(step)
    opened.run("new Promise(requestAnimationFrame)")
    assert opened.run("document.getElementById('s1-r3').open")
    assert opened.run(state) == "true,true"
    panel = "document.getElementById('s1-r3')"
    assert "stage_ratio, row 3 of 17" in opened.run(f"{panel}.querySelector('pre').textContent")
    assert opened.run(f"{panel}.querySelectorAll('svg.chart').length") == 3
    assert opened.run(f"{panel}.querySelectorAll('.curve.after').length") == 9
    assert opened.run(f"document.activeElement === {panel}.querySelector('summary')")
    opened.press("Enter")  # on the summary: closes it again
    opened.run("new Promise(requestAnimationFrame)")
    assert opened.run(state) == "false,false"
    opened.run("document.querySelector('svg.wide [aria-controls=\"s1-r5\"]').focus()")
    opened.press("Enter")
    assert opened.run("document.getElementById('s1-r5').open")
    opened.click('#s1-results a[href="#s1-r7"]')
    opened.run("new Promise((done) => setTimeout(done, 50))")
    assert opened.run("document.getElementById('s1-r7').open")
    opened.run(
        "(() => { const pick = document.querySelector('[data-pick]'); pick.value = 's1-r3';"
        "pick.dispatchEvent(new Event('change')); })()"
    )
    assert opened.run("document.querySelectorAll('.picked').length") == 9  # 3 seeds, 3 charts


def test_pointing_tells_numbers(opened: Browser) -> None:
    tip = "document.getElementById('tip')"
    assert opened.run(f"{tip}.hidden")
    opened.hover('[aria-controls="s1-r3"] .hit')
    opened.run("new Promise(requestAnimationFrame)")
    said = opened.run(f"{tip}.textContent")
    assert said.startswith("stage ratio") and "top-1" in said and "Holm" in said
    opened.press("Escape")
    assert opened.run(f"{tip}.hidden")
    # Curves in a panel, and points of cost.
    opened.click('svg.wide [aria-controls="s1-r3"]')
    opened.run("new Promise(requestAnimationFrame)")
    line = "document.querySelector('#s1-r3 .curve.after use')"
    box = opened.run(
        f"(() => {{ const box = {line}.getBoundingClientRect();"
        "return [box.width, box.height]; })()"
    )
    assert min(box) > 3  # drawn, though the path stands in another figure
    colour = f"getComputedStyle({line}).stroke"
    assert opened.run(colour) == opened.run(
        "getComputedStyle(document.querySelector('#s1-r3 .curve.after')).stroke"
    )
    script = f"{line}.dispatchEvent(new PointerEvent('pointermove', {{bubbles: true}}))"
    opened.run(script)
    assert opened.run(f"{tip}.textContent").startswith("stage ratio, seed 0\nepoch 300: ")
    opened.press("Escape")
    opened.hover("#s1-cost a.mark")
    opened.run("new Promise(requestAnimationFrame)")
    assert opened.run(f"{tip}.textContent").startswith("1. ")
    opened.click('#s1-cost a[href="#s1-r6"]')
    opened.run("new Promise((done) => setTimeout(done, 50))")
    assert opened.run("document.getElementById('s1-r6').open")


def test_what_can_be_clicked_has_a_name_and_a_place_in_the_order(opened: Browser) -> None:
    nameless = (
        "[...document.querySelectorAll('a, button, summary, select, [role=button], [tabindex]')]"
        ".filter((one) => !(one.getAttribute('aria-label') || one.textContent.trim()"
        " || one.labels?.length)).length"
    )
    assert opened.run(nameless) == 0
    assert opened.run("[...document.querySelectorAll('.step')].every((one) => one.tabIndex === 0)")
    roles = {node["role"]["value"] for node in opened.send("Accessibility.getFullAXTree")["nodes"]}
    assert {"button", "table", "columnheader", "heading", "main", "navigation"} <= roles


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_screen(browser: Browser, page: str, width: int) -> None:
    browser.open(page, width=width)
    assert browser.run("document.documentElement.scrollWidth") == width
    shown = "[...document.querySelectorAll('svg.road')].filter((one) => one.clientWidth).length"
    assert browser.run(shown) == 1


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_told_apart_by_their_lightness(
    browser: Browser, page: str, dark: bool
) -> None:
    """Lightness is what every kind of colour blindness leaves: hence WCAG's contrast."""
    browser.open(page, dark=dark)
    assert browser.problems == [] and browser.requests == [page], "it loads alone, and quietly"
    names = ("paper", "ground", "ink", "faint", "link", "bar", "deep", "mark", "hover", "c0", "c7")
    colours = {
        name: browser.run(
            f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()"
        )
        for name in names
    }
    assert (luminance(colours["paper"]) < 0.2) is dark
    for text in ("ink", "faint", "link"):
        for ground in ("paper", "ground", "hover"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for one, other, least in (
        ("bar", "paper", 1.9),
        ("deep", "bar", 3),
        ("mark", "bar", 1.9),
        ("mark", "paper", 4),
        ("c0", "c7", 4),
        ("c0", "paper", 1.6),
    ):
        assert contrast(colours[one], colours[other]) >= least, (one, other)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
