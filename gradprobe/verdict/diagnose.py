"""A profile comes in; findings and the verdict that follows from them go out.

The rules on how much gradient arrives have two ways to find out: the bands of reach, from one pass,
or, after a second look and where nobody set a band of their own, the calibrated probability that it
trains. A trial then has the last word on what was predicted: see ``verdict.tried``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from gradprobe.measure.measurement import Trial
from gradprobe.measure.profile import GradientProfile
from gradprobe.spec.network import CheckSpec, Ignore
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict.advice import worded
from gradprobe.verdict.report import Finding, Report, Training, Verdict
from gradprobe.verdict.rules.rule import Clue, Rule, Selection, Thresholds, certainty
from gradprobe.verdict.rules.table import (
    BY_CODE,
    BY_NAME,
    EFFECTS,
    INSIDE,
    NOT_INSIDE,
    RANKING,
    RULES,
)
from gradprobe.verdict.tried import settled


def diagnose(
    profile: GradientProfile,
    thresholds: Thresholds,
    check: CheckSpec | None = None,
    selection: Selection | None = None,
    training: Training | None = None,
    trial: Trial | None = None,
) -> tuple[tuple[Finding, ...], Verdict]:
    """All findings, the gravest first, and the verdict, which no ignore changes.

    Args:
        profile: what was measured.
        thresholds: by the names in ``vocabulary.THRESHOLDS``.
        check: the spec's own section; a rule that it ignores is reported with its reason and does
            not count towards the exit code.
        selection: which rules are reported; all of them by default.
        training: the probability that it trains, which decides instead of the bands of reach where
            those are the default ones.
        trial: whether it learned one batch by heart.
    """
    check = check or CheckSpec()
    limits = {**thresholds, **check.thresholds}
    predicted = {rule: list(_clues(rule, profile, limits, training)) for rule in RULES}
    after = training.after_trial if training else None
    clues = settled(predicted, trial, limits, after, profile.further.alike) if trial else predicted
    told = [(rule, clue) for rule in RULES for clue in clues.get(rule, ())]
    findings = _with_one_reason([_finding(*each, check.ignore, profile) for each in told])
    codes = {finding.rule for finding in findings}
    verdicts = [rule.verdict for rule in RULES if rule.verdict and rule.code in codes]
    verdict = max(verdicts, key=list(Verdict).index, default=Verdict.HEALTHY)
    findings += _unused(
        check.ignore,
        codes
        | {rule.code for rule in predicted if predicted[rule]}
        | _out_of_sight(profile, limits, training, trial),
    )
    selection = selection or Selection()
    selected = [finding for finding in findings if selection.holds(BY_CODE[finding.rule])]
    selected.sort(key=lambda finding: (-finding.severity, _rank(finding.rule)))
    return tuple(map(_behind_its_cause(selected), selected)), verdict


def _with_one_reason(findings: list[Finding]) -> list[Finding]:
    """Without "unmeasured" where a graver finding, which counts, says why nothing arrives."""
    order = list(Verdict)
    graver = order[order.index(Verdict.UNMEASURED) + 1 :]
    if any(BY_CODE[f.rule].verdict in graver and f.ignored is None for f in findings):
        return [f for f in findings if BY_CODE[f.rule].verdict is not Verdict.UNMEASURED]
    return findings


def _rank(code: str) -> int:
    """The place of a rule among the causes; behind them the rules as they are listed."""
    return RANKING.index(code) if code in RANKING else len(RANKING)


def _behind_its_cause(findings: Sequence[Finding]) -> Callable[[Finding], Finding]:
    """What gives an effect the advice to mend its cause first, where a rule has found that."""
    causes = [f for f in findings if f.rule in RANKING and f.rule not in EFFECTS]
    causes = [f for f in causes if f.rule not in ("GP301", "GP202", "GP708") and not f.ignored]
    causes.sort(key=lambda finding: _rank(finding.rule))

    def advised(finding: Finding) -> Finding:
        beyond = NOT_INSIDE if finding.rule in INSIDE else ()
        first = next((cause for cause in causes if cause.rule not in beyond), None)
        if first is None or finding.rule not in EFFECTS:
            return finding
        return replace(finding, advice=f"mend {first.rule} {first.name} first", cures=())

    return advised


def _clues(
    rule: Rule, profile: GradientProfile, limits: Thresholds, training: Training | None
) -> Iterable[Clue]:
    """What a rule finds; by ``weigh`` after a second look, but for bands that decide themselves."""
    if training and rule.weigh and (not rule.find or decides(training, limits)):
        return rule.weigh(profile, training)
    return rule.find(profile, limits) if rule.find else ()


def diagnose_seeds(
    reports: Sequence[Report],
    ignores: Sequence[Ignore] = (),
    selection: Selection | None = None,
) -> tuple[Finding, ...]:
    """What the reports on one target at several seeds tell only together."""
    selection = selection or Selection()
    return tuple(
        _finding(rule, clue, ignores)
        for rule in RULES
        if rule.among and selection.holds(rule)
        for clue in rule.among(reports)
    )


def decides(training: Training | None, limits: Thresholds) -> bool:
    """Whether the probability, and not the bands of reach, says how much gradient arrives.

    It does where there is one and nobody set a band of their own.
    """
    return bool(training and training.probability) and limits == THRESHOLDS


def _finding(
    rule: Rule, clue: Clue, ignores: Iterable[Ignore], profile: GradientProfile | None = None
) -> Finding:
    return Finding(
        rule=rule.code,
        name=rule.name,
        severity=rule.severity,
        message=clue.message,
        advice=worded(clue.advice, profile),
        row=clue.row.name if clue.row else None,
        line=clue.row.line if clue.row else None,
        column=clue.row.column if clue.row else None,
        value=clue.value,
        threshold=clue.threshold,
        certainty=certainty(rule.severity, clue),
        cures=() if isinstance(clue.advice, str) else clue.advice,
        ignored=next((i.reason for i in ignores if rule.named(i.rule)), None),
    )


def _unused(ignores: Iterable[Ignore], codes: set[str]) -> Iterator[Finding]:
    """A finding for each of the spec's own ignores that none of ``codes`` answers to."""
    rule = BY_NAME["unused-ignore"]
    for ignore in ignores:
        if ignore.place and not any(BY_CODE[code].named(ignore.rule) for code in codes):
            message = f"{ignore.rule} is ignored here and not found: {ignore.reason}"
            finding = _finding(rule, Clue(message, "delete this ignore"), ())
            yield replace(finding, line=ignore.place.line, column=ignore.place.column)


def _out_of_sight(
    profile: GradientProfile, limits: Thresholds, training: Training | None, trial: Trial | None
) -> set[str]:
    """The codes that another run on the same network may find: an ignore of theirs has a use.

    Those are what only several seeds tell, what only a second look or a trial tells, and, after a
    second look, what the bands of reach tell.
    """
    return {
        rule.code
        for rule in RULES
        if rule.among
        or (rule.tried and not rule.find and not trial)
        or (rule.weigh and not rule.find and not (training and training.probability))
        or (rule.weigh and rule.find and training and any(rule.find(profile, limits)))
    }
