"""Each kind of page, made of values by hand."""

from __future__ import annotations

import math
from dataclasses import replace

from gradprobe.render import json as as_json
from gradprobe.render.diff import render_json as render_diff_json
from gradprobe.render.html import page
from gradprobe.render.paths import render_paths_json
from gradprobe.render.sweep import render_sweep_json
from gradprobe.tasks.curves import Point, Sweep
from gradprobe.tasks.diff import differences
from gradprobe.verdict.report import Report, Verdict
from helpers.blocks import PATHS, RESIDUAL
from helpers.handmade import chain, check_result, finding, profile, report, row, with_reach

VERSIONS = {"gradprobe": "1.0"}
LOST = report(with_reach(1e-12, 50), [finding(row="3")], Verdict.VANISHING, "lost.yaml")
BROKEN = report(
    profile(row("0", 1e30), row("1", None), row("2", math.nan), row("3", math.inf), row("4")),
    verdict=Verdict.NON_FINITE,
    target="broken.yaml",
)


LOST_AGAIN = replace(LOST, target=BROKEN.target)


def hostile(name: str) -> Report:
    made = chain(0.5, 1.0)
    rows = tuple(each._replace(name=f"{name}{i}", kind=name) for i, each in enumerate(made.rows))
    said = finding(message=name, advice=name, row=f"{name}0", name=name)
    return report(replace(made, rows=rows), [said], Verdict.VANISHING, name, name)


def swept(target: str, *, theory: bool = True) -> Sweep:
    values = ("10", "1", "100")
    points = tuple(
        Point(target, (v,), int(v), 0.5 ** int(v), Verdict.WEAK, 0.4 ** int(v)) for v in values
    )
    return Sweep((target,), (("depth", values),), points, theory)


def mapped(target: str) -> Sweep:
    axes = (("depth", ("10", "20")), ("gain", ("0.9", "1.1")))
    points = tuple(
        Point(target, (d, g), int(d), float(g) ** int(d), Verdict.HEALTHY)
        for d in axes[0][1]
        for g in axes[1][1]
    )
    return Sweep((target,), axes, points, True, {(target, "10"): 1.0, (target, "20"): 0.5})


def pages(name: str = "net.yaml") -> dict[str, tuple[str, str]]:
    """Each kind of page, with what ``--format json`` prints of the same."""
    reports = [replace(LOST, target=name), BROKEN, report(with_reach(2.0), target="b")]
    block, paths = RESIDUAL, PATHS["some"]
    changed = differences(reports[:1], [replace(reports[2], target=name)], 3)
    worse = differences([hostile(name), BROKEN], [hostile(name), LOST_AGAIN], 3)
    made = {
        "report": (page.report_page(reports[0]), as_json.render_report(reports[0])),
        "broken": (page.report_page(BROKEN), as_json.render_report(BROKEN)),
        "hostile": (page.report_page(hostile(name)), as_json.render_report(hostile(name))),
        "compare": (page.comparison_page(reports), as_json.render_comparison(reports)),
        "alone": (page.comparison_page(reports[:1]), as_json.render_report(reports[0])),
        "block": (
            page.block_page(replace(block, name=name, kind=name), name, VERSIONS),
            as_json.render_block(replace(block, name=name, kind=name), name, VERSIONS),
        ),
        "paths": (
            page.paths_page(replace(paths, row=name), name, VERSIONS),
            render_paths_json(replace(paths, row=name), name, VERSIONS),
        ),
        "diff": (page.diff_page(changed), render_diff_json(changed)),
        "diffs": (page.diff_page(worse), render_diff_json(worse)),
        "check": (page.check_page(check_result()), as_json.render_check(check_result())),
    }
    for kind, sweep in (("sweep", swept(name)), ("map", mapped(name))):
        made[kind] = (page.sweep_page(sweep, VERSIONS), render_sweep_json(sweep, VERSIONS))
    return made


PAGES = pages()
