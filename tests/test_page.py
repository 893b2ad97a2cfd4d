"""The HTML page in a headless Chromium: no errors, search, a click, folding, keys, both schemes.

Needs selenium (`pip install -e '.[browser]'`), Chromium and its driver (Debian's `chromium` and
`chromium-driver`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import metaop as mo
from metaop import nn
from metaop.inspection import stages_of
from metaop.pictures.document import document
from metaop.pictures.html import html
from metaop.pictures.render import PAGE

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no Chromium, or no chromedriver"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,800"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mo.manual_seed(0)
    stages = stages_of(nn.models.LeNetBN(), [mo.ones(8, 1, 28, 28).sync()], True, "net")
    profile = {
        step.name: {"seconds": 1e-4, "roofline": share}
        for step, share in zip(stages.steps, (0.5, 0.0, 0.5, 1.0, 1.25))
    }
    file = tmp_path_factory.mktemp("page") / "step.html"
    file.write_text(html(document(stages, PAGE, (), profile)), encoding="utf-8")
    return file


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Any]:
    screen(browser, 1280, 800)
    browser.get(path.as_uri())
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def screen(browser: Any, width: int, height: int, dark: bool = False) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 760}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def all_of(page: Any, selector: str) -> list[Any]:
    return page.find_elements("css selector", selector)


def one(page: Any, selector: str) -> Any:
    return page.find_element("css selector", selector)


def press(page: Any, *keys: str) -> None:
    webdriver.ActionChains(page).send_keys(*keys).perform()


def click(page: Any, selector: str) -> None:
    webdriver.ActionChains(page).move_to_element(one(page, selector)).click().perform()


ENTER, ESCAPE, DOWN, TAB = "\ue007", "\ue00c", "\ue015", "\ue004"


def test_the_page_asks_the_network_for_nothing(page):
    asked = page.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
    assert asked == []


def test_search_finds_a_node_and_enter_shows_its_kernel(page):
    press(page, "/", "sigmoid 24,24")
    results = all_of(page, "#results li")
    assert results and all("sigmoid" in r.text for r in results)
    name = results[0].get_attribute("data-kernel")
    press(page, ENTER)
    assert one(page, ".kernel.chosen").get_attribute("data-kernel") == name
    assert f"def {name}(" in one(page, "#source").text
    press(page, ESCAPE)
    assert all_of(page, ".kernel.chosen") == []


def test_a_click_shows_source_line_buffers_and_reasons(page):
    click(page, '.kernel[data-kernel="k2"]')
    details = one(page, "#details").text
    assert "def k2(" in one(page, "#source").text
    for part in (
        "test_page.py:",
        "Buffers",
        "Why not fused",
        "FLOP a byte",
        "100 µs",
        "roofline",
    ):
        assert part in details, part


@pytest.mark.parametrize("measure", ["bytes", "flops", "seconds", "roofline"])
def test_every_measure_shades_the_kernels(page, measure):
    """A kernel above the roofline was once black."""
    shades = page.execute_script(f"""shade = "{measure}"; draw()
        const found = [...document.querySelectorAll(".kernel .shade")]
        const alpha = /rgba[(].*, ([0-9.]+)[)]/
        return found.map(s => Number(getComputedStyle(s).fill.match(alpha)[1]))""")
    assert len(shades) == len(all_of(page, ".kernel"))
    assert max(shades) == pytest.approx(0.55, abs=0.01) and min(shades) >= 0


def test_folding_hides_a_module_and_unfolding_shows_it(page):
    kernels = len(all_of(page, ".kernel"))
    click(page, '[data-group="forward.net"] .head')
    folded = len(all_of(page, ".kernel"))
    assert 0 < folded < kernels
    group = one(page, '[data-group="forward.net"]')
    assert group.get_attribute("aria-expanded") == "false"
    page.execute_script("arguments[0].focus()", group)
    press(page, ENTER)
    assert len(all_of(page, ".kernel")) == kernels
    click(page, "#fold")
    assert len(all_of(page, ".kernel")) < kernels
    click(page, "#unfold")
    assert len(all_of(page, ".kernel")) == kernels


def test_arrows_go_from_kernel_to_kernel(page):
    page.execute_script("document.getElementById('graph').focus()")
    press(page, DOWN)
    first = one(page, ".kernel.chosen").get_attribute("data-kernel")
    press(page, DOWN)
    second = one(page, ".kernel.chosen").get_attribute("data-kernel")
    edges = page.execute_script("return edges")
    assert [first, second] in edges


def test_wheel_zooms_and_a_drag_moves(page):
    transform = "return document.getElementById('world').getAttribute('transform')"
    before = page.execute_script(transform)
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(one(page, "#graph"))
    webdriver.ActionChains(page).scroll_from_origin(origin, 0, -300).perform()
    zoomed = page.execute_script(transform)
    chain = webdriver.ActionChains(page).move_to_element_with_offset(one(page, "#graph"), -300, 0)
    chain.click_and_hold().move_by_offset(40, 30).release().perform()
    assert len({before, zoomed, page.execute_script(transform)}) == 3


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_follow_the_reader_and_the_switch(browser, path, dark):
    screen(browser, 1280, 800, dark)
    browser.get(path.as_uri())

    def brightness() -> float:
        colour = (
            "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
        )
        return sum(browser.execute_script(colour)) / 3

    before = brightness()
    assert (before < 80) if dark else (before > 200)
    click(browser, "#scheme")
    assert (brightness() > 200) if dark else (brightness() < 80)


def test_the_memory_picture_is_painted_and_leads_to_a_kernel(page):
    painted = """const c = document.querySelector("#memory canvas")
        const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data
        return d.filter((v, k) => k % 4 === 3 && v > 0).length"""
    assert page.execute_script(painted) > 100
    page.execute_script("document.querySelector('#memory canvas').focus()")
    press(page, DOWN)
    assert len(all_of(page, ".kernel.chosen")) == 1


def test_a_phone_shows_everything_without_scrolling_sideways(browser, path):
    screen(browser, 420, 860)
    browser.get(path.as_uri())
    press(browser, "/", "k2", ENTER)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 420
    assert one(browser, "#details").size["height"] > 150
    assert one(browser, "#graph").size["height"] > 150
