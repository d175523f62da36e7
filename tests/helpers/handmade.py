"""Profiles and reports made by hand: no torch, every number chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import strategies as st

from gradprobe.errors import ExitCode
from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile, RowStatus
from gradprobe.spec.network import CheckSpec
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome, with_fingerprints
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Finding, Report, Severity, Verdict
from gradprobe.verdict.signals import CAPS, Signals

TINY = 1.1754943508222875e-38  # the smallest normal float32


def parameter(
    name: str = "weight",
    norm: float = 1.0,
    gradient: float | None = 0.1,
    *,
    dimensions: int = 2,
    trainable: bool = True,
    before_norm: bool = False,
) -> ParameterProfile:
    return ParameterProfile(name, 16, dimensions, norm, gradient, trainable, before_norm)


def row(
    name: str,
    gradient: float | None = 1.0,
    *parameters: ParameterProfile,
    kind: str = "Linear",
    status: RowStatus | None = None,
    bare: bool = False,
    **fields: object,
) -> RowProfile:
    """A row that holds one weight, unless it is given parameters or is ``bare``."""
    if not parameters and not bare:
        parameters = (parameter(f"{name}.weight"),)
    if status is None:
        finite = gradient is None or math.isfinite(gradient)
        status = RowStatus.OK if finite else RowStatus.NON_FINITE
        status = RowStatus.NO_GRADIENT if gradient is None else status
    made = RowProfile(
        name=name,
        kind=kind,
        level=0,
        line=None,
        status=status,
        size=sum(p.size for p in parameters),
        gradient_norm=gradient,
        activation_rms=1.0,
        input_dependence=1.0,
        zero_fraction=0.0,
        parameters=parameters,
        contains=(kind,),
    )
    return made._replace(**fields)


def profile(*rows: RowProfile, **fields: object) -> GradientProfile:
    size = sum(r.size for r in rows if r.level == 0)
    made = GradientProfile(rows=rows, parameters=size, loss=1.0, smallest_gradient=TINY)
    return replace(made, **fields)


def chain(*gradients: float | None) -> GradientProfile:
    """Rows with these gradient norms, first to last, and a head behind them."""
    rows = [row(str(index), gradient) for index, gradient in enumerate(gradients)]
    return profile(*rows, row("head", gradients[-1]))


def with_reach(reach: float, steps: int = 10) -> GradientProfile:
    """A trunk over which the gradient changes evenly."""
    return chain(*(reach ** (1 - index / steps) for index in range(steps + 1)))


def judged(
    measured: GradientProfile, check: CheckSpec | None = None, **thresholds: float
) -> tuple[tuple[Finding, ...], Verdict]:
    return diagnose(measured, {**THRESHOLDS, **thresholds}, check)


def finding(severity: Severity = Severity.ERROR, **fields: object) -> Finding:
    made = Finding("GP101", "vanishing", severity, "the gradient shrinks", "use a residual")
    return replace(made, **fields)


def report(
    measured: GradientProfile,
    findings: Sequence[Finding] = (),
    verdict: Verdict = Verdict.HEALTHY,
    target: str = "net.yaml",
    name: str | None = "a network",
) -> Report:
    config = {"seed": 0, "batch_size": 32, "dtype": "float32", "loss": "projection"}
    versions = {"gradprobe": "1.0", "torch": "2.13.0"}
    return Report(target, measured, tuple(findings), verdict, config, versions, name)


def near(value: float | None, rel: float, absolute: float = 0.0) -> object:
    """``pytest.approx``, for which no number is near only to no number."""
    return None if value is None else pytest.approx(value, rel=rel, abs=absolute)


# ---- a check's result with names that are meant to break its renderings

HOSTILE = (
    "\x1b[31mred\x1b[0m",  # ANSI
    "[bold]markup[/bold] | `code` <b>&amp; @team #1",
    "two\nlines\r::error::x",
    "bidi \u202e\u2066 and \u200b nothing",
    "quotes \"'\\ %0A ,:; ]]> <![CDATA[ --> é 網",
    "a lone surrogate \udcff",
)


def diagnostic(message: str = "the gradient shrinks", **fields: object) -> Diagnostic:
    made = Diagnostic("net.yaml", "GP101", "vanishing", Severity.ERROR, message, "use a residual")
    return replace(made, **fields)


def check_result() -> CheckResult:
    """One target for each hostile name, and what else a result may hold."""
    outcomes = []
    for name in HOSTILE:
        found = [
            diagnostic(name, path=name, row=name, advice=name, line=3, column=5, excerpt=name),
            diagnostic(name, path=name, row=name, advice=name, line=4),
        ]
        made = report(with_reach(1e-9), [finding(message=name)], Verdict.VANISHING, name, name)
        outcomes.append(Outcome(name, with_fingerprints(found), made, ExitCode.FINDINGS))
    weak = diagnostic("it may train", rule="GP103", name="weak", severity=Severity.WARNING)
    noted = diagnostic("a bias", rule="GP401", name="useless-bias", severity=Severity.INFO)
    ignored = diagnostic("as meant", ignored="a reason ]]>\n<b>")
    known = diagnostic("as before", known=True)
    quiet = with_fingerprints([weak, noted, ignored, known])
    healthy = report(with_reach(1.0))
    outcomes.append(Outcome("net.yaml", quiet, healthy))
    outcomes.append(Outcome("healthy.yaml", (), report(with_reach(math.nan))))
    for code, rule, word in ((2, "GP901", "invalid"), (3, "GP902", "failed")):
        failed = diagnostic("it broke", path=f"{word}.yaml", rule=rule, name=word, advice="")
        outcomes.append(Outcome(f"{word}.yaml", with_fingerprints([failed]), None, ExitCode(code)))
    return CheckResult(tuple(outcomes), "1.0")


def any_signals() -> st.SearchStrategy[Signals]:
    return st.builds(Signals, *(st.floats(0, cap) for cap in CAPS))
