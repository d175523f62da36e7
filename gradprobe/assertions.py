"""A check for a unit test: ``gradprobe.assert_healthy(model, inputs)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradprobe.errors import InputError, suggestion
from gradprobe.render.text import render_report
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.options import SEVERITIES, choose
from gradprobe.tasks.probe import probe
from gradprobe.verdict.report import Finding, Report, Severity
from gradprobe.verdict.rules.table import RULE_WORDS, RULES

if TYPE_CHECKING:
    from torch import nn

_UNEXPLAINED = "ignored by the test"


def assert_healthy(
    model: nn.Module | NetworkSpec,
    inputs: Any = None,
    *,
    ignore: Iterable[str] | Mapping[str, str] = (),
    fail_on: str = "error",
    **options: Any,
) -> Report:
    """Probe, and raise ``AssertionError`` with the whole report as its text if something is wrong.

    Args:
        model, inputs: as in ``gradprobe.probe``.
        ignore: rules that are meant, by code (``GP103``), prefix (``GP1``) or name; a mapping gives
            each its reason, which the report then shows.
        fail_on: the least severity that fails: ``info``, ``warning`` or ``error``.
        options: everything else that ``gradprobe.probe`` takes: ``loss``, ``deep``, ``seeds``…

    Returns:
        The report, where it is healthy.

    Raises:
        AssertionError: a finding that is not ignored is at or above ``fail_on``.
        InputError: an argument does not fit.
        ModelError: the model raised while it ran.
    """
    __tracebackhide__ = True  # pytest shows the test's own line
    choose("fail_on", fail_on, SEVERITIES)
    reasons = _reasons(ignore)
    report = probe(model, inputs, **options)
    judged = replace(report, findings=tuple(_ignored(f, reasons) for f in report.findings))
    if judged.fails(Severity[fail_on.upper()]):
        raise AssertionError(f"the gradient does not get through\n\n{render_report(judged)}")
    return judged


def _reasons(ignore: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    words = [ignore] if isinstance(ignore, str) else list(ignore)
    for word in words:
        if not any(rule.named(word) for rule in RULES):
            raise InputError(f"ignore: no rule '{word}'", hint=suggestion(word, RULE_WORDS))
    if isinstance(ignore, Mapping):
        return dict(ignore)
    return dict.fromkeys(words, _UNEXPLAINED)


def _ignored(finding: Finding, reasons: Mapping[str, str]) -> Finding:
    [rule] = [rule for rule in RULES if rule.code == finding.rule]
    reason = next((reasons[word] for word in reasons if rule.named(word)), finding.ignored)
    return replace(finding, ignored=reason)
