"""The verdict is a sentence, true of every verdict, for somebody who has never seen the words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from helpers.handmade import chain, report, with_reach

from gradprobe.measure.profile import GradientProfile
from gradprobe.render.canvas import Style
from gradprobe.render.html.scale import scale_of
from gradprobe.render.html.views import report_view
from gradprobe.render.text import render_report
from gradprobe.render.verdict import verdict_story
from gradprobe.verdict.report import Probability, Training, Verdict

ARRIVES = "the gradient that reaches the first layer is"


@pytest.mark.parametrize(
    ("measured", "story"),
    [
        (chain(0.48, 1.0), f"{ARRIVES} 0.480 of what leaves the last one"),
        (chain(3.0, 1.0), f"{ARRIVES} 3.00 times what leaves the last one"),
        (chain(1.0, 1.0), f"{ARRIVES} as large as what leaves the last one"),
        (chain(0.0, 1.0), "nothing of the gradient reaches the first layer"),
        (chain(None, 1.0), ""),
        (chain(math.nan, 1.0), ""),
        (
            with_reach(2.0**-10, 10),
            f"{ARRIVES} 9.8e-4 of what leaves the last one, ×0.500 per row over 10 rows, "
            "halving every 1 rows",
        ),
        (
            replace(chain(4.0, 2.0, 1.0), unit="position"),
            "the gradient that reaches the first position is 4.00 times what leaves the last one, "
            "×2.00 per position over 2 positions, doubling every 1 positions",
        ),
    ],
)
def test_how_much_arrives(measured: GradientProfile, story: str) -> None:
    assert verdict_story(report(measured)).replace("1.00 ", "1 ") == story


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("reach", [0.48, 3.0, math.nan])
def test_each_verdict_says_what_it_means(verdict: Verdict, reach: float) -> None:
    made = report(chain(reach, 1.0), verdict=verdict)
    told = " ".join(render_report(made, Style(80)).split())
    arrives = f"{ARRIVES} {'0.480 of' if reach < 1 else '3.00 times'} what leaves the last one"
    by_reach = list(Verdict).index(verdict) in (0, 1, 3, 4)
    seen = math.isfinite(reach) and verdict is not Verdict.UNMEASURED
    assert (arrives in told) == seen
    assert (f"{verdict}: {ARRIVES}" in told) == (by_reach and math.isfinite(reach))
    assert by_reach or f"{verdict}: " in told


@pytest.mark.parametrize(
    ("chance", "told"),
    [
        (Probability(0.98, 0.98), "; 98 % of small networks like it train"),
        (
            Probability(0.41, 0.92),
            "; 41 % of small networks like it train with SGD, 92 % with SGD or Adam",
        ),
    ],
)
def test_the_chance_is_in_the_sentence_and_on_the_page(chance: Probability, told: str) -> None:
    made = replace(report(chain(0.48, 1.0)), training=Training(probability=chance))
    assert verdict_story(made).endswith(f"of what leaves the last one{told}")
    assert report_view(made, scale_of([0.48])).decay.lower() == verdict_story(made).lower()
