"""Each rule seen firing and seen silent, on profiles made by hand and on real networks."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers.commands import Result
from helpers.handmade import chain, judged, parameter, profile, row, with_reach
from torch import Tensor, nn

import gradprobe
from gradprobe.errors import Place
from gradprobe.measure.profile import GradientProfile, RowStatus, Use
from gradprobe.spec.network import CheckSpec, Ignore, NetworkSpec
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Finding, Severity, Verdict
from gradprobe.verdict.rules.rule import Rule, Selection
from gradprobe.verdict.rules.table import RULES

BY_CODE = {rule.code: rule for rule in RULES}
Parse = Callable[[str], NetworkSpec]


def codes(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in findings}


# ---- profiles made by hand

DEAD_ROW = {"zero_fraction": 1.0, "kind": "ReLU", "bare": True}
ZERO = parameter("b.weight", norm=0.0, gradient=0.3)
STUCK = parameter("b.fc1.weight", norm=1.0, gradient=0.0)
USELESS = parameter("a.bias", gradient=0.0, dimensions=1, before_norm=True)

FROZEN = parameter("w", gradient=None, trainable=False)
IDLE = parameter("b.experts.1.w", gradient=None)._replace(use=Use.IDLE)
FIRES: dict[str, dict[str, GradientProfile]] = {
    "GP101": {
        "small": with_reach(9e-5),
        "tiny": with_reach(1e-200),
        "underflow": chain(0.0, 0.0, 3e-38, 1e-20, 1.0),
        "one drop": chain(1e-6, 1e-6, 1.0),
        "a gap": chain(1e-6, None, 1.0),
    },
    "GP102": {
        "large": with_reach(1.1e4),
        "huge": with_reach(1e200),
        "beyond float64": chain(1e300, 1.0, 1e-300),
        "a gap": chain(1e6, None, 1.0),
    },
    "GP103": {
        "weak": with_reach(9e-3),
        "strong": with_reach(1.1e2),
        "a gap": chain(1e-3, None, 1.0),
    },
    "GP201": {
        "dead ReLU": profile(row("a", 0.0), row("relu", 1.0, **DEAD_ROW), row("b"), row("head")),
        "flat slope": profile(row("a", 0.0), row("sign", 1.0, bare=True), row("b"), row("head")),
        "stuck weight": profile(row("a"), row("b", 1.0, STUCK), row("head")),
        "behind the head": profile(
            row("a", 0.0), row("b", 0.0), row("head", 0.0), row("relu", 1.0, **DEAD_ROW)
        ),
        "nothing at all": chain(0.0, 0.0, 0.0),
        "behind a zero head": profile(
            row("a", 0.0), row("b", 0.0), row("head", 1.0, ZERO), still_zero=("a",)
        ),
        "stuck behind a zero branch": profile(
            row("a"), row("b", 1.0, STUCK, ZERO), row("head"), still_zero=(STUCK.name,)
        ),
    },
    "GP202": {
        "a parameter": profile(row("a", 1.0, parameter("a.weight", gradient=None)), row("b")),
        "an output": profile(
            row("a"), row("b"), orphans=(parameter("w", gradient=None)._replace(unread="output"),)
        ),
    },
    "GP107": {
        "not followed": profile(*[row(n, None, status=RowStatus.NOT_RUN) for n in "abc"]),
        "one followed": profile(row("a"), row("b", None, status=RowStatus.NOT_RUN)),
        "one row": profile(row("a", 1.0, parameter("a.v"), parameter("a.w"))),
        "zeros": profile(row("a", 0.0), row("b", 1.0, ZERO), row("head"), still_zero=()),
    },
    "GP203": {"weight": profile(row("a", 1.0, FROZEN), row("b"), row("head"))},
    "GP206": {"all": profile(*[row(name, 1.0, FROZEN) for name in "abc"])},
    "GP204": {"expert": profile(row("a"), row("b", 1.0, parameter("b.w"), IDLE), row("head"))},
    "GP205": {
        "a row": profile(
            row("a"), row("b", None, parameter("w", gradient=None), status=RowStatus.NOT_RUN)
        ),
        "no row": profile(row("a"), row("b"), orphans=(parameter("scale", gradient=None),)),
    },
    "GP301": {
        "activation": profile(row("a"), row("b", activation_rms=math.nan), row("head")),
        "gradient": chain(math.nan, 1.0, 1.0),
        "infinity": chain(math.inf, 1.0, 1.0),
        "loss": profile(row("a"), row("b"), row("head"), loss=math.nan),
        "weight": profile(row("a"), row("b", 1.0, parameter("b.w", norm=math.inf)), row("head")),
        "weight gradient": profile(row("a", 1.0, parameter("w", gradient=math.inf)), row("head")),
    },
    "GP401": {"bias": profile(row("a", 1.0, parameter("w"), USELESS), row("head"))},
    "GP402": {"weight": profile(row("a"), row("b", 1.0, ZERO), row("head"))},
    "GP404": {"not called": profile(row("a"), row("b", None, status=RowStatus.NOT_RUN))},
}

SILENT: dict[str, dict[str, GradientProfile]] = {
    "GP101": {
        "at the edge": chain(1e-4, 1.0, 1.0),
        "NaN": chain(math.nan, 1.0, 1.0),
        "no gradient": chain(None, 1.0, 1.0),
        "a dead row is why": FIRES["GP201"]["dead ReLU"],
        "zero-initialised head": profile(row("a", 0.0), row("b", 0.0), row("head", 1.0, ZERO)),
        "large": with_reach(1e9),
    },
    "GP102": {
        "at the edge": chain(1e4, 1.0, 1.0),
        "infinite": chain(math.inf, 1.0, 1.0),
        "NaN": chain(math.nan, 1.0, 1.0),
        "small": with_reach(1e-9),
    },
    "GP103": {
        "lower edge": chain(1e-2, 1.0, 1.0),
        "upper edge": chain(1e2, 1.0, 1.0),
        "vanishing": with_reach(9e-5),
        "exploding": with_reach(1.1e4),
        "one": chain(1.0, 1.0, 1.0),
        "NaN": chain(1.0, 1.0, math.nan),
    },
    "GP201": {
        "underflow": FIRES["GP101"]["underflow"],
        "zero-initialised weight": profile(row("a", 0.0), row("b", 1.0, ZERO), row("head")),
        "zero-initialised head": profile(row("a", 0.0), row("b", 0.0), row("head", 1.0, ZERO)),
        "zero branch": profile(row("a"), row("b", 1.0, STUCK, ZERO), row("head")),
        "bias before a norm": profile(row("a", 1.0, parameter("w"), USELESS), row("head")),
        "no path": chain(None, 1.0, 1.0),
        "frozen": profile(
            row("a", 1.0, parameter("w", gradient=None, trainable=False)), row("b"), row("head")
        ),
    },
    "GP202": {
        "frozen": profile(row("a", 1.0, parameter("w", gradient=None, trainable=False)), row("b")),
        "frozen orphan": profile(
            row("a"), row("b"), orphans=(parameter("s", gradient=None, trainable=False),)
        ),
        "zero": profile(row("a", 0.0, parameter("w", gradient=0.0)), row("b")),
        "no parameters": profile(row("a"), row("b", None, bare=True), row("head")),
        "an idle expert": profile(row("a"), row("b", 1.0, parameter("b.w"), IDLE), row("head")),
    },
    "GP107": {
        "dead": FIRES["GP201"]["dead ReLU"],
        "underflow": FIRES["GP101"]["underflow"],
        "one layer": profile(row("a")),
    },
    "GP203": {"no path": profile(row("a", 1.0, parameter("w", gradient=None)), row("b"))},
    "GP206": {"but one": profile(row("a", 1.0, FROZEN), row("b", 1.0, parameter("w")))},
    "GP205": {"a parameter": FIRES["GP202"]["a parameter"]},
    "GP204": {"frozen": profile(row("a", 1.0, IDLE._replace(trainable=False)), row("b"))},
    "GP301": {
        "zeros": chain(0.0, 0.0, 0.0),
        "the largest numbers": chain(1.7e308, 1.0, 1.0),
        "no numbers": profile(row("a", None, activation_rms=None), row("b"), row("head")),
    },
    "GP401": {"bias": profile(row("a", 1.0, parameter("a.bias", gradient=0.0)), row("head"))},
    "GP402": {
        "no gradient either": profile(row("a", 1.0, parameter("w", norm=0.0, gradient=0.0))),
        "no path": profile(row("a", 1.0, parameter("w", norm=0.0, gradient=None))),
        "bias": profile(row("a", 1.0, parameter("a.bias", norm=0.0, gradient=1.0))),
        "bias of an attention": profile(
            row("a", 1.0, parameter("a.in_proj_bias", norm=0.0, gradient=1.0))
        ),
    },
    "GP404": {
        "never used": profile(
            row("a"), row("b", None, parameter("w", gradient=None), status=RowStatus.NOT_RUN)
        )
    },
}  # fmt: skip


def cases(table: dict[str, dict]) -> list:
    return [
        pytest.param(code, case, id=f"{code}-{name}")
        for code, named in table.items()
        for name, case in named.items()
    ]


@pytest.mark.parametrize(("code", "measured"), cases(FIRES))
def test_a_rule_fires(code: str, measured: GradientProfile) -> None:
    findings, verdict = judged(measured)
    assert code in codes(findings)
    rule = BY_CODE[code]
    if rule.verdict:
        assert verdict == rule.verdict
    [finding, *_] = [f for f in findings if f.rule == code]
    assert (finding.name, finding.severity) == (rule.name, rule.severity)
    assert finding.message
    assert finding.advice


@pytest.mark.parametrize(
    ("kind", "advice"), [("LSTMCell", "forget gate"), ("RNNCell", "LSTM or GRU"), ("Block", "gain")]
)
def test_what_fades_from_call_to_call_of_a_cell_is_mended_in_time(kind: str, advice: str) -> None:
    calls = [row(f"cell ({n})", 10 ** (n - 9), kind=kind, bare=True, call=n) for n in range(2, 10)]
    rows = [row("cell", 1e-9, kind=kind), *calls, row("mid"), row("last"), row("head")]
    [finding], _ = judged(profile(*rows))
    assert advice in finding.advice


@pytest.mark.parametrize(("code", "measured"), cases(SILENT))
def test_a_rule_is_silent(code: str, measured: GradientProfile) -> None:
    assert code not in codes(judged(measured)[0])


# ---- real networks


class Case(NamedTuple):
    """A network that a rule is tried on, as a spec's layers or as a module of 4 features."""

    network: str | Callable[[], nn.Module]
    verdict: str
    codes: str


def stack(block: str, times: int = 20, loss: str = "projection") -> str:
    return f"""
input: {{shape: [32]}}
layers:
  - Linear: {{out_features: 32}}
  - repeat: {{times: {times}, layers: [{block}]}}
  - Linear: {{out_features: 10}}
loss: {loss}
"""


class LoRA(nn.Linear):
    """A frozen weight and a low-rank pair, of which one starts at zero."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(2, 4))
        self.lora_b = nn.Parameter(torch.zeros(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.lora_a.T @ self.lora_b.T


class Function(nn.Module):
    """A row that applies ``f``."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


def lin() -> nn.Linear:
    return nn.Linear(4, 4)


def between(middle: nn.Module) -> nn.Sequential:
    """Two layers, ``middle``, two layers."""
    torch.manual_seed(0)
    return nn.Sequential(lin(), lin(), middle, lin(), lin())


def zero_head() -> nn.Module:
    model = nn.Sequential(lin(), nn.Tanh(), lin(), nn.Tanh(), lin())
    nn.init.zeros_(model[4].weight)
    return model


def frozen() -> nn.Module:
    return frozen_first().requires_grad_(False)


def frozen_first() -> nn.Module:
    return nn.Sequential(lin().requires_grad_(False), lin(), lin(), lin())


class Mixture(nn.Module):
    """Two experts, of which the router asks the first alone."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(lin(), nn.Tanh()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.experts[0](x)


class Functional(nn.Module):
    """Uses a layer's weight and never calls the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = lin(), lin(), lin(), lin()

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(self.a(x), self.b.weight, self.b.bias)
        return self.d(self.c(x))


def functional() -> nn.Module:
    torch.manual_seed(0)
    return Functional()


def starved() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(lin(), Mixture(), lin())


def unused() -> nn.Module:
    model = nn.Sequential(lin(), lin(), lin())
    model[1].register_parameter("spare", nn.Parameter(torch.ones(2)))
    return model


def scripted() -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return nn.Sequential(lin(), torch.jit.script(nn.Sequential(lin(), lin())))


def dead_end() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(lin(), nn.ReLU(), lin(), nn.ReLU(), lin(), nn.ReLU())
    nn.init.constant_(model[4].bias, -100)
    return model


def linear(init: str = "") -> str:
    return "Linear: {out_features: 32" + (f", init: {{{init}}}" if init else "") + "}"


LIN = linear()
BIASED = linear("bias: {constant: {val: -100}}")
NARROW = linear("weight: {variance_scaling: {scale: 0.4}}")
ZERO_BRANCH = f"residual: {{layers: [{LIN}, ReLU, {LIN}], zero_init: true}}"


def row_of(f: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: between(Function(f))


REAL: dict[str, dict[str, Case]] = {
    "GP101": {
        "sigmoids": Case(stack(f"{LIN}, Sigmoid"), "vanishing", "GP101"),
        "relu": Case(stack(f"{LIN}, ReLU"), "vanishing", "GP101"),
        "underflow": Case(stack(f"{LIN}, Sigmoid", 70), "vanishing", "GP101"),
        "one row": Case(row_of(lambda x: 1e-6 * x), "vanishing", "GP101"),
    },
    "GP102": {
        "normal": Case(stack(linear("weight: normal")), "exploding", "GP102"),
        "one row": Case(row_of(lambda x: 1e6 * x), "exploding", "GP102"),
    },
    "GP103": {
        "weak": Case(stack(f"{NARROW}, Tanh", 14), "weak", "GP103"),
        "one row": Case(row_of(lambda x: 1e3 * x), "weak", "GP103"),
    },
    "GP201": {
        "dead ReLU": Case(stack(f"{LIN}, ReLU, {BIASED}, ReLU", 2), "dead", "GP201"),
        "dead branch": Case(stack(f"residual: [{BIASED}, ReLU, {LIN}]", 3), "dead", "GP201"),
        "behind the head": Case(dead_end, "dead", "GP201 GP604"),
        "all zeros": Case(stack(linear("weight: zeros, bias: zeros")), "dead", "GP201 GP706"),
        "rounded": Case(row_of(torch.round), "dead", "GP201"),
    },
    "GP202": {
        "detached": Case(row_of(torch.detach), "disconnected", "GP202"),
    },
    "GP203": {"frozen": Case(frozen_first, "healthy", "GP203")},
    "GP206": {"frozen": Case(frozen, "disconnected", "GP206 GP203")},
    "GP204": {"expert": Case(starved, "healthy", "GP204")},
    "GP205": {"unused": Case(unused, "healthy", "GP205")},
    "GP107": {
        "one row": Case(lambda: nn.GRU(4, 4), "unmeasured", "GP107"),
        "scripted": Case(scripted, "unmeasured", "GP107 GP404"),
    },
    "GP301": {
        "log": Case(row_of(torch.log), "non-finite", "GP301"),
        "root": Case(row_of(lambda x: (x * 0).sqrt() + x), "non-finite", "GP301"),
        "overflow": Case(stack(linear("weight: {normal: {std: 1.0e+6}}")), "non-finite", "GP301"),
    },
    "GP401": {"batch norm": Case(stack(f"{LIN}, BatchNorm1d, ReLU", 3), "healthy", "GP401")},
    "GP402": {
        "zero branch": Case(stack(ZERO_BRANCH), "healthy", "GP402"),
        "zero head": Case(zero_head, "healthy", "GP402"),
        "LoRA": Case(
            lambda: nn.Sequential(LoRA(), nn.Tanh(), LoRA(), LoRA()), "healthy", "GP402 GP203"
        ),
    },
    "GP404": {"used, not called": Case(functional, "healthy", "GP404")},
}

HEALTHY: dict[str, str | Callable[[], nn.Module]] = {
    "residual tanh": stack(f"residual: [{LIN}, Tanh]"),
    "pre-norm": stack(f"residual: [LayerNorm, {LIN}, GELU, {LIN}]"),
    "orthogonal": stack(linear("weight: orthogonal")),
    "He": stack(linear("weight: kaiming_normal, bias: zeros") + ", ReLU"),
    "cross entropy": stack(f"residual: [{LIN}, Tanh]", loss="cross_entropy"),
    "one layer": lambda: nn.Linear(4, 2),
    "no bias before the norm": stack(
        "Linear: {out_features: 32, bias: false}, BatchNorm1d, ReLU", 3
    ),
    "layer norm keeps the bias": stack(f"residual: [{LIN}, LayerNorm, Tanh]", 3),
}


def probed(case: Case, parse: Parse) -> gradprobe.Report:
    if isinstance(case.network, str):
        return gradprobe.probe(parse(case.network))
    model = case.network()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    return gradprobe.probe(model, x)


@pytest.mark.parametrize(("code", "case"), cases(REAL))
def test_a_rule_fires_on_a_real_network(parse: Parse, code: str, case: Case) -> None:
    report = probed(case, parse)
    assert report.verdict == case.verdict
    assert code in codes(report.findings)
    assert codes(report.findings) == set(case.codes.split())
    assert report.fails(Severity.ERROR) == (BY_CODE[code].severity == Severity.ERROR)


@pytest.mark.parametrize("name", HEALTHY)
def test_every_rule_is_silent_on_a_healthy_network(parse: Parse, name: str) -> None:
    report = probed(Case(HEALTHY[name], "healthy", ""), parse)
    assert report.findings == ()
    assert report.verdict == Verdict.HEALTHY
    assert report.healthy


def message_of(parse: Parse, code: str, name: str) -> tuple[str, str | None]:
    finding = probed(REAL[code][name], parse).findings[0]
    return finding.message, finding.row


def test_a_dead_row_is_named(parse: Parse) -> None:
    message, name = message_of(parse, "GP201", "dead ReLU")
    assert "row 1.1" in message  # the later of the two blocks with a dead ReLU
    assert "all zero" in message
    assert name == "1.1"
    message, name = message_of(parse, "GP201", "behind the head")
    assert "row 5" in message
    message, name = message_of(parse, "GP201", "dead branch")
    assert "weight" in message
    assert name == "1.0"


def test_what_passes_a_dead_row_or_reaches_a_stuck_weight_is_worth_zero() -> None:
    """Its slope is 0 for every sample, so 0 is what the chain rule multiplies by."""
    for name, measured in FIRES["GP201"].items():
        values = [found.value for found in judged(measured)[0] if found.rule == "GP201"]
        assert values, name
        assert set(values) == {0.0}, name


def test_the_one_row_that_loses_the_gradient_is_named(parse: Parse) -> None:
    message, name = message_of(parse, "GP101", "one row")
    assert "most of it across row 2" in message
    assert name == "2"
    message, name = message_of(parse, "GP102", "one row")
    assert "most of it across row 2" in message


def test_a_loss_spread_over_all_rows_is_told_as_a_factor_per_row(parse: Parse) -> None:
    message, name = message_of(parse, "GP101", "sigmoids")
    assert "per row" in message
    assert name == "0"


def test_a_bias_before_a_batch_norm_in_eval_mode_is_of_use() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(lin(), nn.BatchNorm1d(4), nn.Tanh(), lin(), lin())
    x = torch.randn(8, 4)
    for scale in (1e-9, 1.0, 1e9):
        train, evaluated = (
            gradprobe.probe(model.train(mode), x, loss=lambda y, s=scale: s * y.square().sum())
            for mode in (True, False)
        )
        assert codes(train.findings) == {"GP401"}
        assert codes(evaluated.findings) == {"GP713"}


def test_an_underflow_says_that_a_larger_dtype_shows_more(parse: Parse) -> None:
    message, _ = message_of(parse, "GP101", "underflow")
    assert "float64" in message


def test_a_dead_relu_in_half_precision_is_dead_and_not_an_underflow() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        torch.manual_seed(0)
        model = nn.Sequential(lin(), nn.ReLU(), lin(), nn.ReLU(), lin()).to(dtype)
        nn.init.constant_(model[2].bias, -100)
        assert gradprobe.probe(model, torch.randn(8, 4, dtype=dtype)).verdict == "dead"


# ---- nothing that is not finite passes as healthy


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "where",
    ["gradient", "activation", "weight", "weight gradient", "loss", "orphan", "orphan gradient"],
)
def test_no_nan_or_infinity_is_healthy(where: str, position: int, bad: float) -> None:
    rows = [row(name) for name in ("a", "b", "c", "head")]
    changed: dict[str, object] = {}
    if where == "gradient":
        rows[position] = row("x", bad)
    elif where == "activation":
        rows[position] = row("x", activation_rms=bad, status=RowStatus.NON_FINITE)
    elif where == "weight":
        rows[position] = row("x", 1.0, parameter("w", norm=bad))
    elif where == "weight gradient":
        rows[position] = row("x", 1.0, parameter("w", gradient=bad))
    elif where == "loss":
        changed = {"loss": bad}
    elif where == "orphan":
        changed = {"orphans": (parameter("w", norm=bad),)}
    else:
        changed = {"orphans": (parameter("w", gradient=bad),)}
    findings, verdict = judged(profile(*rows, **changed))
    assert verdict == Verdict.NON_FINITE
    assert codes(findings) >= {"GP301"}


def test_a_reach_beyond_float64_is_exploding_and_not_healthy() -> None:
    assert judged(chain(1e300, 1.0, 1e-300))[1] == Verdict.EXPLODING


def nan_at(*names: str) -> GradientProfile:
    rows = [
        row(name, activation_rms=math.nan if name in names else 1.0) for name in "a b c d".split()
    ]
    return profile(*rows)


def test_the_maker_of_the_first_nan_is_named_and_not_those_that_pass_it_on() -> None:
    [finding, *_] = judged(nan_at("b", "c", "d"))[0]
    assert finding.row == "b"
    assert "row b" in finding.message


def test_the_maker_on_the_way_back_is_the_row_behind_which_all_is_finite() -> None:
    rows = [row("a", math.nan), row("b", math.nan), row("c"), row("d")]
    [finding, *_] = judged(profile(*rows))[0]
    assert finding.row == "c"
    assert "backward" in finding.message


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: x.abs().log() * float("inf") * 0, "row 2 (Function)"),
        (lambda x: (x * 0).sqrt() + x, "backward pass through row 2"),
    ],
    ids=["forward", "backward"],
)
@pytest.mark.parametrize("level", ["blocks", "leaves"])
def test_the_row_of_a_real_network_that_makes_the_first_nan_is_named(
    f: Callable[[Tensor], Tensor], words: str, level: str
) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    report = gradprobe.probe(between(Function(f)), x, level=level)
    assert report.verdict == "non-finite"
    assert words in report.findings[0].message
    assert report.findings[0].row == "2"


def test_the_leaf_that_makes_the_first_nan_is_named_and_no_row_with_a_like_name() -> None:
    layers = [lin(), Function(lambda x: x * math.nan), *(lin() for _ in range(8))]
    block = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)
    model = nn.Sequential(*layers, block, lin())
    [finding] = gradprobe.probe(model, torch.randn(2, 3, 4), level="leaves").findings
    assert finding.row == "1"
    with torch.no_grad():
        model[1].f = lambda x: x
        block.linear1.bias.fill_(3e38)
        block.linear1.weight.fill_(3e38)
    findings = gradprobe.probe(model, torch.randn(2, 3, 4), level="leaves").findings
    assert findings[0].row == "10.linear1"


def test_nan_in_the_input_blames_the_input_and_no_row() -> None:
    x = torch.full((3, 4), math.nan)
    report = gradprobe.probe(nn.Sequential(lin(), lin(), lin()), x)
    assert report.verdict == "non-finite"
    assert "input" in report.findings[0].message


def test_a_nan_that_the_loss_makes_on_the_way_back_blames_the_loss() -> None:
    x = torch.randn(3, 4)
    model = nn.Sequential(lin(), lin(), lin())
    report = gradprobe.probe(model, x, loss=lambda y: (y * 0).sum().sqrt())
    assert report.verdict == "non-finite"
    assert "loss" in report.findings[0].message


def test_an_infinite_gradient_of_a_parameter_of_no_row_is_found() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = lin(), lin(), lin()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x))) + self.scale.sqrt()

    report = gradprobe.probe(Scaled(), torch.randn(3, 4))
    assert report.verdict == "non-finite"
    assert "scale" in report.findings[0].message


# ---- thresholds, verdicts, ignores

EDGES = [
    (1e-4, "vanishing", Verdict.VANISHING, Verdict.WEAK),
    (1e-2, "weak_low", Verdict.WEAK, Verdict.HEALTHY),
    (1e2, "weak_high", Verdict.HEALTHY, Verdict.WEAK),
    (1e4, "exploding", Verdict.WEAK, Verdict.EXPLODING),
]


@pytest.mark.parametrize(("edge", "name", "below", "above"), EDGES)
def test_the_bands_meet_at_their_thresholds(
    edge: float, name: str, below: Verdict, above: Verdict
) -> None:
    def verdict_at(reach: float) -> Verdict:
        findings, verdict = judged(chain(reach, 1.0, 1.0))
        for finding in findings:
            assert finding.value == reach
        return verdict

    assert verdict_at(math.nextafter(edge, 0)) == below
    assert verdict_at(math.nextafter(edge, math.inf)) == above
    assert verdict_at(edge) == (above if edge < 1 else below)  # the edge is on the healthier side


@pytest.mark.parametrize(
    ("reach", "thresholds", "verdict"),
    [
        (1e-3, {"vanishing": 1e-2}, Verdict.VANISHING),
        (1e-5, {"vanishing": 1e-6}, Verdict.WEAK),
        (1e-3, {"weak_low": 1e-4}, Verdict.HEALTHY),
        (20.0, {"weak_high": 10.0}, Verdict.WEAK),
        (200.0, {"exploding": 150.0}, Verdict.EXPLODING),
        (1e7, {"exploding": 1e8}, Verdict.WEAK),
        (1.0, {"vanishing": 2.0, "weak_low": 3.0}, Verdict.VANISHING),
    ],
)
def test_a_spec_s_own_thresholds_win(
    reach: float, thresholds: dict[str, float], verdict: Verdict
) -> None:
    findings, found = judged(chain(reach, 1.0, 1.0), CheckSpec(thresholds=thresholds))
    assert found == verdict
    for finding in findings:
        assert finding.threshold in {1e-4, 1e-2, 1e2, 1e4, *thresholds.values()}


def test_the_worst_finding_gives_the_verdict_and_the_gravest_comes_first() -> None:
    measured = profile(
        row("a", 1e-6, parameter("a.weight", norm=0.0)),
        row("b", 1.0, parameter("b.bias", before_norm=True)),
        row("c", 1.0, parameter("c.weight", gradient=None)),
        row("head"),
    )
    findings, verdict = judged(measured)
    assert codes(findings) == {"GP101", "GP202", "GP401", "GP402"}
    assert verdict == Verdict.DISCONNECTED
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities, reverse=True)


def test_an_error_comes_before_a_warning_whatever_the_order_of_the_rules() -> None:
    measured = profile(
        row("a", 1e-3), row("b", 1.0, parameter("w", gradient=None)), row("c"), row("head")
    )
    assert [finding.name for finding in judged(measured)[0]] == ["disconnected", "weak"]


@pytest.mark.parametrize("rule", ["GP101", "vanishing"])
def test_an_ignored_finding_keeps_the_verdict_and_does_not_fail(rule: str) -> None:
    check = CheckSpec(ignore=(Ignore(rule, "it is meant to"),))
    findings, verdict = judged(with_reach(1e-9), check)
    [finding] = findings
    assert finding.ignored == "it is meant to"
    assert verdict == Verdict.VANISHING
    report = gradprobe.Report("x", with_reach(1e-9), findings, verdict)
    assert report.healthy
    assert not report.fails(Severity.INFO)


def test_ignoring_one_rule_leaves_the_others() -> None:
    check = CheckSpec(ignore=(Ignore("GP402", "zero by design"),))
    measured = profile(row("a", 1e-6), row("b", 1.0, ZERO), row("c"), row("head"))
    findings, _ = judged(measured, check)
    assert {f.rule: f.ignored for f in findings} == {"GP101": None, "GP402": "zero by design"}


def test_an_ignore_that_finds_nothing_is_reported_where_it_stands() -> None:
    check = CheckSpec(ignore=(Ignore("GP402", "zero by design", Place("net.yaml", 9, 7)),))
    [found], verdict = judged(with_reach(1.0), check)
    assert (found.name, found.severity) == ("unused-ignore", Severity.WARNING)
    assert (found.line, found.column) == (9, 7)
    assert "zero by design" in found.message
    assert verdict == Verdict.HEALTHY


def test_an_ignore_by_prefix_covers_every_code_that_begins_so() -> None:
    check = CheckSpec(ignore=(Ignore("GP1", "a legacy network"),))
    [found], _ = judged(with_reach(1e-9), check)
    assert found.ignored == "a legacy network"


@pytest.mark.parametrize(
    ("select", "ignore", "found"),
    [
        (["ALL"], [], ["GP101", "GP402"]),
        (["ALL"], ["GP101"], ["GP402"]),
        (["GP4"], [], ["GP402"]),
        (["GP1", "GP402"], ["GP4"], ["GP101", "GP402"]),  # the longer word wins
        (["GP101"], ["GP101"], []),  # and a tie is ignored
        (["vanishing"], ["ALL"], ["GP101"]),
        ([], [], []),
    ],
)
def test_rules_are_selected_and_ignored_by_prefix(
    select: list[str], ignore: list[str], found: list[str]
) -> None:
    measured = profile(row("a", 1e-6), row("b", 1.0, ZERO), row("c"), row("head"))
    selection = Selection(tuple(select), tuple(ignore))
    findings, verdict = diagnose(measured, THRESHOLDS, None, selection)
    assert [finding.rule for finding in findings] == found
    assert verdict == Verdict.VANISHING  # which no selection changes


def spec_with(tmp_path: Path, check: str, block: str = "") -> str:
    path = tmp_path / "net.yaml"
    path.write_text(stack(block or f"{LIN}, Sigmoid", 20) + check)
    return str(path)


def test_on_the_command_line_an_ignore_changes_the_exit_code_alone(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    plain = run("probe", spec_with(tmp_path, ""))
    check = "check:\n  ignore:\n    - {rule: GP101, reason: a lecture's bad example}\n"
    ignored = run("probe", spec_with(tmp_path, check))
    assert (plain.code, ignored.code) == (1, 0)
    for ended in (plain, ignored):
        assert "\nvanishing" in ended.out
    assert "a lecture's bad example" in ignored.out


def test_on_the_command_line_a_threshold_changes_the_verdict(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    check = "check:\n  thresholds: {vanishing: 1.0e-29, weak_low: 1.0e-28}\n"
    ended = run("probe", spec_with(tmp_path, check))
    assert ended.code == 0
    assert "\nhealthy" in ended.out


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("{rule: GP999, reason: why not}", "GP999"),
        ("{rule: vanishin, reason: why not}", "vanishing"),
        ("{rule: GP101}", "reason"),
        ("{rule: GP101, reason: ''}", "reason"),
        ("{reason: why not}", "rule"),
        ("{rule: GP101, reason: why not, until: tomorrow}", "until"),
    ],
)
def test_an_ignore_needs_a_rule_that_there_is_and_a_reason(
    run: Callable[..., Result], tmp_path: Path, entry: str, word: str
) -> None:
    ended = run("probe", spec_with(tmp_path, f"check:\n  ignore:\n    - {entry}\n"))
    assert ended.code == 2
    assert word in ended.err


@pytest.mark.parametrize(
    ("fail_on", "block", "code"),
    [
        ("error", f"{LIN}, Sigmoid", 1),
        ("warning", f"{NARROW}, Tanh, Identity", 1),
        ("error", f"{LIN}, BatchNorm1d", 0),
        ("info", f"{LIN}, BatchNorm1d", 1),
    ],
)
def test_fail_on_is_the_least_severity_that_fails(
    run: Callable[..., Result], tmp_path: Path, fail_on: str, block: str, code: int
) -> None:
    assert run("probe", spec_with(tmp_path, "", block), "--fail-on", fail_on).code == code


def test_exit_zero_shows_the_findings_and_exits_zero(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    ended = run("probe", spec_with(tmp_path, ""), "--exit-zero")
    assert ended.code == 0
    assert "GP101" in ended.out


# ---- the table itself


def test_each_verdict_but_healthy_has_a_rule() -> None:
    assert {rule.verdict for rule in RULES} - {None} == set(Verdict) - {Verdict.HEALTHY}


def test_codes_and_names_are_unique_and_each_rule_is_tried() -> None:
    assert len(BY_CODE) == len({rule.name for rule in RULES}) == len(RULES)
    for table in (FIRES, SILENT, REAL):
        others = (
            "GP207",
            "GP208",
            "GP209",
            "GP406",
            "GP407",
            "GP408",
            "GP409",
            "GP6",
            "GP7",
        )  # test_causes.py and others try them
        found = {rule.code for rule in RULES if rule.find}
        assert set(table) == {code for code in found if not code.startswith(others)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_explains_itself_and_is_short(rule: Rule) -> None:
    first, blank, *rest = rule.explanation.split("\n")
    assert first[0].isupper()
    assert first.endswith(".")
    assert blank == ""
    assert rest
    if rule.find is None:
        return
    source = inspect.getsource(rule.find)
    body = source.replace(inspect.getdoc(rule.find) or "", "").split('"""')[-1]
    assert len(body.strip().splitlines()) <= 25


def test_gradprobe_rules_lists_each_rule(run: Callable[..., Result]) -> None:
    ended = run("rules")
    assert ended.code == 0
    for rule in RULES:
        [line] = [line for line in ended.out.splitlines() if line.startswith(rule.code)]
        assert line.split()[1:3] == [rule.name, str(rule.severity)]
        assert rule.explanation[:20] in line


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
@pytest.mark.parametrize("by", ["code", "name", "lower"])
def test_gradprobe_rules_explains_one(run: Callable[..., Result], rule: Rule, by: str) -> None:
    word = {"code": rule.code, "name": rule.name, "lower": rule.code.lower()}[by]
    ended = run("rules", word)
    assert ended.code == 0
    assert ended.out.startswith(f"{rule.code} {rule.name}  {rule.severity}\n")
    words = " ".join(ended.out.split())
    assert " ".join(rule.explanation.split("\n")[0].split()) in words
    assert "{" not in words.replace("{weight:", "")  # every number is filled in
    assert max(map(len, ended.out.splitlines())) <= 80


def test_a_rule_that_is_not_there_is_refused_with_the_nearest(run: Callable[..., Result]) -> None:
    ended = run("rules", "vanishin")
    assert ended.code == 2
    assert "did you mean 'vanishing'" in ended.err
    assert "gradprobe rules lists them" in run("rules", "GP999").err
