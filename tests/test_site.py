"""The documentation as a site: `mkdocs build --strict`, opened from the disk without a network."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import chromium
from helpers.places import ROOT


def test_links_out_of_the_docs_lead_to_the_repository() -> None:
    pytest.importorskip("mkdocs")
    outward = runpy.run_path(str(ROOT / "docs" / "hooks.py"))["outward"]
    home = "https://example.org/x"
    text = "[a](../README.md) [b](spec.md) [c](#d) [e](rules/) ![f](g.svg)\n```yaml title=h.yaml\n"
    out = outward(text, "ci.md", home)
    assert f"[a]({home}/blob/main/README.md) [b](spec.md) [c](#d)" in out
    assert f"[e]({home}/tree/main/docs/rules) ![f](g.svg)" in out
    assert '```yaml title="h.yaml"' in out
    assert outward("[a](../ci.md)", "rules/GP101.md", home) == "[a](../ci.md)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `.ci/run` has built it, or built now."""
    pytest.importorskip("mkdocs")
    if "GRADPROBE_SITE" in os.environ:
        return Path(os.environ["GRADPROBE_SITE"])
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from chromium(tmp_path_factory.mktemp("profile"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_site_opens_from_the_disk_is_searched_and_has_the_stepper(
    site: Path, browser: Any
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    fetched = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    for name in ("index.html", "rules/GP101.html", "take-apart.html"):
        browser.get((site / name).as_uri())
        assert [url for url in browser.execute_script(fetched) if not url.startswith("file:")] == []
        assert browser.get_log("browser") == []

    browser.set_window_size(1400, 900)
    browser.find_element(By.CSS_SELECTOR, ".md-search__input").send_keys("shattered")
    results = ".md-search-result__item"
    WebDriverWait(browser, 10).until(lambda b: b.find_elements(By.CSS_SELECTOR, results))

    browser.get((site / "take-apart.html").as_uri())
    frame = browser.find_element(By.CSS_SELECTOR, "iframe.live")
    browser.execute_script("arguments[0].scrollIntoView()", frame)
    browser.switch_to.frame(frame)
    first = browser.find_element(By.CSS_SELECTOR, "li.now").text
    browser.find_element(By.CSS_SELECTOR, "[data-go='1']").click()
    assert browser.find_element(By.CSS_SELECTOR, "li.now").text != first
