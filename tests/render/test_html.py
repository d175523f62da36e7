"""A page needs nothing but itself, holds the JSON, and shows every name as text.

How it looks and moves in a browser is in test_browser.py.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.blocks import BLOCKS, LONG, RESIDUAL
from helpers.commands import Result
from helpers.handmade import HOSTILE, finding, profile, report, row, with_reach
from helpers.pages import LOST, PAGES, VERSIONS, pages

from gradprobe.errors import printable
from gradprobe.numbers import number
from gradprobe.render.html import page
from gradprobe.render.html.scale import Scale, curve, scale_of
from gradprobe.render.html.steps import steps_of
from gradprobe.render.html.views import MEANINGS
from gradprobe.render.table import (
    ATTENTION_COLUMNS,
    COLUMNS,
    JACOBIAN_COLUMNS,
    PRECISION_COLUMNS,
)
from gradprobe.tasks.diff import differences


class Elements(HTMLParser):
    """Every element with its attributes, and the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.inside, []).append(data)


def data_of(text: str) -> object:
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


@pytest.mark.parametrize("kind", list(PAGES))
def test_the_data_is_what_the_json_format_prints(kind: str) -> None:
    text, printed = PAGES[kind]
    assert data_of(text) == json.loads(printed)


@pytest.mark.parametrize("kind", list(PAGES))
def test_only_its_own_script_and_style_may_run(kind: str) -> None:
    text, _ = PAGES[kind]
    elements = Elements(text)
    [policy] = [a["content"] for t, a in elements.tags if "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http:" not in policy
    for tag, opening in (("style", "<style>"), ("script", "<script>")):
        [inside] = re.findall(f"{opening}(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert [t for t, _ in elements.tags].count("script") == 2


@pytest.mark.parametrize("kind", list(PAGES))
def test_nothing_is_fetched_and_nothing_is_inline(kind: str) -> None:
    for tag, attributes in Elements(PAGES[kind][0]).tags:
        assert tag not in ("img", "link", "iframe", "object", "form", "base")
        for name, value in attributes.items():
            assert name not in ("src", "style", "xlink:href", "action")
            assert not name.startswith("on")
            assert name != "href" or str(value).startswith("#")


def test_the_script_is_small() -> None:
    [script] = re.findall(r"<script>(.*?)</script>", PAGES["report"][0], re.DOTALL)
    assert len(script.encode()) < 15_000


@pytest.mark.parametrize("name", [*HOSTILE, "</script><script>alert(1)</script>", "<!--<script>"])
def test_a_hostile_name_is_text(name: str) -> None:
    expected = {kind: [t for t, _ in Elements(text).tags] for kind, (text, _) in PAGES.items()}
    for kind, (text, printed) in pages(name).items():
        elements = Elements(text)
        if kind != "hostile":  # the same elements as with a harmless name
            assert [t for t, _ in elements.tags] == expected[kind], kind
        assert data_of(text) == json.loads(printed)
        if kind not in ("check", "broken"):
            assert printable(name) in "".join(elements.texts["title"])
        text.encode("utf-8")


def test_ids_are_unique_and_links_lead_somewhere() -> None:
    for text, _ in PAGES.values():
        tags = Elements(text).tags
        ids = [a["id"] for _, a in tags if "id" in a]
        assert len(ids) == len(set(ids))
        assert {a["href"] for t, a in tags if t == "a"} <= {f"#{each}" for each in ids}


def test_a_thousand_rows_with_blocks_are_small() -> None:
    jacobian = RESIDUAL.jacobian
    values = [0.9 ** (1000 - i) for i in range(1000)]
    rows = [
        row(f"layers.{i}.block", value, jacobian=jacobian, activation_rms=0.123456789012345 * i)
        for i, value in enumerate(values)
    ]
    text = page.report_page(report(profile(*rows), [finding(row="layers.3.block")]))
    assert len(text.encode()) <= 1_500_000
    assert text.count('class="f"') > 900  # folded


@pytest.mark.parametrize("block", [*BLOCKS.values(), LONG, replace(RESIDUAL, layers=())])
def test_the_steps_of_a_block_show_its_numbers(block: object) -> None:
    text = page.block_page(block, "net", VERSIONS)  # type: ignore[arg-type]
    for step in steps_of(block):  # type: ignore[arg-type]
        if step.value:
            assert step.value in text
    shown = {a.get("data-step") for _, a in Elements(text).tags} - {None}
    assert shown == {str(index) for index in range(len(steps_of(block)))}  # type: ignore[arg-type]


def test_the_steps_go_forward_and_then_back() -> None:
    parts = [step.part for step in steps_of(RESIDUAL)]
    layers = [f"layer{i}" for i in range(4)]
    forward = ["x", *layers, "branch", "skip", "y"]
    assert parts == [*forward, "arriving", "through", "back", "total", "whole"]
    by_part = {step.part: step.value for step in steps_of(RESIDUAL)}
    assert by_part["back"] == number(RESIDUAL.skip_part)
    assert by_part["through"] == number(RESIDUAL.branch_part)


def test_one_scale_for_all_and_wider_where_a_reach_lies_beyond() -> None:
    assert scale_of([1.0, 0.5, None, math.nan]) == Scale(-8, 4)
    assert scale_of([1e-12, 1e6]) == Scale(-12, 6)
    assert scale_of([0.0]) == Scale(-8, 4)
    scale = Scale(-8, 4)
    assert (scale.at(1e-8), scale.at(1e4), scale.at(0.0)) == (0.0, 1.0, 0.0)
    assert scale.at(1.0) == pytest.approx(8 / 12)
    shades = [scale.shade(reach) for reach in (0.0, 1e-9, 1e-4, 1.0, 1e2, 1e9)]
    assert shades == ["h0", "h0", "h12", "h24", "g4", "g8"]
    assert (scale.shade(None), scale.shade(math.inf)) == ("none", "odd")
    for wide in (Scale(-8, 4), Scale(-15, 4), Scale(-46, 39)):
        assert "1" in [tick.text for tick in wide.ticks]
        assert len(wide.ticks) <= 8


def test_a_curve_has_a_gap_where_nothing_was_measured() -> None:
    places = [(0, 1.0), (0.5, None), (0.75, 0.0), (1, 0.5)]
    assert curve(places) == "M0.00 0.00M75.00 100.00L100.00 50.00"


def test_probe_writes_a_page_and_a_picture_beside_its_text(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    html, svg = tmp_path / "page.html", tmp_path / "text.svg"
    plain = run("probe", "residual", "--depth", "3")
    shown = run("probe", "residual", "--depth", "3", "--html", html, "--svg", svg)
    assert (shown.code, shown.out) == (plain.code, plain.out)
    printed = run("probe", "residual", "--depth", "3", "--format", "json")
    assert data_of(html.read_text("utf-8")) == json.loads(printed.out)
    picture = svg.read_text("utf-8")
    assert picture.startswith("<svg")
    assert "@font-face" not in picture
    assert "healthy" in picture


def test_a_report_is_a_page_and_in_a_notebook_a_frame() -> None:
    assert LOST.to_html() == page.report_page(LOST)
    [(tag, attributes)] = Elements(LOST._repr_html_()).tags
    assert tag == "iframe"
    assert attributes["srcdoc"] == LOST.to_html()
    assert attributes["sandbox"] == "allow-scripts"


def test_one_file_is_not_written_twice(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    result = run("probe", "residual", "--html", file, "-o", file)
    assert result.code == 2
    assert "one file" in result.err
    assert not file.exists()


# ---- what a reader who knows none of the words sees


@pytest.mark.parametrize(
    ("reach", "share"), [(1e-9, "1.0e-9 of"), (1.0, "as large as"), (7.97, "7.97 times")]
)
def test_the_reach_is_read_as_a_share_or_as_a_multiple(reach: float, share: str) -> None:
    text = page.report_page(report(with_reach(reach)))
    told = f"The gradient that reaches the first layer is {share} what leaves the last one"
    assert told in text


def test_a_row_that_a_finding_names_is_shown_and_gaps_are_marked() -> None:
    """Also among many whose numbers are not finite, none of which has a bar or a dot."""
    made = profile(*(row(str(i), math.nan if i < 60 else 1.0) for i in range(100)))
    text = page.report_page(report(made, [finding(row="55"), finding(row="80")]))
    elements = Elements(text)
    rows = {str(a["id"]): a.get("class") for tag, a in elements.tags if tag == "tr" and "id" in a}
    assert (rows["r55"], rows["r80"]) == ("gap", "gap")
    shown = [place for place, (_, kind) in enumerate(rows.items()) if kind != "f"]
    gaps = [b for a, b in itertools.pairwise(shown) if b > a + 1]
    assert [place for place in shown if rows[f"r{place}"] == "gap"] == gaps
    assert elements.texts["span"].count("not finite") == 60
    assert text.count('class="dot ') == 1


def test_the_words_of_the_columns_are_explained_and_no_others() -> None:
    text = page.report_page(report(with_reach(0.5)))
    assert "<dt>inputs</dt>" in text
    assert "<dt>highway</dt>" not in text
    assert "finding</th>" not in text  # there is none
    families = (COLUMNS, JACOBIAN_COLUMNS, ATTENTION_COLUMNS, PRECISION_COLUMNS)
    headers = {column.header for family in families for column in family}
    assert headers | {"reach", "factor", "theory"} == MEANINGS.keys()


def test_a_comparison_tells_each_one_s_factor_and_half_life() -> None:
    """2⁻⁸ in 8 steps is a half in each, 2⁸ twice; 1 is neither."""
    text = page.comparison_page([report(with_reach(2.0**p, 8)) for p in (-8, 8, 0)])
    notes = re.findall(r'<p class="faint">(×.*)</p>', text)
    assert notes == [
        "×0.500 per row · half in 1 rows",
        "×2.00 per row · twice in 1 rows",
        "×1 per row",
    ]


def test_long_tables_of_compare_and_diff_are_folded_too() -> None:
    """The row that a finding names, and of a difference that where the two part, stay."""
    old, new = report(with_reach(1e-12, 200)), report(with_reach(1e-9, 200), [finding(row="77")])
    compared = page.comparison_page([old, new])
    differing = page.diff_page(differences([old], [new], 3))
    for text, kept in ((compared, "77"), (differing, "199")):
        assert text.count('<tr class="f">') > 150
        assert re.search(f'<tr( class="gap")?><th scope="row">{kept}</th>', text)
    same = page.diff_page(differences([old], [old], 3))
    assert same.count("as it was") == 202
