"""The pages in a real Chromium: silent, stepped through, sorted, filtered, narrow and wide, dark.

Without Chromium and its driver these tests are skipped, and that of axe-core without the file that
GRADPROBE_AXE names (npm's axe-core/axe.min.js); where GRADPROBE_BROWSER=1 says that they have to be
there, as `.ci/run` does, they fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.blocks import RESIDUAL
from helpers.browser import axe_core, chromium
from helpers.handmade import HOSTILE, finding, profile, report, row, with_reach
from helpers.pages import PAGES, VERSIONS, pages

from gradprobe.numbers import number
from gradprobe.render.html import page
from gradprobe.verdict.report import Verdict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
HOSTILE_NAME = "".join(HOSTILE).replace("\udcff", "") + "<img src=x onerror=alert(1)>"
# The pairs of texts of which one lies on the other, each clipped by what scrolls around it.
OVERLAPS = """
const texts = [], walker = document.createTreeWalker(document.querySelector('main'), 4);
while (walker.nextNode()) {
  const node = walker.currentNode, range = document.createRange();
  if (!node.data.trim() || node.parentElement.closest('title, .sr')) continue;
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) {
    const r = {left: box.left, right: box.right, top: box.top, bottom: box.bottom, node};
    for (let up = node.parentElement; up; up = up.parentElement) {
      if (getComputedStyle(up).overflowX === 'visible' || up instanceof SVGElement) continue;
      const clip = up.getBoundingClientRect();
      r.left = Math.max(r.left, clip.left);
      r.right = Math.min(r.right, clip.right);
    }
    if (r.right - r.left > 1) texts.push(r);
  }
}
const across = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left);
const down = (a, b) => Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
return texts.flatMap((a, i) => texts.slice(i + 1)
  .filter((b) => a.node !== b.node && across(a, b) > 2 && down(a, b) > 5)
  .map((b) => [a.node.data, b.node.data]));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from chromium(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    """Open a page from a file; nothing may be fetched, and nothing said on the console."""

    def call(text: str, width: int = 1200, scheme: str = "light") -> Any:
        (tmp_path / "page.html").write_text(text, encoding="utf-8", errors="backslashreplace")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get((tmp_path / "page.html").as_uri())
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert browser.get_log("browser") == []
        return browser

    return call


def shown(browser: Any, script: str) -> Any:
    return browser.execute_script(f"return {script}")


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    actions = ActionChains(browser)
    for key in keys:
        actions.send_keys(getattr(Keys, key))
    actions.perform()


def click(browser: Any, selector: str) -> None:
    from selenium.webdriver.common.by import By

    browser.find_element(By.CSS_SELECTOR, selector).click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("kind", list(PAGES))
def test_a_page_is_silent_and_fits(opened: Any, kind: str, width: int, scheme: str) -> None:
    browser = opened(PAGES[kind][0], width, scheme)

    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown(browser, "document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OVERLAPS) == []
    paper = shown(browser, "getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_core()


@pytest.mark.parametrize("kind", [kind for kind in PAGES if kind != "alone"])
def test_axe_finds_no_violation(opened: Any, axe: str, kind: str) -> None:
    """In the dark only the contrasts are other ones."""
    browser = opened(PAGES[kind][0])
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.execute_script(axe)
    run = "axe.run({resultTypes: ['violations'], ...arguments[0]}).then(r => arguments[1](r))"
    every = browser.execute_async_script(run, {})["violations"]
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    every += browser.execute_async_script(run, {"runOnly": ["color-contrast"]})["violations"]
    assert [f"{each['id']}: {node['html']}" for each in every for node in each["nodes"]] == []


def test_the_block_is_stepped_through_by_keys_and_by_mouse(opened: Any) -> None:
    browser = opened(page.block_page(RESIDUAL, "net", VERSIONS))
    data = json.loads(shown(browser, "document.getElementById('data').textContent"))
    now = "[...document.querySelectorAll('.board .now')].map(e => e.textContent).join(' ')"
    words = "document.querySelector('li.now').textContent"
    order = ["input_rms", *["layers"] * 4, "branch_rms", "skip_rms", "output_rms"]
    order += ["arriving", "branch_part", "skip_part", "total"]
    layers = iter(data["layers"])
    for index, key in enumerate(order):
        value = next(layers)["rms"] if key == "layers" else data[key]
        assert number(value) in shown(browser, now), key
        assert number(value) in shown(browser, words), key
        if index % 2:
            press(browser, "ARROW_RIGHT")
        else:
            click(browser, "[data-go='1']")
    assert shown(browser, "document.querySelectorAll('.later').length") == 0
    press(browser, "ARROW_LEFT", "ARROW_LEFT")
    assert number(data["skip_part"]) in shown(browser, words)
    click(browser, "[data-go='-1']")
    assert number(data["branch_part"]) in shown(browser, words)
    press(browser, "HOME")
    assert shown(browser, "document.querySelector('[data-go]').disabled")


def test_rows_are_sorted_filtered_and_opened(opened: Any) -> None:
    made = report(with_reach(1e-12, 60), [finding(row="3")], Verdict.VANISHING)
    browser = opened(page.report_page(made))
    names = "[...document.querySelectorAll('#rows tbody tr')].filter(r => r.offsetParent)"
    first = f"{names}[0].cells[0].textContent"
    folded = shown(browser, f"{names}.length")
    assert folded < 62
    click(browser, "[data-unfold]")
    assert shown(browser, f"{names}.length") == 62
    click(browser, "#rows thead th:nth-child(3) button")
    assert shown(browser, first) == "0"
    click(browser, "#rows thead th:nth-child(3) button")
    assert shown(browser, first) in ("60", "head")
    click(browser, "#rows thead th:nth-child(3) button")
    assert shown(browser, first) == "0"
    from selenium.webdriver.common.by import By

    browser.find_element(By.CSS_SELECTOR, "[data-filter]").send_keys("vanishing")
    assert shown(browser, f"{names}.map(r => r.cells[0].textContent)") == ["3"]
    click(browser, "#r3 th")
    assert "the gradient shrinks" in shown(browser, "document.querySelector('.detail').textContent")
    data = json.loads(shown(browser, "document.getElementById('data').textContent"))
    assert number(data["rows"][3]["gradient_norm"]) in shown(
        browser, "document.querySelector('.detail').textContent"
    )
    browser.execute_script("document.getElementById('r3').focus()")
    press(browser, "ENTER")
    assert shown(browser, "document.querySelector('.detail')") is None


def test_keys_move_along_the_rows(opened: Any) -> None:
    browser = opened(PAGES["report"][0])
    browser.execute_script("document.getElementById('r0').focus()")
    press(browser, "ARROW_DOWN", "ARROW_DOWN", "ARROW_UP")
    second = "[...document.querySelectorAll('#rows tbody tr')].filter(r => r.offsetParent)[1]"
    assert shown(browser, f"document.activeElement === {second}")


def test_a_target_of_the_check_opens_its_report(opened: Any) -> None:
    browser = opened(PAGES["check"][0])
    assert not shown(browser, "document.getElementById('t1').open")
    click(browser, "#targets tbody tr:nth-child(2) td")
    assert shown(browser, "document.getElementById('t1').open")


def test_hostile_names_stay_text(opened: Any) -> None:
    for kind, (text, _) in pages(HOSTILE_NAME).items():
        browser = opened(text)
        assert shown(browser, "document.querySelectorAll('img, b[onclick]').length") == 0, kind
        assert shown(browser, "document.scripts.length") == 2, kind
    browser = opened(pages(HOSTILE_NAME)["hostile"][0])
    click(browser, "#r0 td")
    assert "onerror" in shown(browser, "document.querySelector('.detail').textContent")
    assert shown(browser, "document.querySelectorAll('img').length") == 0


def test_a_thousand_rows_open_within_a_second(opened: Any) -> None:
    rows = [
        row(f"layers.{i}", 0.99 ** (1000 - i), jacobian=RESIDUAL.jacobian, activation_rms=0.1 * i)
        for i in range(1000)
    ]
    text = page.report_page(replace(report(profile(*rows)), verdict=Verdict.VANISHING))
    # The page's own clock, from the start to its load event: that is after its script.
    taken = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    assert min(shown(opened(text), taken) for _ in range(5)) <= 1000  # milliseconds
