"""What ``probe``, ``compare`` and ``rules`` show, from reports made by hand.

``GRADPROBE_OVERWRITE=1 pytest tests/render/test_render.py`` writes the golden files anew.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from helpers.handmade import chain, finding, parameter, profile, report, row, with_reach
from helpers.places import TESTS
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.color import Color
from rich.color_triplet import ColorTriplet

from gradprobe.measure.measurement import Step
from gradprobe.measure.profile import RowStatus
from gradprobe.numbers import count as counted
from gradprobe.numbers import fraction, number, plural
from gradprobe.numbers import name as elided
from gradprobe.render.canvas import (
    BAD,
    DOUBTFUL,
    FAINT,
    GOOD,
    NOTE,
    Style,
    floor_of,
    fold,
    heat_bar,
    paint,
    scale,
)
from gradprobe.render.compare import render_comparison
from gradprobe.render.json import render_comparison as json_comparison
from gradprobe.render.json import render_report as json_report
from gradprobe.render.rules import render_rule, render_rules
from gradprobe.render.steps import render_steps
from gradprobe.render.sweep import render_sweep
from gradprobe.render.text import render_report
from gradprobe.tasks.curves import Point, Sweep
from gradprobe.theory.moments import RowPrediction, Theory
from gradprobe.verdict.calibration import IDEAL, probability
from gradprobe.verdict.report import Report, Severity, Training, Verdict
from gradprobe.verdict.rules.table import RULES

GOLDEN = TESTS / "golden" / "report"
OVERWRITE = bool(os.environ.get("GRADPROBE_OVERWRITE"))
SGR = re.compile(r"\x1b\[[0-9;]*m")

# ---- reports made by hand


def _stack(depth: int, factor: float, verdict: Verdict, target: str, **fields: object) -> Report:
    """A stem, blocks whose gradient changes by ``factor``, and a head."""

    def gradient(index: int) -> float:
        return 0.57 * factor ** (depth - index)

    kind = "residual" if factor > 0.9 else "Linear+Sigmoid"
    rows = [row("0", gradient(0), line=3, activation_rms=0.577, input_dependence=0.966)]
    rows += [
        row(
            f"1.{i}",
            gradient(i + 1),
            kind=kind,
            line=6,
            activation_rms=0.5,
            input_dependence=0.9**i,
            zero_fraction=0.5 if i % 2 else 0.004,
        )
        for i in range(depth)
    ]
    rows.append(row("2", 1.0, line=9))
    findings = fields.pop("findings", ())
    return report(profile(*rows), findings, verdict, target=target, **fields)


VANISHING = finding(
    message="the gradient shrinks to 4.7e-43 of itself over 50 rows, ×0.141 per row",
    advice="Sigmoid's slope is at most 0.25: use Tanh, ReLU or GELU, and skip connections",
    row="0",
    line=3,
    value=4.7e-43,
    threshold=1e-4,
)
USELESS = finding(
    Severity.INFO,
    rule="GP401",
    name="useless-bias",
    message="a bias before a normalisation does nothing: 1.0.0.bias, 1.1.0.bias and 48 more",
    advice="set bias: false on the layer before the normalisation",
    row="1.0",
    line=6,
)
IGNORED = finding(
    Severity.WARNING,
    rule="GP103",
    name="weak",
    message="the gradient shrinks to 0.003 of itself over 8 rows, ×0.48 per row",
    ignored="a figure of the lecture; the next one mends it",
    row="1.7",
)

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "layers[attn].w",
    "[bold]bold[/bold]",
    "\u202egnihtemos",
    "two\nlines\tand\ra tab",
    ":smile: \x07 \x9b31m",
    "zero\u200bwidth\ufeff",
    "a" * 300,
    "層" * 60,
    "e\u0301" * 50,
    "",
    "\ud800",
]

REPORTS: dict[str, Report] = {
    "vanishing": _stack(
        50, 0.141, Verdict.VANISHING, "plain", findings=[VANISHING], name="plain stack, depth 50"
    ),
    "residual": _stack(8, 1.07, Verdict.HEALTHY, "nets/residual.yaml", name=None),
    "notes": _stack(8, 0.48, Verdict.WEAK, "net.yaml", findings=[IGNORED, USELESS]),
    "one row": report(chain(1.0)),
    "one drop": report(
        chain(3e-7, 3.1e-7, 2.9e-7, 1.0, 1.1),
        [
            finding(
                message="the gradient shrinks to 2.7e-7 of itself over 4 rows, most of it across "
                "row 3 (×2.9e-7)",
                row="3",
            )
        ],
        Verdict.VANISHING,
    ),
    "leaves": report(
        profile(
            row("0"),
            row("1", 0.9, kind="Block"),
            row("1.fc1", 0.4, level=1),
            row("1.act", 0.3, kind="Tanh", level=1, bare=True),
            row("1.fc2", 0.9, level=1),
            row("2"),
        )
    ),
    "statuses": report(
        profile(
            row("fine", 0.5),
            row("cut", None),
            row("words", None, status=RowStatus.NO_TENSOR, activation_rms=None,
                input_dependence=None, zero_fraction=None, bare=True),
            row("broken", math.nan, activation_rms=math.inf, input_dependence=None),
            row("zero", 0.0, zero_fraction=1.0, input_dependence=0.0),
            row("tiny", 1e-30, activation_rms=1e-30, input_dependence=1e-17),
            row("huge", 1e30, activation_rms=123456.7, zero_fraction=0.996),
            row("last", 1.0),
            row("head", 1.0),
            row("unused", None, parameter("unused.weight", gradient=None),
                status=RowStatus.NOT_RUN, activation_rms=None, input_dependence=None,
                zero_fraction=None),
        ),
        [finding(row=None, line=None)],
        Verdict.NON_FINITE,
    ),
    "hostile": report(
        profile(*(row(name, kind=name or "Linear") for name in HOSTILE)),
        [
            finding(message=f"row {name} is at fault", advice=f"mend {name}", row=name)
            for name in HOSTILE[:8]
        ]
        + [finding(Severity.INFO, ignored="".join(HOSTILE[:7]))],
        Verdict.VANISHING,
        target="\x1b]0;title\x07/nets/[red]evil[/red]\n.yaml",
        name="name\x1b[2J" + "n" * 100,
    ),
}  # fmt: skip
VERDICTS = [
    report(with_reach(reach, 4), [finding(name=str(verdict))], verdict, target=str(verdict))
    for verdict, reach in zip(Verdict, [1.0, 1e-3, 1e-9, 1e9, *[1e-2] * 6], strict=True)
]
COMPARED = [REPORTS["vanishing"], _stack(50, 1.07, Verdict.HEALTHY, "residual")]

# After a second look, and a network that may train: what weighs against it is told.
_SIGNALS = IDEAL._replace(decay=2.4, lost_inputs=2.2, shattering=0.1, coherence=0.9)
UNCERTAIN = replace(
    _stack(10, 0.574, Verdict.WEAK, "net.yaml", findings=[replace(IGNORED, ignored=None)]),
    training=Training(_SIGNALS, probability(_SIGNALS)),
)


def _curves(reaches: dict[str, tuple[float, ...]]) -> Sweep:
    """A sweep over depth, of which each target has a reach at 10, 100 and 1,000."""
    depths = ("10", "100", "1000")
    points = [
        Point(target, (depth,), int(depth), reach, Verdict.VANISHING)
        for target, line in reaches.items()
        for depth, reach in zip(depths, line, strict=True)
    ]
    return Sweep(tuple(reaches), (("depth", depths),), tuple(points))


SWEPT = _curves({"lost": (1e-9, 1e-30, 0.0), "kept": (1.2, 2.4, 4.8), "fades": (0.1, 1e-7, 1e-20)})

PLAIN_80, WIDE = Style(80), Style(140)
ASCII, COLOUR = Style(80, ascii=True), Style(80, color=True)

GOLDENS: dict[str, tuple[Callable[[], str], Style]] = {
    **{
        f"{name.replace(' ', '_')}.80": (lambda r=made: render_report(r, PLAIN_80), PLAIN_80)
        for name, made in REPORTS.items()
    },
    "vanishing.all": (
        lambda: render_report(REPORTS["vanishing"], PLAIN_80, everything=True),
        PLAIN_80,
    ),
    "statuses.140": (lambda: render_report(REPORTS["statuses"], WIDE), WIDE),
    "statuses.colour": (lambda: render_report(REPORTS["statuses"], COLOUR), COLOUR),
    "hostile.ascii": (
        lambda: render_report(REPORTS["hostile"], ASCII, everything=True),
        ASCII,
    ),
    "hostile.colour": (
        lambda: render_report(REPORTS["hostile"], COLOUR, everything=True),
        COLOUR,
    ),
    "verdicts.colour": (
        lambda: "\n".join(render_report(r, COLOUR) for r in VERDICTS),
        COLOUR,
    ),
    "compare_five.80": (lambda: render_comparison(VERDICTS[:5], PLAIN_80), PLAIN_80),
    "notes.json": (lambda: json_report(REPORTS["notes"]), Style(10_000)),
    "statuses.json": (lambda: json_report(REPORTS["statuses"]), Style(10_000)),
    "compare.json": (lambda: json_comparison(VERDICTS[:2]), Style(10_000)),
}

# At each width without colour; at 80 also in ASCII and in colour.
AT_EACH_WIDTH: dict[str, Callable[[Style], str]] = {
    "vanishing": lambda style: render_report(REPORTS["vanishing"], style),
    "uncertain": lambda style: render_report(UNCERTAIN, style),
    "compare": lambda style: render_comparison(COMPARED, style),
    "sweep": lambda style: render_sweep(SWEPT, style),
}
EACH_STYLE = {str(width): Style(width) for width in (40, 80, 140, 200)}
GOLDENS |= {
    f"{name}.{look}": (lambda render=render, style=style: render(style), style)
    for name, render in AT_EACH_WIDTH.items()
    for look, style in (EACH_STYLE | {"ascii": ASCII, "colour": COLOUR}).items()
}


OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # what a terminal may act on instead of showing it


def sound(text: str, style: Style) -> None:
    """What holds for any output: its width, and nothing that a terminal would obey."""
    bare = SGR.sub("", text) if style.color else text
    assert [c for c in set(bare) - {"\n"} if unicodedata.category(c) in OBEYED] == []
    for line in bare.split("\n"):
        assert cell_len(line) <= style.width, line
        assert line == line.rstrip(" ")
    assert not re.search(r"\d…|…\s*%", bare)  # a number is whole or not there
    assert bare.endswith("\n")
    if style.ascii:
        assert bare.isascii()


@pytest.mark.parametrize("name", GOLDENS)
def test_the_output_is_the_golden_one(name: str) -> None:
    render, style = GOLDENS[name]
    text = render()
    sound(text, style)
    path = GOLDEN / f"{name}.txt"
    if OVERWRITE:
        path.write_text(text, encoding="utf-8", newline="")
    assert text == path.read_bytes().decode()


def test_there_is_no_golden_file_too_many() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.txt" for name in GOLDENS}


# ---- what holds for every report, at every width

STYLES = {
    "plain": {},
    "ascii": {"ascii": True},
    "colour": {"color": True},
    "both": {"color": True, "ascii": True},
}


WIDTHS = [(width, "plain") for width in (40, 41, 57, 72, 80, 81, 99, 120, 240)]
LOOKS = [(width, look) for width in (40, 80, 133) for look in ("ascii", "colour", "both")]


@pytest.mark.parametrize(
    ("width", "look"),
    [
        pytest.param(width, look, marks=() if width in (40, 57, 80, 240) else pytest.mark.slow)
        for width, look in WIDTHS + LOOKS
    ],
)
def test_no_line_is_wider_than_the_width_and_nothing_is_obeyed(width: int, look: str) -> None:
    style = Style(width, **STYLES[look])
    for made in (*REPORTS.values(), *VERDICTS):
        sound(render_report(made, style), style)
        sound(render_report(made, style, everything=True), style)
    sound(render_comparison(COMPARED, style), style)
    sound(render_comparison([REPORTS["hostile"], REPORTS["statuses"]], style), style)
    sound(render_comparison(VERDICTS, style, everything=True), style)
    steps = [Step(number, 0, "SGD", 1) for number, _ in enumerate(VERDICTS, 1)]
    sound(render_steps(steps, VERDICTS, style, everything=True), style)
    sound(render_rules(RULES, style), style)
    for rule in RULES:
        sound(render_rule(rule, style), style)


TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="…")


@settings(derandomize=True, max_examples=40, deadline=None, phases=[Phase.generate])  # not shrunk
@given(
    names=st.lists(st.text(TEXT, max_size=40), min_size=1, max_size=4),
    words=st.text(TEXT, max_size=200),
    numbers=st.lists(st.none() | st.floats(min_value=0), min_size=6, max_size=6),
    width=st.integers(40, 240),
    look=st.sampled_from(sorted(STYLES)),
)
def test_any_report_is_rendered_soundly(
    names: list[str], words: str, numbers: list, width: int, look: str
) -> None:
    a, b, c, d, e, f = numbers
    rows = [
        row(name, a, kind=name, activation_rms=b, input_dependence=c, zero_fraction=d and d % 1)
        for name in names
    ]
    measured = profile(*rows, row("x", e), row("y", f))
    told = [finding(message=words, advice=words, row=names[0], ignored=words[:9] or None)]
    made = report(measured, told, Verdict.WEAK, target=words, name=names[0])
    style = Style(width, **STYLES[look])
    sound(render_report(made, style), style)
    sound(render_comparison([made, REPORTS["one row"]], style), style)
    json_report(made)


def test_steps_side_by_side_say_each_finding_where_it_is_first() -> None:
    later = replace(REPORTS["vanishing"], findings=(VANISHING, USELESS))
    steps = [Step(1, 0, "SGD", 1), Step(1, 1, "SGD", 1), Step(5, 0, "SGD", 1)]
    reports = [REPORTS["vanishing"], REPORTS["residual"], later]
    text = render_steps(steps, reports, PLAIN_80, everything=False)
    _, _, below = text.partition("\nplain\n")
    said = [line for line in below.splitlines() if line.startswith("GP") or line == "plain"]
    assert [line[:5] for line in said] == [VANISHING.rule, "plain", USELESS.rule]


@pytest.mark.parametrize("look", STYLES)
def test_a_renderer_is_a_function_of_the_report_alone(
    monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    style = Style(80, **STYLES[look])
    before = render_report(REPORTS["vanishing"], style)
    for name, value in {
        "COLUMNS": "41",
        "NO_COLOR": "1",
        "FORCE_COLOR": "1",
        "TERM": "dumb",
        "COLORTERM": "truecolor",
        "JUPYTER_COLUMNS": "30",
    }.items():
        monkeypatch.setenv(name, value)
        assert render_report(REPORTS["vanishing"], style) == before


def test_colour_adds_escapes_and_nothing_else() -> None:
    for made in REPORTS.values():
        coloured = render_report(made, COLOUR)
        assert SGR.search(coloured)
        assert SGR.sub("", coloured) == render_report(made, PLAIN_80)


COLOURS = {
    Verdict.HEALTHY: 28,
    Verdict.WEAK: 166,
    **dict.fromkeys(list(Verdict)[2:], 196),
}


@pytest.mark.parametrize("made", VERDICTS, ids=lambda made: str(made.verdict))
def test_each_verdict_is_a_word_in_its_colour(made: Report) -> None:
    assert re.search(rf"\n{made.verdict}\b", render_report(made, PLAIN_80))
    coloured = render_report(made, COLOUR)
    assert re.search(rf"\x1b\[1;38;5;{COLOURS[made.verdict]}m{made.verdict}\b", coloured)


@pytest.mark.parametrize("name", ["layers[attn].w", "[bold]bold[/bold]", ":smile:", "a{b}c", "%s"])
def test_a_name_is_printed_as_it_is(name: str) -> None:
    made = report(chain(1.0), [finding(message=name, row=name)], target=name)
    made = report(profile(row(name)), made.findings, target=name)
    text = render_report(made)
    assert text.count(name) == 4  # title, row, finding's row, message
    assert name in render_comparison([made, made])


def test_escapes_in_a_name_are_shown_and_not_obeyed() -> None:
    text = render_report(REPORTS["hostile"], everything=True)
    assert r"\x1b[31mred\x1b[0m" in text
    assert r"\u202egnihtemos" in text
    assert r"two\nlines\tand\ra tab" in text


def test_a_long_name_keeps_its_end() -> None:
    long = "encoder." * 20 + "attention.weight"
    text = render_report(report(profile(row(long))))
    assert "…" in text
    assert "attention.weight" in text


@pytest.mark.parametrize("width", [40, 60, 80, 140, 240])
def test_columns_are_dropped_by_their_priority(width: int) -> None:
    text = render_report(REPORTS["residual"], Style(width))
    [header] = [line for line in text.split("\n") if "1e-8" in line]
    order = "gradient output zeros inputs ∂weights weights parameters".split()
    shown = [column for column in order if re.search(rf"(?<!\S){column}(?!\S)", header)]
    assert shown == order[: len(shown)]
    assert "reach" in header
    assert len(shown) >= {40: 0, 60: 0, 80: 4, 140: 6, 240: 7}[width]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize(
    ("message", "header"),
    [
        ("activations grow 1.0e3 times", "output"),
        ("no gradient passes row 3: its outputs are all zero", "zeros"),
        ("1 % of the output tells inputs apart", "inputs"),
        ("exactly zero gradient: 0.weight", "∂weights"),
        ("all-zero weights that no step changes: 0.weight", "weights"),
    ],
)
def test_a_column_that_a_finding_speaks_of_is_shown(width: int, message: str, header: str) -> None:
    text = render_report(
        replace(REPORTS["residual"], findings=(finding(message=message),)), Style(width)
    )
    sound(text, Style(width))
    [heads] = [line.split() for line in text.splitlines() if line.startswith("row ")]
    assert header in heads


def test_a_column_of_what_weighs_against_it_is_shown() -> None:
    text = render_report(UNCERTAIN, Style(40))
    assert "inputs" in text[text.index("row ") :].splitlines()[0]


# ---- theory beside measurement


@pytest.mark.parametrize("order", [1, -1])
def test_the_row_furthest_beyond_what_width_explains_is_named(order: int) -> None:
    """A row of deviation s may be off by exp(4 s + s² + 0.001): ×7.4 at s = 0.45, ×1.5 at 0.1.

    The wide row is off by more, ×10; the narrow one, off by ×3, is further beyond its limit.
    """
    wide = ("wide", 10.0, RowPrediction("wide", 1.0, 0.45))
    narrow = ("narrow", 3.0, RowPrediction("narrow", 1.0, 0.1))
    rows, gradient = [row("head")], 1.0
    silent = ("silent", 1.0, RowPrediction("silent", None, 0.0, "no closed form"))
    inside = ("agrees", 1.5, RowPrediction("agrees", 1.4, 0.45))
    for name, factor, theory in [silent, inside, *(wide, narrow)[::order]]:
        rows.insert(0, row(name, gradient, theory=theory))
        gradient *= factor
    rows.insert(0, row("stem", gradient))
    made = replace(report(profile(*rows)), theory=Theory("Linear, torch's default init"))
    shown = " ".join(render_report(made, PLAIN_80).split())
    told = "measured and theory differ by ×3.00 at row narrow: finite width explains up to ×1.51"
    assert told in shown


# ---- the table of rows


def shown_rows(text: str) -> list[str]:
    return [line.split()[0] for line in text.split("\n") if re.match(r"(\d|⋮)", line)]


def test_a_deep_network_is_folded_and_the_gaps_add_up() -> None:
    text = render_report(REPORTS["vanishing"])
    rows = shown_rows(text)[1:]  # the header line begins with the number of rows
    assert len(rows) <= 30
    assert rows[:3] == ["0", "1.0", "1.1"]
    assert rows[-3:] == ["1.48", "1.49", "2"]
    hidden = sum(int(n) for n in re.findall(r"⋮\s+(\d+) rows?", text))
    assert hidden + len(rows) - rows.count("⋮") == 52
    everything = shown_rows(render_report(REPORTS["vanishing"], everything=True))[1:]
    assert everything == ["0", *(f"1.{i}" for i in range(50)), "2"]


def test_a_row_with_a_finding_is_never_folded_away() -> None:
    made = REPORTS["vanishing"]
    for name in ("1.13", "1.29", "1.40"):
        pointed = report(made.profile, [finding(row=name)], Verdict.VANISHING)
        assert name in shown_rows(render_report(pointed))
        assert name in shown_rows(render_comparison([pointed, made]))


def test_a_row_where_the_trend_breaks_is_never_folded_away() -> None:
    norms = [10.0 ** (-6 if i < 31 else 0) for i in range(60)]
    rows = shown_rows(render_report(report(chain(*norms))))
    assert {"30", "31"} <= set(rows)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(1, 2000), st.lists(st.integers(0, 1999), max_size=30), st.integers(8, 40))
def test_folding_keeps_both_ends_and_about_as_many_as_asked(
    count: int, keep: list[int], most: int
) -> None:
    keep = [index for index in keep if index < count]
    chosen = fold(count, keep, most)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(count))
    assert {0, count - 1} <= set(chosen)
    assert all(b - a != 2 for a, b in pairwise(chosen))  # a gap of one is no shorter than the row
    if count <= most:
        assert len(chosen) == count
    else:
        assert len(chosen) <= 2 * most


# ---- the bars


def test_a_bar_is_longer_for_a_larger_reach_and_the_same_in_every_report() -> None:
    lengths = [len(heat_bar(10.0**power, 24).plain) for power in range(-8, 5)]
    assert lengths == sorted(set(lengths))
    assert (lengths[0], lengths[-1]) == (1, 24)
    assert len(heat_bar(1.0, 24).plain) == 16  # two thirds of twelve decades


def test_below_the_scale_an_arrow_is_the_longer_the_further_below() -> None:
    """Twenty cells are twelve decades, so that 1e-14 is ten cells below."""
    shown = [heat_bar(reach, 20).plain for reach in (9e-9, 1e-14, 1e-19, 1e-300, 0.0)]
    assert shown == ["◄", "◄" + "━" * 9, "◄" + "━" * 17, *["◄" + "━" * 19] * 2]
    assert heat_bar(1e300, 20).plain == "█" * 20


@pytest.mark.parametrize("width", [1, 6, 14, 40])
@pytest.mark.parametrize("plain", [True, False])
def test_no_row_is_without_ink(width: int, plain: bool) -> None:
    for reach in (0.0, 5e-324, 9.99e-9, 1e-8, 1.01e-8, 1.0, 1.7e308):
        assert paint([heat_bar(reach, width)], Style(width, ascii=plain)).strip()


def test_the_scale_is_widened_where_all_is_below() -> None:
    assert floor_of([1e-9, 3e-23, 0.0, None, math.nan]) == -23
    assert floor_of([1e-9, 1e-8]) == floor_of([0.0]) == floor_of([]) == -8
    assert scale(30, -23.0) == "1e-23".ljust(25) + "1 1e4"
    assert heat_bar(1e-23, 27, -23.0).plain == "▌"
    assert heat_bar(1e-14, 27, -23.0).plain == "█" * 9


@pytest.mark.parametrize("width", [8, 9, 14, 40])
def test_without_a_number_a_bar_is_a_word_that_fits(width: int) -> None:
    for reach in (None, math.nan, math.inf):
        assert 0 < len(heat_bar(reach, width).plain) <= width


@pytest.mark.parametrize("width", [*range(4, 60), 200])
def test_the_scale_fits_and_puts_1_where_a_bar_of_1_ends(width: int) -> None:
    text = scale(width)
    assert len(text) <= width
    assert text.startswith("1e-8")
    assert ("1e4" in text) == text.endswith("1e4") == (width in (8, *range(11, 201)))
    assert (" 1 " in text + " ") == (width >= 9)
    if width >= 9:
        end = text.index(" 1") + 2
        assert abs(end - len(heat_bar(1.0, width).plain)) <= 1


@pytest.mark.parametrize(
    ("reach", "colour"),
    [(1.0, GOOD), (1e-2, GOOD), (9e-3, DOUBTFUL), (1e2, GOOD), (1.1e2, DOUBTFUL),
     (1e-4, DOUBTFUL), (9e-5, BAD), (1e4, DOUBTFUL), (1.1e4, BAD), (0.0, BAD),
     (None, BAD), (math.nan, BAD), (math.inf, BAD)],
)  # fmt: skip
def test_a_bar_s_colour_is_that_of_its_band(reach: float | None, colour: str) -> None:
    assert str(heat_bar(reach, 20).style) == colour


def luminance(colour: ColorTriplet) -> float:
    """The relative luminance of WCAG 2."""
    parts = [value / 255 for value in colour]
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", [GOOD, DOUBTFUL, BAD, NOTE, FAINT])
@pytest.mark.parametrize("paper", ["ffffff", "fdf6e3", "000000", "1e1e1e"])
def test_a_colour_is_legible_on_light_and_on_dark_terminals(colour: str, paper: str) -> None:
    """WCAG asks for a contrast of 3 of what is large or bold. No theme changes these colours."""
    ink = Color.parse(colour)
    assert (ink.number or 0) > 15
    ground = luminance(Color.parse(f"#{paper}").get_truecolor())
    dark, light = sorted((luminance(ink.get_truecolor()), ground))
    assert (light + 0.05) / (dark + 0.05) >= 3.5


# ---- comparisons


def test_rows_of_one_network_stand_beside_their_namesakes() -> None:
    a = report(profile(row("stem"), row("b.0"), row("b.1"), row("head")), target="four")
    b = report(profile(row("stem"), row("b.1"), row("head")), target="three")
    lines = [line for line in render_comparison([a, b]).split("\n") if "█" in line]
    found = {line.split()[0]: len(re.findall("█+", line)) for line in lines}
    assert found == {"stem": 2, "b.0": 1, "b.1": 2, "head": 2}


def test_networks_without_common_names_stand_side_by_side_from_the_top() -> None:
    a = report(profile(row("a"), row("b"), row("c")), target="one")
    b = report(profile(row("x"), row("y")), target="two")
    lines = [line for line in render_comparison([a, b]).split("\n") if "█" in line]
    assert [len(re.findall("█+", line)) for line in lines] == [2, 2, 1]


def test_leaves_do_not_show_in_a_comparison() -> None:
    assert "fc1" not in render_comparison([REPORTS["leaves"], REPORTS["one row"]])


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("width", [40, 80, 160])
def test_as_many_as_fit_stand_side_by_side_and_none_is_left_out(count: int, width: int) -> None:
    made = [report(with_reach(0.5, 3), target=f"net{i}.") for i in range(count)]
    text = render_comparison(made, Style(width))
    assert all(f"net{i}." in text for i in range(count))
    for whole in ("healthy", "×0.794 per row", "half in 3.00 rows"):
        assert text.count(whole) == count
    groups = text.count("\nrow ")
    assert text.count("\nhead ") == groups


# ---- numbers and names


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.floats(-1.7e308, 1.7e308))
def test_a_number_has_at_most_eight_characters_and_two_digits_are_right(value: float) -> None:
    text = number(value)
    assert len(text) <= 9 if value < 0 else len(text) <= 8
    if value:
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.051)
        assert not re.search(r"\d{4}", text.partition(".")[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.577, "0.577"), (15.62, "15.6"), (1234.5, "1,234"), (1.23e-12, "1.2e-12"), (0.0, "0"),
     (1.0, "1"), (None, "-"), (math.nan, "NaN"), (math.inf, "inf"), (-math.inf, "-inf"),
     (0.9999, "1.00"), (999.6, "1,000"), (9999.6, "1.0e4"), (0.000999, "1.0e-3"),
     (5e-324, "4.9e-324"), (1.7976931348623157e308, "1.8e308")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.5, "50 %"), (1e-9, "<1 %"), (0.9999999, ">99 %"), (None, "-"),
     (0.004, "<1 %"), (0.995, ">99 %"), (0.006, "1 %"), (math.nan, "NaN")],
)  # fmt: skip
def test_a_fraction_is_0_or_100_percent_only_where_it_is_exactly(
    value: float | None, text: str
) -> None:
    assert fraction(value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 rows"), (1, "1 row"), (52_000, "52,000 rows")])
def test_plurals(count: int, text: str) -> None:
    assert plural(count, "row") == text


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(), st.integers(1, 60))
def test_a_name_fits_its_width_on_the_screen(text: str, width: int) -> None:
    shown = elided(text, width)
    assert cell_len(shown) <= width
    assert not {unicodedata.category(c) for c in shown} & OBEYED


def test_forty_columns_show_the_names_whole() -> None:
    names = [f"transformer.h.{i}.mlp.embed" for i in range(3)]
    made = profile(*(row(name, 1.0) for name in names), row("head", 1.0))
    text = render_report(report(made), Style(40))
    assert all(cell_len(line) <= 40 for line in text.splitlines())
    assert all(f"\n{name} " in text for name in names)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (9_999_999, "9,999,999"),
        (6_980_000_000, "7.0e9"),
        (6_738_415_616, "6.7e9"),
        (99_900_000, "1.0e8"),
        (10**400, "1.0e400"),
    ],
)
def test_long_counts_are_rounded(count: int, text: str) -> None:
    assert counted(count) == text
