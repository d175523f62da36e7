"""``probe --seeds``: a typical report, whether its verdict is settled, and whether it flips."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.commands import Run
from helpers.handmade import chain, finding, judged, profile, report, row, with_reach
from helpers.places import CONFIGS
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from rich.cells import cell_len

import gradprobe
from gradprobe.errors import InputError
from gradprobe.render.canvas import Style
from gradprobe.render.schema import output_schema
from gradprobe.render.text import render_report
from gradprobe.spec.network import Ignore, NetworkSpec
from gradprobe.spec.seeds import AUTO_SEEDS, MAX_SEEDS, Seeds, choose_seeds, seeds_in
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.stack import load as load_stack
from gradprobe.spec.sources.yaml import parse
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.calibration import (
    FAILS,
    IDEAL,
    TRAINS,
    log_odds,
    minus_log_log,
    probability,
)
from gradprobe.verdict.diagnose import diagnose_seeds
from gradprobe.verdict.report import Probability, Repeats, Report, Severity, Training, Verdict
from gradprobe.verdict.rules.rule import Selection
from gradprobe.verdict.seeds import QUANTILES, clear, majority, margin, repeated, settled, typical

pytestmark = pytest.mark.usefixtures("forked_workers")


def at(reach: float, seed: int = 0, **thresholds: float) -> Report:
    """A report on a trunk with this reach, judged."""
    limits = {**THRESHOLDS, **thresholds}
    findings, verdict = judged(with_reach(reach), **thresholds)
    made = report(with_reach(reach), findings, verdict)
    return replace(made, config={**made.config, "seed": seed, "thresholds": limits})


def of(*verdicts: str) -> list[Report]:
    """Reports with these verdicts, at seeds 0, 1, ..., whose margin is not known."""
    made = [report(with_reach(1.0), verdict=Verdict(verdict)) for verdict in verdicts]
    return [replace(r, config={**r.config, "seed": seed}) for seed, r in enumerate(made)]


def on_edge(limit: float, *decades: float) -> list[Report]:
    return [at(limit * 10**away, seed) for seed, away in enumerate(decades)]


# ---- the margin


@settings(max_examples=200, deadline=None)
@given(st.floats(-25, 25))
def test_the_margin_is_the_factor_to_the_nearest_other_verdict(log: float) -> None:
    here = at(math.exp(log))
    found = margin(here)
    assert found is not None
    near, far = (
        {at(math.exp(log + sign * times * found)).verdict for sign in (-1, 1)}
        for times in (0.99, 1.01)
    )
    if found > 1e-6:
        assert near == {here.verdict}
        assert far != {here.verdict}


def test_the_margin_is_that_to_the_thresholds_that_were_in_force() -> None:
    assert margin(at(1.0)) == pytest.approx(math.log(100))
    assert margin(at(1.0, weak_low=0.5)) == pytest.approx(math.log(2))


def trained(verdict: str = "healthy", **thresholds: float) -> Report:
    training = Training(IDEAL, probability(IDEAL), 3.5)
    return replace(at(1.0, **thresholds), training=training, verdict=Verdict(verdict))


def test_no_reach_is_at_a_threshold_of_zero() -> None:
    ends = dict.fromkeys(THRESHOLDS, 0.0)
    assert margin(at(1.0, **ends | {"exploding": 1e4})) == pytest.approx(math.log(1e4))
    assert margin(at(1.0, **ends)) is None


def test_with_a_probability_it_is_that_of_the_score() -> None:
    failing = probability(IDEAL._replace(decay=8.0))
    lost = replace(trained(), training=Training(IDEAL, failing), verdict=Verdict.VANISHING)
    assert margin(lost) == pytest.approx(minus_log_log(FAILS) - minus_log_log(failing.adam))
    expected = log_odds(probability(IDEAL).sgd) - log_odds(TRAINS)
    assert margin(trained()) == margin(trained("shattered")) == pytest.approx(expected)
    assert margin(trained(weak_low=0.5)) == pytest.approx(math.log(2))  # its own bands decide
    unknown = replace(trained(), training=Training(reason="nothing to weigh"))
    assert margin(unknown) == pytest.approx(math.log(100))


@pytest.mark.parametrize("verdict", ["dead", "disconnected", "non-finite"])
def test_a_verdict_that_follows_from_no_number_has_no_margin(verdict: str) -> None:
    assert margin(trained(verdict)) is None
    assert margin(replace(at(1.0), verdict=Verdict(verdict))) is None


@pytest.mark.parametrize("first", [0.0, math.nan, math.inf, None])
def test_without_a_finite_positive_reach_there_is_no_margin(first: float | None) -> None:
    assert margin(replace(at(1.0), profile=chain(first, 1.0, 1.0))) is None


# ---- settled


def student(x: float, df: int) -> float:
    """The density of Student's t."""
    norm = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    return math.exp(norm - (df + 1) / 2 * math.log1p(x * x / df))


def simpson(f: Callable[[float], float], low: float, high: float, steps: int = 4000) -> float:
    h = (high - low) / steps
    inner = math.fsum((4 if i % 2 else 2) * f(low + i * h) for i in range(1, steps))
    return (f(low) + inner + f(high)) * h / 3


def test_the_quantiles_are_those_of_students_t() -> None:
    assert len(QUANTILES) == AUTO_SEEDS[1] - 2
    for df, quantile in enumerate(QUANTILES, 2):
        below = 0.5 + simpson(lambda x, df=df: student(x, df), 0.0, quantile)
        assert below == pytest.approx(0.99, abs=6e-5 * student(quantile, df))


@pytest.mark.parametrize(("count", "n"), [(0, 0), (1, 1), (3, 5), (5, 5), (6, 6), (20, 30)])
def test_the_majority_is_a_tail_of_the_beta_distribution(count: int, n: int) -> None:
    scale = math.factorial(n + 1) / math.factorial(count) / math.factorial(n - count)
    tail = simpson(lambda p: scale * p**count * (1 - p) ** (n - count), 0.5, 1.0)
    assert majority(count, n) == pytest.approx(tail, abs=1e-9)


def test_six_of_six_suffice_and_five_of_five_do_not() -> None:
    assert majority(5, 5) < 0.99 <= majority(6, 6)
    assert settled(of(*["dead"] * 6))
    assert not settled(of(*["dead"] * 5))
    assert not settled(of(*["dead"] * 6, "healthy"))
    assert settled(of(*["dead"] * 12, "healthy", "weak"))
    assert majority(1000, 1000) == 1


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_of_means_at_zero_one_in_a_hundred_seems_clear(n: int) -> None:
    draw = random.Random(n)
    tries = 4000
    found = sum(clear([draw.gauss(0, 2) for _ in range(n)]) for _ in range(tries))
    off = 3 * math.sqrt(0.01 * 0.99 / tries)
    assert 0.01 - off < found / tries < 0.01 + off


def test_two_margins_are_too_few_and_equal_ones_are_clear() -> None:
    assert not clear([5.0, 5.0])
    assert clear([5.0, 5.0, 5.0])
    assert not clear([0.0, 0.0, 0.0])


def test_margins_settle_what_numbers_do_not() -> None:
    far, close = on_edge(1e-2, 1.9, 2.0, 2.1), on_edge(1e-2, 0.05, 0.9, 2.5)
    assert {r.verdict for r in (*far, *close)} == {Verdict.HEALTHY}
    assert settled(far)
    assert not settled(close)
    assert not settled([*far, replace(far[0], profile=chain(None, 1.0, 1.0))])


def test_one_margin_far_beyond_the_others_does_not_unsettle_what_all_say() -> None:
    wide = on_edge(1e4, *[0.1] * 9, 200.0)
    assert not clear([found for r in wide if (found := margin(r)) is not None])
    assert settled(wide)


@pytest.mark.slow
def test_what_is_settled_one_seed_after_another_is_seldom_wrong() -> None:
    """Over networks up to three standard deviations away from the boundary, on either side."""
    draw = random.Random(0)
    wrong = sure = 0
    for _ in range(600):
        away = draw.uniform(-3, 3)
        found = repeated(
            lambda seed, away=away: at(1e-2 * math.exp(draw.gauss(away, 1) / 2)),
            choose_seeds("auto"),
        )
        assert found.repeats
        sure += found.repeats.settled
        wrong += found.repeats.settled and (found.verdict is Verdict.HEALTHY) != (away > 0)
    assert sure > 400
    assert wrong <= 0.01 * sure


# ---- one seed after another


def test_auto_stops_when_it_is_settled() -> None:
    def probed(reports: Sequence[Report]) -> tuple[int, ...]:
        found = repeated(lambda seed: reports[seed - 4], choose_seeds("auto", 4)).repeats
        assert found
        assert found.settled == settled(reports[: len(found.seeds)])
        return found.seeds

    least, most = AUTO_SEEDS
    assert probed(on_edge(1e-2, *[2.0] * most)) == tuple(range(4, 4 + least))
    assert probed(of(*["dead"] * most)) == tuple(range(4, 10))
    assert probed(of(*["dead", "weak"] * (most // 2))) == tuple(range(4, 4 + most))


def test_a_number_or_a_list_is_probed_to_its_end() -> None:
    reports = on_edge(1e-2, *[2.0] * 9)
    for seeds in (choose_seeds(5, 2), choose_seeds([8, 1, 8])):
        found = repeated(lambda seed: reports[seed], seeds).repeats
        assert found
        assert found.seeds == seeds.seeds
        assert found.reaches == tuple(reports[seed].reach for seed in seeds.seeds)
        assert found.probabilities == (None,) * len(seeds.seeds)


def test_the_typical_report_has_the_most_common_verdict_and_its_median_reach() -> None:
    reports = [at(reach) for reach in (0.5, 3.0, 1.0, 2.0, 1e-9, 1e-9 / 2, 1e-9 / 4)]
    for shuffled in (reports, reports[::-1], reports[3:] + reports[:3]):
        assert typical(shuffled).reach == pytest.approx(1.0)  # the lower median of four
    assert typical(reports[1:]).verdict is Verdict.VANISHING  # of three and three the graver
    assert typical(reports[1:]).reach == pytest.approx(1e-9 / 2)
    odd = [replace(at(1.0), profile=chain(first, 1.0, 1.0)) for first in (math.nan, None)]
    assert typical([*odd, at(1.0), at(2.0), at(3.0)]).reach == pytest.approx(3.0)


def test_spreads_are_of_the_finite_ones() -> None:
    seen = Repeats(
        (1, 2, 3, 4), (Verdict.DEAD,) * 4, (None, math.inf, 2.0, 1.0), (None,) * 4, False
    )
    assert seen.reach == (1.0, 1.0, 2.0)
    assert seen.chances is None
    assert seen._replace(reaches=(None, math.nan)).reach is None
    chances = tuple(Probability(p, p + 0.1) for p in (0.5, 0.2, 0.3, 0.4))
    assert seen._replace(probabilities=chances).chances == (
        (0.3, 0.2, 0.5),
        pytest.approx((0.4, 0.3, 0.6)),
    )


# ---- a verdict that flips

MIXED = of("healthy", "weak", "healthy", "dead", "healthy", "weak", "healthy")


def test_a_verdict_that_flips_is_a_finding() -> None:
    [found] = diagnose_seeds(MIXED)
    assert (found.rule, found.name, found.severity) == ("GP105", "flips", Severity.WARNING)
    assert (
        found.message == "another seed, another verdict: healthy at 4 seeds, weak at 2, dead at 1"
    )
    assert "probe --seed 3 " in found.advice  # the gravest
    assert "healthy at 0, 2, 4, 6; weak at 1, 5; dead at 3" in found.advice
    assert found.value == 4 / 7
    assert diagnose_seeds(of(*["weak"] * 9)) == ()


def test_it_is_attached_to_the_report_among_its_findings_by_severity() -> None:
    told = repeated(lambda seed: MIXED[seed], choose_seeds(7))
    assert [f.rule for f in told.findings] == ["GP105"]
    assert not told.fails(Severity.ERROR)
    assert told.fails(Severity.WARNING)
    noted = [replace(r, findings=(finding(Severity.INFO),)) for r in MIXED]
    seen = repeated(lambda seed: noted[seed], choose_seeds(7))
    assert [f.severity for f in seen.findings] == [Severity.WARNING, Severity.INFO]
    lost = [at(1e-9), at(1e-9), at(1.0)]
    assert [f.rule for f in repeated(lambda s: lost[s], choose_seeds(3)).findings] == [
        "GP101",
        "GP105",
    ]


@pytest.mark.parametrize("word", ["flips", "GP105"])
def test_it_can_be_ignored_and_left_out(word: str) -> None:
    [found] = diagnose_seeds(MIXED, [Ignore(word, "meant")])
    assert found.ignored == "meant"
    assert diagnose_seeds(MIXED, selection=Selection(ignore=(word,))) == ()
    assert diagnose_seeds(MIXED, selection=Selection(select=("GP4",))) == ()


NARROW = "Linear: {out_features: 3}, ReLU"
FLIPPING = f"""input: {{shape: [3]}}
layers: [repeat: {{times: 6, layers: [{NARROW}]}}, Linear: {{out_features: 2}}]
"""
MEANT = "check: {ignore: [{rule: flips, reason: three units}]}\n"


def spec(text: str = FLIPPING) -> NetworkSpec:
    return parse(text.encode(), "net.yaml")


def test_a_real_network_that_flips_says_so_unless_its_spec_ignores_it() -> None:
    found = gradprobe.probe(spec(), seeds=5)
    assert found.repeats
    assert len(found.repeats.counts) > 1
    assert [f.ignored for f in found.findings if f.name == "flips"] == [None]
    ignored = gradprobe.probe(spec(FLIPPING + MEANT), seeds=5)
    assert [f.ignored for f in ignored.findings if f.name == "flips"] == ["three units"]
    one = gradprobe.probe(spec(FLIPPING + MEANT), seed=found.repeats.seeds[0])
    assert not {"flips", "unused-ignore"} & {f.name for f in one.findings}


@pytest.mark.slow
def test_the_check_says_so_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gradprobe.toml").write_text("seeds = 5\n")
    (tmp_path / "net.yaml").write_text(FLIPPING)

    def flips(*words: str) -> list[dict[str, object]]:
        ended = run("check", "-j", "1", "--output-format", "json", *words)
        [target] = json.loads(ended.out)["targets"]
        return [one for one in target["diagnostics"] if one["rule"] == "GP105"]

    [found] = flips()
    assert (found["severity"], found["row"], found["line"]) == ("warning", None, 1)
    assert str(found["message"]).startswith("another seed, another verdict: ")
    assert flips("--seeds", "1") == flips("--ignore", "flips") == flips("--select", "GP2") == []
    (tmp_path / "net.yaml").write_text(FLIPPING + MEANT)
    assert [one["ignored"] for one in flips()] == ["three units"]


# ---- what is asked


def test_which_seeds_are_meant() -> None:
    assert choose_seeds(seeds_in("3")) == Seeds((0, 1, 2))
    assert choose_seeds(seeds_in("3"), 5) == Seeds((5, 6, 7))
    assert choose_seeds(seeds_in(" 3, 9,3")) == Seeds((3, 9))
    assert choose_seeds("auto", 1) == Seeds(tuple(range(1, 31)), auto=True)
    assert len(choose_seeds(MAX_SEEDS).seeds) == MAX_SEEDS
    assert choose_seeds(1, 2**63 - 1) == Seeds((2**63 - 1,))
    with pytest.raises(InputError, match="out of range"):
        choose_seeds(2, 2**63 - 1)


WRONG = (
    "x",
    "0",
    "1001",
    "1.5",
    "-1",
    "3,,4",
    "3,",
    "auto,3",
    "9" * 30,
    "9" * 5000,
    f"1,{2**63}",
    "²",
)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_number_of_seeds_is_refused_with_a_hint(run: Run, text: str) -> None:
    ended = run("probe", "plain", f"--seeds={text}")
    assert (ended.code, ended.out) == (2, "")
    error, hint = ended.err.splitlines()
    assert error.startswith("gradprobe: error: --seeds: ")
    assert hint.startswith("hint: 5, or 3,7,9; ")


def test_a_list_has_no_first_seed(run: Run) -> None:
    ended = run("probe", "plain", "--seed", "0", "--seeds", "3,7")
    assert ended.code == 2
    assert "contradict" in ended.err
    last = run("probe", "plain", "--seed", str(2**63 - 2), "--seeds", "auto")
    assert last.code == 2
    assert "out of range" in last.err
    assert run("check", "--seeds", "auto").code == 2


@pytest.mark.parametrize("seeds", [0, True, "3", "x", [], [1, -1], [1.0], ["1"], MAX_SEEDS + 1])
def test_the_library_refuses_them_too(seeds: object) -> None:
    with pytest.raises(InputError, match="error: seeds: "):
        gradprobe.probe(spec(), seeds=seeds)


def test_a_module_is_not_built_anew() -> None:
    with pytest.raises(InputError, match="only a spec is built anew"):
        gradprobe.probe(torch.nn.Linear(2, 2), torch.ones(3, 2), seeds=3)


# ---- the same bytes


def test_the_report_is_that_of_its_seed_but_for_the_repeats(run: Run) -> None:
    words = ["plain", "--depth", "6", "--width", "8"]
    one, asked = (run("probe", *words, *more).out for more in ([], ["--seeds", "1"]))
    added = [line for line in asked.splitlines() if line not in one.splitlines()]
    assert len(added) == 1
    assert added[0].startswith("seeds   ")
    assert asked.replace(f"{added[0]}\n", "") == one
    several = run("probe", *words, "--seeds", "3,5,9", "--format", "json").out
    assert several == run("probe", *words, "--seeds", "3,5,9", "--format", "json").out
    body = json.loads(several)
    seen = body.pop("seeds")
    alone = run("probe", *words, "--seed", str(body["config"]["seed"]), "--format", "json").out
    assert body == json.loads(alone)
    assert seen["reach"]["median"] == body["reach"]


def test_each_seed_is_probed_as_if_it_were_alone() -> None:
    options = {"deep": True, "loss": "mse"}
    network = load_stack("residual", StackOptions(depth=3, width=8))
    state = torch.get_rng_state()
    found = gradprobe.probe(network, seed=4, seeds=3, **options)
    assert torch.equal(torch.get_rng_state(), state)
    alone = [gradprobe.probe(network, seed=seed, **options) for seed in (4, 5, 6)]
    assert found.repeats
    assert found.repeats.reaches == tuple(r.reach for r in alone)
    assert found.repeats.probabilities == tuple(r.training.probability for r in alone if r.training)
    assert replace(found, repeats=None) in alone


# ---- every kind of target


def test_a_hugging_face_model_is_built_anew(run: Run) -> None:
    pytest.importorskip("transformers")
    words = [str(CONFIGS / "gpt2"), "--layers", "2", "--seeds", "3", "--format", "json"]
    body = json.loads(run("probe", *words).out)
    assert len(set(body["seeds"]["reaches"])) == 3


BUILT = """
from torch.nn import Linear, Sequential, Tanh
def make(): return Sequential(*(Linear(6, 6) for _ in range(4)))
built = make()
"""


@pytest.mark.slow
def test_a_python_model_is_built_anew(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is built while its file is imported, and whether or not in this process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeded_net.py").write_text(BUILT)

    def reaches(name: str, *words: str) -> list[float]:
        options = ["--input", "shape=4,6", "--format", "json", "--seeds", "2", *words]
        found: list[float] = json.loads(run("probe", f"seeded_net:{name}", *options).out)["seeds"][
            "reaches"
        ]
        return found

    made = reaches("make", "--trusted-in-process")
    assert made[0] != made[1]
    assert reaches("built", "--trusted-in-process") == made
    assert reaches("built") == made


NARROW_CODE = """
from torch.nn import Linear, ReLU, Sequential
def make(): return Sequential(*(Sequential(Linear(3, 3), ReLU()) for _ in range(6)))
"""


def test_a_python_models_spec_may_ignore_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flipping_net.py").write_text(NARROW_CODE)
    model = "model: {target: flipping_net:make, inputs: {shape: [8, 3]}}\n"
    (tmp_path / "net.yaml").write_text(model + MEANT)
    words = ["--allow-code", "--trusted-in-process", "--seeds", "6", "--format", "json"]
    body = json.loads(run("probe", "net.yaml", *words).out)
    assert [f["ignored"] for f in body["findings"] if f["name"] == "flips"] == ["three units"]


# ---- how it is said


def complaints(body: dict[str, object]) -> list[str]:
    return [error.message for error in Draft7Validator(output_schema("report")).iter_errors(body)]


def test_the_json_holds_every_seed(run: Run) -> None:
    words = ["residual", "--depth", "3", "--width", "8", "--format", "json"]
    assert "seeds" not in json.loads(run("probe", *words).out)
    body = json.loads(run("probe", *words, "--deep", "--seeds", "3").out)
    assert complaints(body) == []
    seen = body["seeds"]
    assert (seen["seeds"], seen["verdicts"]) == ([0, 1, 2], ["healthy"] * 3)
    assert (seen["stability"], seen["settled"]) == (1.0, True)
    assert seen["reach"]["low"] == min(seen["reaches"])
    assert seen["probability"].keys() == {"sgd", "adam"}
    shallow = json.loads(run("probe", *words, "--seeds", "3").out)
    assert shallow["seeds"]["probability"] is None


def test_what_is_not_finite_is_null(tmp_path: Path, run: Run) -> None:
    (tmp_path / "net.yaml").write_text(
        "input: {shape: [8]}\n"
        "layers: [repeat: {times: 4, layers: "
        "[Linear: {out_features: 8, init: {weight: {normal: {std: 1.0e30}}}}]}]\n"
    )
    body = json.loads(
        run("probe", str(tmp_path / "net.yaml"), "--seeds", "6", "--format", "json").out
    )
    assert complaints(body) == []
    assert body["seeds"]["reach"] is None
    assert body["seeds"]["reaches"] == [None] * 6
    assert body["seeds"]["settled"]


def said(reports: Sequence[Report], **style: object) -> str:
    made = repeated(lambda seed: reports[seed], choose_seeds(len(reports)))
    shown = render_report(made, Style(**style))
    return shown[shown.index("seeds   ") :]


def test_the_line_says_what_was_found() -> None:
    first = said(on_edge(1e-2, 2.0, 1.9, 2.1, 2.2, 1.8)).splitlines()[0]
    assert first == "seeds   healthy at 5 of 5, settled; reach 1 (0.631 to 1.58)"
    narrow = said(on_edge(1e-2, 2.0, 1.9, 2.1, 2.2, 1.8), width=50).splitlines()
    assert narrow == [
        "seeds   healthy at 5 of 5, settled",
        "        reach 1 (0.631 to 1.58)",
    ]
    assert said(on_edge(1e-2, 2.0)) == "seeds   healthy at 1 of 1, not settled; reach 1\n"
    assert said(of("dead", "healthy", "healthy")).startswith(
        "seeds   healthy at 2 of 3, dead at 1, not settled; reach 1\n"
    )
    nothing = replace(report(profile(row("0", math.nan))), verdict=Verdict.NON_FINITE)
    assert said([nothing] * 6) == "seeds   non-finite at 6 of 6, settled\n"


def test_with_a_probability_it_says_its_range() -> None:
    chances = [(0.12, 0.88), (0.09, 0.8), (0.15, 0.91)]
    trains = [Training(IDEAL, Probability(*p), 1.0) for p in chances]
    lines = said([replace(at(1.0), training=t) for t in trains]).splitlines()
    assert lines[1] == "        12 % (9 % to 15 %) under SGD, 88 % (80 % to 91 %) under SGD or Adam"


COLOURS = {
    "settled": (on_edge(1e-2, 2.0, 2.0, 2.0), "\x1b[1;38;5;28mseeds"),
    "settled and bad": (on_edge(1e-4, -2.0, -2.0, -2.0), "\x1b[1;38;5;196mseeds"),
    "not settled": (on_edge(1e-2, 2.0, 2.0), "\x1b[1;38;5;166mseeds"),
    "flips": (of(*["healthy"] * 30, "weak"), "\x1b[1;38;5;166mseeds"),
}


@pytest.mark.parametrize("name", COLOURS)
def test_green_is_only_what_every_seed_says(name: str) -> None:
    reports, expected = COLOURS[name]
    made = repeated(lambda seed: reports[seed], choose_seeds(len(reports)))
    assert expected in render_report(made, Style(color=True))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([str(v) for v in Verdict]), min_size=1, max_size=12),
    st.integers(40, 140),
    st.booleans(),
)
def test_what_is_said_fits_the_width(verdicts: list[str], width: int, plain: bool) -> None:
    training = trained().training
    reports = [replace(r, training=training) for r in of(*verdicts)]
    shown = said(reports, width=width, ascii=plain)
    assert max(map(cell_len, shown.splitlines())) <= width
    first, *rest = shown.partition("\n\n")[0].splitlines()
    assert first.startswith("seeds   ")
    assert all(line.startswith(" " * 8) and line[8] != " " for line in rest)
    assert not plain or shown.isascii()
