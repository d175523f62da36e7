"""A real Chromium, without a window, which says what it has to say on its console."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


def chromium(folder: Path) -> Iterator[Any]:
    """Its driver, with its profile in ``folder``; skips or fails where it is missing."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(found):
        assert not os.environ.get("GRADPROBE_BROWSER"), "chromium and chromium-driver are missing"
        pytest.skip("chromium and chromium-driver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(found[0])
    for switch in (*SWITCHES.split(), f"--user-data-dir={folder}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(found[1])))
    yield driver
    driver.quit()


def axe_core() -> str:
    """The script of axe-core, from the file that GRADPROBE_AXE names; skips or fails without."""
    path = os.environ.get("GRADPROBE_AXE")
    if not path:
        assert not os.environ.get("GRADPROBE_BROWSER"), "GRADPROBE_AXE does not name axe.min.js"
        pytest.skip("GRADPROBE_AXE does not name axe-core's axe.min.js")
    return Path(path).read_text("utf-8")
