"""What the page of 1,000 rows with blocks weighs, and what it costs to write and to open.

    python benchmarks/pages.py

Prints its size, the time to write it ÷ that of the probe, and where Chromium and its driver are
installed how long the page takes to open there, its script included.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import gradprobe

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 3
SWITCHES = "--headless --no-sandbox --disable-gpu --disable-background-networking"


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """The least of several times in seconds, and the result."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - begun)
    return min(times), result


def opened(page: str) -> float | None:
    """Milliseconds from the start to the page's load event; ``None`` without a browser."""
    browser, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (browser and driver):
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for switch in SWITCHES.split():
        options.add_argument(switch)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        file.write_text(page, encoding="utf-8")
        chromium = webdriver.Chrome(options, webdriver.ChromeService(driver))
        try:
            times = []
            for _ in range(REPEATS):
                chromium.get(file.as_uri())
                taken = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
                times.append(chromium.execute_script(taken))
        finally:
            chromium.quit()
    return min(times)


def main() -> None:
    torch.set_num_threads(1)
    spec = gradprobe.load(str(ROOT / "model_specs" / "residual_1000.yaml"))
    bare, _ = timed(lambda: gradprobe.probe(spec))
    probed, report = timed(lambda: gradprobe.probe(spec, blocks=True))
    written, page = timed(report.to_html)
    print(f"{len(report.rows):,} rows, with blocks: {len(page.encode()) / 1e6:.2f} MB")
    print(f"written ÷ probed with blocks:  {written / probed:.2f}")
    print(f"written ÷ probed without:      {written / bare:.2f}")
    taken = opened(page)
    print("no browser" if taken is None else f"opened in {taken:,.0f} ms")


if __name__ == "__main__":
    main()
