"""What a finding advises: in the target's own language, of what was measured, and tried."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.handmade import finding as handmade_finding
from helpers.handmade import (
    parameter,
    profile,
    report,
    row,
    with_reach,
)
from helpers.places import GOLDEN
from helpers.unchanged import unchanged
from torch import Tensor, nn

import gradprobe
from gradprobe.measure.cures import _WAYS, cured
from gradprobe.measure.measurement import Course, Cure, Outcome, Trial, TriedCure
from gradprobe.measure.profile import GradientProfile, RowStatus, Use
from gradprobe.measure.surroundings import Further, LossProfile, StateProfile, Surroundings
from gradprobe.model.make import module_subject
from gradprobe.render.text import render_report
from gradprobe.spec.network import Idiom
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.advice import _SHORT, CURES, in_python, with_trials, worded
from gradprobe.verdict.calibration import IDEAL, outlook, probability
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Finding, Report, Severity, Training, Verdict
from gradprobe.verdict.rules.rule import Clue, certainty
from gradprobe.verdict.rules.table import RULES
from gradprobe.verdict.signals import Signals

OVERWRITE = bool(os.environ.get("GRADPROBE_OVERWRITE"))

# ---- the wording of each finding, in three languages

IDIOMS = {
    "spec": Idiom(),
    "code": Idiom("code", {f"blocks.{k}": "Block (net.py:12)" for k in range(12)}),
    "config": Idiom(
        "config",
        settings={"initializer_range": 0.02, "hidden_act": "relu", "num_hidden_layers": 12},
    ),
}


def blocks(*gradients: float | None, kind: str = "Block", inside: str = "ReLU") -> GradientProfile:
    """Blocks of a linear layer and an activation with these gradient norms, and a head."""
    rows = [
        row(
            f"blocks.{k}",
            gradient,
            parameter(f"blocks.{k}.fc.weight"),
            parameter(f"blocks.{k}.fc.bias", dimensions=1),
            kind=kind,
            contains=(kind, "Linear", inside),
        )
        for k, gradient in enumerate(gradients)
    ]
    return profile(*rows, row("head", gradients[-1], parameter("head.weight")))


def around(**fields: object) -> GradientProfile:
    return replace(blocks(1.0, 1.0, 1.0), around=Surroundings(**fields))


def looked_twice(**fields: object) -> GradientProfile:
    return replace(blocks(1.0, 1.0, 1.0), further=Further(**fields))


def changed(index: int, **fields: object) -> GradientProfile:
    """Healthy blocks of which one is another."""
    made = blocks(1.0, 1.0, 1.0)
    rows = list(made.rows)
    rows[index] = rows[index]._replace(**fields)
    return replace(made, rows=tuple(rows))


def weighed(**signals: float) -> Training:
    measured = IDEAL._replace(**signals)
    p = probability(measured)
    return Training(measured, p, outlook(p).margin)


def weights(**fields: object) -> tuple:
    return (parameter("blocks.1.fc.weight")._replace(**fields),)


SMALL, LARGE = (10.0**-k for k in range(8, -1, -1)), (10.0**k for k in range(8, -1, -1))
SLOW = Trial((Course("SGD", 0.1, (2.3, 2.2, 2.1), Outcome.SLOW),), samples=16, asked=True)
CONSTANT = replace(
    blocks(1.0, 1.0, 1.0),
    rows=tuple(
        r._replace(parameters=tuple(p._replace(low=0.1, high=0.1) for p in r.parameters))
        for r in blocks(1.0, 1.0, 1.0).rows
    ),
)
# By rule: a profile that it finds something in, beside it what a second look or a trial said.
FAULTS: dict[str, tuple[GradientProfile, dict[str, object]]] = {
    "GP101": (blocks(*SMALL), {}),
    "GP102": (blocks(*LARGE), {}),
    "GP103": (blocks(1e-3, 1e-2, 1e-1, 1.0, inside="Sigmoid"), {}),
    "GP104": (blocks(1.0, 1.0, 1.0), {"training": weighed(coherence=0.3, shattering=0.7)}),
    "GP106": (blocks(1.0, 1.0, 1.0), {"trial": SLOW}),
    "GP107": (
        profile(row("0", None, status=RowStatus.NOT_RUN), row("1", None, status=RowStatus.NOT_RUN)),
        {},
    ),
    "GP201": (
        replace(
            blocks(0.0, 0.0, 1.0, 1.0),
            rows=tuple(
                r._replace(zero_fraction=1.0) if r.name == "blocks.2" else r
                for r in blocks(0.0, 0.0, 1.0, 1.0).rows
            ),
        ),
        {},
    ),
    "GP202": (changed(1, parameters=weights(gradient_norm=None), gradient_norm=None), {}),
    "GP203": (changed(1, parameters=weights(gradient_norm=None, trainable=False)), {}),
    "GP204": (changed(1, parameters=weights(gradient_norm=None, use=Use.IDLE)), {}),
    "GP205": (changed(1, parameters=weights(gradient_norm=None, use=Use.UNCALLED)), {}),
    "GP206": (
        profile(*(row(k, 1.0, parameter(k, 1.0, None, trainable=False)) for k in "abc")),
        {},
    ),
    "GP301": (changed(1, activation_rms=math.inf, status=RowStatus.NON_FINITE), {}),
    "GP401": (changed(1, parameters=weights(before_norm=True)), {}),
    "GP402": (changed(1, parameters=weights(norm=0.0)), {}),
    "GP404": (changed(1, status=RowStatus.NOT_RUN), {}),
    "GP405": (blocks(1.0, 1.0, 1.0), {"training": Training(reason="a batch of one")}),
    "GP207": (looked_twice(drawn=("Normal.sample()", "blocks.1.fc.weight", False)), {}),
    "GP208": (looked_twice(restarted=("blocks.1.rnn", 8)), {}),
    "GP209": (looked_twice(constant_derivative=True), {}),
    "GP406": (looked_twice(alike=1.0), {}),
    "GP407": (around(warnings=("an integer division",)), {}),
    "GP408": (around(straight=3, losses=(LossProfile("MseLoss", "Addmm"),)), {}),
    "GP409": (around(shared=(("blocks", 6),)), {}),
    "GP610": (
        replace(around(inputs_same=True), further=Further(alike=0.1)), {},
    ),
    "GP611": (around(losses=(LossProfile("CrossEntropy", "Cosine", True, least=2.7),)), {}),
    "GP612": (around(losses=(LossProfile("CrossEntropy", "Dropout", True),)), {}),
    "GP614": (replace(looked_twice(linear=0.9), around=Surroundings(straight=3)), {}),
    "GP613": (looked_twice(added=3e3), {}),
    "GP601": (around(inputs_zero=True), {}),
    "GP602": (around(input_rms=114.0, input_spread=1961.0), {}),
    "GP603": (around(flat=0.93, flat_kind="Tanh"), {}),
    "GP604": (around(silent=0.4), {}),
    "GP605": (around(output_norm=1e6), {}),
    "GP606": (around(losses=(LossProfile("NllLoss", times_guess=4e4),)), {}),
    "GP607": (
        profile(*(row(str(k), 1.0, parameter(str(k), 1.0, 1e-7)) for k in range(4)),
                smallest_gradient=6e-5),
        {},
    ),
    "GP608": (looked_twice(mixing=0.4), {}),
    "GP609": (looked_twice(curvature=80.0, rate=0.1), {}),
    "GP701": (around(softmax_of_one=True), {}),
    "GP702": (around(losses=(LossProfile("NllLoss", "Softmax", True),)), {}),
    "GP703": (around(losses=(LossProfile("NllLoss", "Relu"),)), {}),
    "GP704": (around(losses=(LossProfile("MseLoss", "Sigmoid", outside=0.55),)), {}),
    "GP705": (around(softmax_between=2), {}),
    "GP706": (changed(1, parameters=weights(norm=0.0, gradient_norm=0.0)), {}),
    "GP707": (CONSTANT, {}),
    "GP708": (around(unowned=("hidden[0].weight", "hidden[0].bias")), {}),
    "GP709": (changed(1, input_dependence=0.01, parameters=weights(low=0.1, high=0.9)), {}),
    "GP710": (around(state=StateProfile("blocks.1.fc.weight", 9e17, 300)), {}),
    "GP711": (around(losses=(LossProfile("MseLoss", broadcast=True),)), {}),
    "GP712": (looked_twice(idle=(3, 7), columns=10), {}),
    "GP713": (around(idle_norms=("blocks.1.bn",)), {}),
    "GP714": (around(entropy=0.02), {}),
    "GP715": (around(least_normalised=2), {}),
    "GP615": (around(least_batched=2), {}),
    "GP717": (around(losses=(LossProfile("BinaryCrossEntropyWithLogits", "Addmm", True),)), {}),
    "GP716": (around(dropped=(0.6, 64)), {}),
    "GP718": (around(kink="ReLU"), {}),
    "GP719": (looked_twice(detached=("blocks.1", 8)), {}),
}  # fmt: skip


def told(code: str, idiom: Idiom) -> Finding:
    made, beside = FAULTS[code]
    findings, _ = diagnose(replace(made, idiom=idiom), THRESHOLDS, **beside)
    return next(finding for finding in findings if finding.rule == code)


def test_each_finding_is_worded_for_code_a_spec_and_a_configuration() -> None:
    parts = []
    for code in FAULTS:
        findings = {language: told(code, idiom) for language, idiom in IDIOMS.items()}
        first = findings["spec"]
        sure = f" ({first.certainty})" if first.certainty else ""
        parts += [f"{code} {first.name}{sure}: {first.message}"]
        parts += [f"  {language:6} → {f.advice}" for language, f in findings.items()]
    text = "\n".join([*parts, ""])
    path = GOLDEN / "advice.txt"
    if OVERWRITE:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_rule_that_reads_a_measurement_is_worded() -> None:
    ways = {rule.code for rule in RULES if rule.find or rule.weigh or rule.tried}
    assert ways == set(FAULTS)


@pytest.mark.parametrize("kind", CURES)
def test_no_wording_leaves_a_placeholder(kind: str) -> None:
    cure = Cure(kind, ("blocks.1.fc.weight", "blocks.2.fc.weight"), 0.5, "ReLU")
    for idiom in IDIOMS.values():
        words = worded([cure], replace(blocks(1.0, 1.0, 1.0), idiom=idiom))
        assert words
        assert "$" not in words


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("blocks.0.fc.weight", "model.blocks[0].fc.weight"),
        ("0.weight", "model[0].weight"),
        ("(model).weight", "model.weight"),
        ("layers.3.12.bias", "model.layers[3][12].bias"),
    ],
)
def test_a_parameter_is_named_as_python_reaches_it(name: str, path: str) -> None:
    assert in_python(name) == path


# ---- the code of the advice, run

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


def plain(depth: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    body = [layer for _ in range(depth) for layer in (nn.Linear(8, 8), activation())]
    return nn.Sequential(*body, nn.Linear(8, 4))


def zeros(model: nn.Sequential, *indices: int) -> nn.Sequential:
    for index in indices:
        nn.init.zeros_(model[index].weight)
        nn.init.zeros_(model[index].bias)
    return model


def constant(model: nn.Sequential) -> nn.Sequential:
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.05)
    return model


def scaled(model: nn.Sequential, factor: float) -> nn.Sequential:
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.weight.data.mul_(factor)
    return model


def biased(model: nn.Sequential) -> nn.Sequential:
    nn.init.constant_(model[2].bias, -50.0)
    return model


FAULTY = {
    "GP101": lambda: plain(12, nn.ReLU),
    "GP102": lambda: scaled(plain(30, nn.Identity), 8.0),
    "GP104": lambda: scaled(plain(12, nn.Tanh), 8.0),
    "GP706": lambda: zeros(plain(3, nn.ReLU), 2, 4),
    "GP707": lambda: constant(plain(3, nn.ReLU)),
    "GP201": lambda: biased(plain(3, nn.ReLU)),
}
CALL = re.compile(r"nn\.init\.\w+\([^()]*\)|model\S*\.mul_\([^()]*\)")
GRAVITY = list(Verdict).index


def looked_at(model: nn.Module, x: Tensor = X) -> Report:
    return gradprobe.probe(model, x, deep=True)


def followed(advice: str, cure: Cure, model: nn.Module) -> None:
    """Run the advice's first line of code, and likewise for the other weights that it names."""
    [code, *_] = CALL.findall(advice)
    for name in cure.weights:
        line = code.replace(in_python(cure.weights[0]), in_python(name))
        exec(line, {"nn": nn, "model": model})


@pytest.mark.parametrize("code", FAULTY)
def test_the_code_of_the_advice_makes_it_better(code: str) -> None:
    model = FAULTY[code]()
    before = looked_at(model)
    finding = next(f for f in before.findings if f.rule == code)
    assert "with it: " in finding.advice
    cure = next(c for c in finding.cures if in_python((*c.weights, "-")[0]) in finding.advice)
    followed(finding.advice, cure, model)
    after = looked_at(model)
    assert GRAVITY(after.verdict) < GRAVITY(before.verdict), (finding.advice, after)


def test_scaled_inputs_as_advised_are_healthy() -> None:
    before = looked_at(plain(3, nn.Sigmoid), X * 255)
    finding = next(f for f in before.findings if f.rule == "GP602")
    [code] = re.findall(r"x = .*?1e-6\)", finding.advice)
    names = {"x": X * 255}
    exec(code, names)
    after = looked_at(plain(3, nn.Sigmoid), names["x"])
    assert "GP602" not in {f.rule for f in after.findings}
    assert GRAVITY(after.verdict) <= GRAVITY(before.verdict)


class Block(nn.Module):
    def __init__(self, code: str = "") -> None:
        super().__init__()
        self.fc, self.code = nn.Linear(8, 8), code

    def forward(self, x: Tensor) -> Tensor:
        names = {"x": x, "f": lambda x: torch.tanh(self.fc(x))}
        exec(self.code or "x = f(x)", names)
        return names["x"]


def of_blocks(code: str = "") -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Block(code) for _ in range(20)), nn.Linear(8, 4))


def test_a_skip_is_written_at_the_file_and_line_of_its_class() -> None:
    finding = gradprobe.probe(of_blocks(), X).findings[0]
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = next(k for k, text in enumerate(lines, 1) if text.startswith("class Block"))
    assert re.search(rf"x = x \+ f\(x\) in Block \(\S*test_advice\.py:{line}\)", finding.advice)
    assert looked_at(of_blocks("x = x + f(x)")).verdict is Verdict.HEALTHY


# ---- tried before it is given


def test_what_is_tried_leaves_the_model_as_it_was() -> None:
    model = plain(12, nn.ReLU)
    with unchanged(model, X):
        assert "with it: " in looked_at(model).findings[0].advice


def test_one_pass_tries_nothing() -> None:
    report = gradprobe.probe(plain(12, nn.ReLU), X)
    assert report.findings
    assert not any("with it" in f.advice or "tried" in f.advice for f in report.findings)


def test_every_cure_that_is_tried_has_words() -> None:
    assert set(_WAYS) == set(_SHORT) <= set(CURES)


ONE = Cure("gain", ("0.weight",), 2.0)
OTHER = Cure("norm", ("0.weight",))


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([(ONE, "healthy", 0.97)], "(with it: healthy, 97 %)"),
        ([(ONE, "weak", 0.6), (OTHER, "healthy", 0.9)], "(with it: healthy, 90 %)"),
        ([(ONE, "vanishing", 0.1)], "(tried and not enough alone: another gain)"),
        ([(ONE, "vanishing", 0.1), (OTHER, "dead", None)], "(tried: not enough alone)"),
    ],
)
def test_an_advice_says_what_came_of_it(
    trials: list[tuple[Cure, str, float | None]], words: str
) -> None:
    finding = handmade_finding(cures=(ONE, OTHER), advice="raise it, or normalise")
    tried = [TriedCure(cure, verdict, chance, ("GP101",)) for cure, verdict, chance in trials]
    advised = with_trials(finding, tried, Verdict.VANISHING, with_reach(1e-9))
    assert words in advised.advice
    assert ("raise it" in advised.advice) == ("tried:" in words)


def test_scaled_inputs_are_standard_in_each_feature() -> None:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)) * 50 + torch.arange(4)
    scaled = cured(module_subject(nn.Linear(4, 2), x), Cure("scale"))
    assert scaled is not None
    assert torch.allclose(scaled.args[0].mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(scaled.args[0].std(0), torch.ones(4))
    tokens = module_subject(nn.Embedding(9, 2), torch.arange(8)[None])
    assert cured(tokens, Cure("scale")) is None


# ---- of what was measured


def test_a_gate_is_not_the_sigmoid_that_shrinks_a_gradient() -> None:
    """Beside another activation a sigmoid multiplies; alone the gradient goes through it."""
    small = [10.0**-k for k in range(8, -1, -1)]
    alone = blocks(*small, inside="Sigmoid")
    gated = replace(
        alone, rows=tuple(r._replace(contains=(*r.contains, "SiLU")) for r in alone.rows)
    )
    said = {made is alone: diagnose(made, THRESHOLDS)[0][0].advice for made in (alone, gated)}
    assert "Sigmoid" in said[True]
    assert "Sigmoid" not in said[False]


def test_a_skip_that_was_measured_is_not_said_to_be_missing() -> None:
    made = blocks(1.0, 1.0, 1.0, inside="BatchNorm2d")
    for bare, missing in ((0.3, False), (0.9, True)):
        failing = Signals(0.0, 2 * bare, 6.0, 3.0, 0.0, 0.7 * bare, 0.3)
        p = probability(failing)
        training = Training(failing, p, outlook(p).margin)
        findings, _ = diagnose(made, THRESHOLDS, training=training)
        assert ("wrap each block" in findings[0].advice) == missing


def test_an_average_pool_is_not_blamed() -> None:
    """1/√(h·w) at a pool is no loss: the weights before it see the sum over its positions."""
    pool = row("pool", 100.0, bare=True, kind="AdaptiveAvgPool2d")
    rows = [row(str(k), 0.9) for k in range(3)]
    made = profile(*rows, pool, row("head", 100.0))
    assert made.reach == pytest.approx(9e-3)
    assert made.unpooled_reach == pytest.approx(1.0)
    assert diagnose(made, THRESHOLDS) == ((), Verdict.HEALTHY)
    lost = profile(*[r._replace(gradient_norm=9e-7) for r in rows], pool, row("head", 100.0))
    assert diagnose(lost, THRESHOLDS)[1] is Verdict.HEALTHY  # all of it at the pool
    faded = profile(row("0", 1e-9), row("1", 1e-5), row("2", 0.9), pool, row("head", 100.0))
    [finding] = diagnose(faded, THRESHOLDS)[0]
    assert finding.rule == "GP101"
    assert "pool" not in finding.message


def test_what_stands_at_the_output_is_no_cause_of_what_is_lost_inside() -> None:
    """A softmax before the loss lies behind the trunk; raw inputs lie in front of it.

    A dropout keeps a gradient's mean size.
    """
    small = [10.0**-k for k in range(8, -1, -1)]
    softmax = Surroundings(losses=(LossProfile("NllLoss", "Softmax", True),))
    dropout = Surroundings(dropped=(0.2, 32))
    raw = Surroundings(input_rms=500.0)
    for surroundings, first in ((softmax, False), (dropout, False), (raw, True)):
        findings, _ = diagnose(replace(blocks(*small), around=surroundings), THRESHOLDS)
        inside = next(finding for finding in findings if finding.rule == "GP101")
        assert inside.advice.startswith("mend GP602") == first
        assert ("kaiming" in inside.advice) != first


# ---- how sure, and how many


@pytest.mark.parametrize(
    ("value", "threshold", "word"),
    [
        (1e-9, 1e-4, "likely"),
        (5e-5, 1e-4, "possible"),
        (1e5, 1e4, "likely"),
        (0.03, 0.4, "likely"),
        (0.35, 0.4, "possible"),
        (1.0, 0.8, "likely"),
        (0.85, 0.8, "possible"),
        (0.0, None, "certain"),
        (math.nan, 1.0, "certain"),
    ],
)
def test_a_finding_says_how_sure_it_is(value: float, threshold: float, word: str) -> None:
    clue = Clue("message", "advice", None, value, threshold)
    assert certainty(Severity.ERROR, clue) == word
    assert certainty(Severity.INFO, clue) == ""


def test_three_findings_are_shown_and_the_others_named() -> None:
    told = [handmade_finding(rule=f"GP70{k}", name=f"n{k}", message=f"m{k}") for k in range(5)]
    made = report(with_reach(1e-9), told, Verdict.VANISHING)
    text = render_report(made)
    assert [f"m{k}" in text for k in range(5)] == [True, True, True, False, False]
    assert "2 more: GP703 n3, GP704 n4" in text
    assert "m4" in render_report(made, everything=True)


def test_a_gradient_that_underflows_is_raised_and_not_lowered() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(60) for layer in (nn.Linear(8, 8), nn.Tanh())]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.1
    report = gradprobe.probe(model, torch.randn(4, 8))
    assert report.reach == 0
    factor = re.search(r"raise the init's gain: .*mul_\((\d+)\)", report.findings[0].advice)
    assert factor
    assert 10 < int(factor[1]) < 20  # 1 / (0.1 / √3) where nothing is lost to rounding
