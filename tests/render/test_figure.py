"""The reach over rows as a figure, and a report as a table of pandas."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from helpers.blocks import RESIDUAL
from helpers.commands import Run
from helpers.handmade import HOSTILE, profile, report, row, with_reach

from gradprobe.errors import InputError
from gradprobe.render.figure import SUFFIXES, render_figure
from gradprobe.verdict.report import Report

BEGINNINGS = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}
GAPS = report(
    profile(row("0", 0.0), row("1", None), row("2", math.nan), row("3", 1e-3), row("4", 1.0))
)


@pytest.mark.slow  # of all three, matplotlib's pdf is imported too
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_reports_give_the_same_file(suffix: str) -> None:
    pytest.importorskip("matplotlib")
    reports = [report(with_reach(1e-12)), report(with_reach(2.0, 3), target="_b")]
    written = render_figure(reports, suffix)
    assert written.startswith(BEGINNINGS[suffix])
    assert written == render_figure(reports, suffix)


def test_a_line_a_report_with_a_gap_where_there_is_no_number() -> None:
    figure = pytest.importorskip("matplotlib.figure")
    ax = figure.Figure().subplots()
    assert GAPS.plot(ax) is ax
    line, one = ax.get_lines()
    heights = list(line.get_ydata())
    assert heights[0] == 0.0
    assert [math.isnan(height) for height in heights] == [False, True, True, False, False]
    assert heights[3:] == pytest.approx([GAPS.profile.reach_of(GAPS.rows[i]) for i in (3, 4)])
    assert list(one.get_ydata()) == [1, 1]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "2", "3", "4"]


@pytest.mark.slow
def test_any_name_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    names = [*HOSTILE, "$\\frac{1}$", "_hidden", "\N{SNOWMAN}"]
    made = [
        report(profile(row(name, 0.5), row(f"{name}2", 1.0)), target=name, name=name)
        for name in names
    ]
    for each in made:
        each.plot(pytest.importorskip("matplotlib.figure").Figure().subplots())
    assert render_figure([*made, *made], ".svg").count(b"hidden") == 4


@pytest.mark.slow
def test_nothing_that_a_logarithm_can_show() -> None:
    pytest.importorskip("matplotlib")
    assert render_figure([report(profile(row("0", None), row("1", None)))], ".svg")


def test_the_figure_is_written_beside_the_text(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "reach.SVG"
    words = ("--depth", "2", "--width", "4", "--figure", file)
    assert "row" in run("compare", "plain", "residual", *words).out
    assert ">residual</text>" in file.read_text("utf-8")


@pytest.mark.parametrize("file", ["reach.jpg", "reach", ""])
def test_what_kind_of_file_is_known_by_its_name(run: Run, file: str) -> None:
    pytest.importorskip("matplotlib")
    result = run("probe", "plain", "--figure", file)
    assert result.code == 2
    assert ".svg, .png or .pdf" in result.err


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]


def test_a_missing_package_is_told_with_its_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "matplotlib")
    without(monkeypatch, "pandas")
    result = run("probe", "plain", "--figure", "reach.svg")
    assert result.code == 2
    assert "--figure needs matplotlib" in result.err
    assert "pip install 'gradprobe[figure]'" in result.err
    with pytest.raises(InputError, match=r"gradprobe\[figure\]"):
        GAPS.plot()
    with pytest.raises(InputError, match=r"gradprobe\[pandas\]"):
        GAPS.to_pandas()


@pytest.mark.slow  # pandas takes a second to be imported
def test_a_table_has_a_line_a_row() -> None:
    pytest.importorskip("pandas")
    rows = [row("0", 0.25, jacobian=RESIDUAL.jacobian), row("1", 1.0), row("head", 1.0)]
    made: Report = report(profile(*rows))
    frame = made.to_pandas()
    assert list(frame.index) == ["0", "1", "head"]
    assert list(frame["reach"]) == [made.profile.reach_of(each) for each in made.rows]
    assert RESIDUAL.jacobian is not None
    assert frame.loc["0", "gain"] == RESIDUAL.jacobian.gain.value
    assert math.isnan(frame.loc["1", "gain"])
    assert "highway" not in GAPS.to_pandas()
    assert GAPS.to_pandas()["gradient_norm"].isna().sum() == 2
