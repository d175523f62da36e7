"""The rules: each reads a profile and yields findings; its docstring is the user's explanation.

The verdict follows from the findings by the table ``RULES``; nothing else decides it. The rules on
how much gradient arrives have two ways to find out: the bands of reach, from one pass, or, after a
second look and where nobody set a band of their own, the calibrated probability that it trains.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from gradprobe.errors import suggestion
from gradprobe.measure.profile import GradientProfile, ParameterProfile, RowProfile, RowStatus, Use
from gradprobe.numbers import all_finite, fraction, plural
from gradprobe.spec.network import CheckSpec, CodeSpec, Ignore, NetworkSpec
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.verdict import calibration
from gradprobe.verdict.causes import (
    advice_for_large,
    advice_for_small,
    because,
    grows,
    row_at_fault,
    shrinks,
)
from gradprobe.verdict.report import Finding, Report, Severity, Training, Verdict, tally
from gradprobe.verdict.signals import is_cut

Thresholds = Mapping[str, float]


class Clue(NamedTuple):
    """What a rule found: a finding without the rule's own name, code and severity."""

    message: str
    advice: str
    row: RowProfile | None = None
    value: float | None = None
    threshold: float | None = None


class Rule(NamedTuple):
    """One rule: its code, name, severity, what finds it, and the verdict that it leads to, if any.

    ``find`` is ``None`` for what does not follow from a profile alone; ``text`` explains those.
    ``weigh`` finds it instead where the probability of training is known, and ``among`` what only
    the reports of several seeds tell.
    """

    code: str
    name: str
    severity: Severity
    find: Callable[[GradientProfile, Thresholds], Iterator[Clue]] | None
    verdict: Verdict | None = None
    text: str = ""
    weigh: Callable[[GradientProfile, Training], Iterator[Clue]] | None = None
    among: Callable[[Sequence[Report]], Iterator[Clue]] | None = None

    def clues(
        self, profile: GradientProfile, limits: Thresholds, training: Training | None
    ) -> Iterator[Clue]:
        """What it finds; by ``weigh`` after a second look, but for bands that decide themselves."""
        if training and self.weigh and (not self.find or decides(training, limits)):
            yield from self.weigh(profile, training)
        elif self.find:
            yield from self.find(profile, limits)

    @property
    def explanation(self) -> str:
        return inspect.cleandoc(self.text or (self.find and self.find.__doc__) or "")

    def named(self, word: str) -> bool:
        """Whether ``word`` means this rule: its name, its code, or what the code begins with."""
        return word in (self.name, "ALL") or (bool(word) and self.code.startswith(word))


class Selection(NamedTuple):
    """Which rules are asked, by code, name or prefix; the longer word wins, and ``ignore`` a tie.

    As ruff has it: ``select = ["GP1"], ignore = ["GP103"]``.
    """

    select: tuple[str, ...] = ("ALL",)
    ignore: tuple[str, ...] = ()

    def holds(self, rule: Rule) -> bool:
        return _closeness(rule, self.select) > _closeness(rule, self.ignore)


def _closeness(rule: Rule, words: Iterable[str]) -> int:
    """How exactly the nearest of ``words`` names the rule; -1 where none does."""
    found = [word for word in words if rule.named(word)]
    lengths = [0 if w == "ALL" else 5 if w == rule.name else len(w) for w in found]
    return max(lengths, default=-1)


def diagnose(
    profile: GradientProfile,
    thresholds: Thresholds,
    check: CheckSpec | None = None,
    selection: Selection | None = None,
    training: Training | None = None,
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
    """
    check = check or CheckSpec()
    limits = {**thresholds, **check.thresholds}
    findings = [
        _finding(rule, clue, check.ignore)
        for rule in RULES
        for clue in rule.clues(profile, limits, training)
    ]
    codes = {finding.rule for finding in findings}
    verdicts = [rule.verdict for rule in RULES if rule.verdict and rule.code in codes]
    asked = selection or Selection()
    known = {rule.code for rule in RULES if asked.holds(rule)}
    verdict = max(verdicts, key=list(Verdict).index, default=Verdict.HEALTHY)
    findings = [finding for finding in findings if finding.rule in known]
    codes |= _out_of_sight(profile, limits, training)
    findings += [f for f in _unused(check.ignore, codes) if f.rule in known]
    findings.sort(key=lambda finding: -finding.severity)
    return tuple(findings), verdict


def decides(training: Training | None, limits: Thresholds) -> bool:
    """Whether the probability, and not the bands of reach, says how much gradient arrives.

    Where there is one, and nobody set a band of their own.
    """
    return bool(training and training.probability) and limits == THRESHOLDS


def diagnose_seeds(
    reports: Sequence[Report],
    ignores: Sequence[Ignore] = (),
    selection: Selection | None = None,
) -> tuple[Finding, ...]:
    """What the reports on one target at several seeds tell only together."""
    asked = selection or Selection()
    return tuple(
        _finding(rule, clue, ignores)
        for rule in RULES
        if rule.among and asked.holds(rule)
        for clue in rule.among(reports)
    )


def _finding(rule: Rule, clue: Clue, ignores: Iterable[Ignore]) -> Finding:
    return Finding(
        rule=rule.code,
        name=rule.name,
        severity=rule.severity,
        message=clue.message,
        advice=clue.advice,
        row=clue.row.name if clue.row else None,
        line=clue.row.line if clue.row else None,
        column=clue.row.column if clue.row else None,
        value=clue.value,
        threshold=clue.threshold,
        ignored=next((i.reason for i in ignores if rule.named(i.rule)), None),
    )


def _unused(ignores: Iterable[Ignore], codes: set[str]) -> Iterator[Finding]:
    """A finding for each of the spec's own ignores that none of ``codes`` answers to."""
    rule = BY_NAME["unused-ignore"]
    for ignore in ignores:
        if ignore.place and not any(BY_CODE[code].named(ignore.rule) for code in codes):
            yield Finding(
                rule.code,
                rule.name,
                rule.severity,
                f"{ignore.rule} is ignored here and not found: {ignore.reason}",
                "delete this ignore",
                line=ignore.place.line,
                column=ignore.place.column,
            )


def _out_of_sight(
    profile: GradientProfile, limits: Thresholds, training: Training | None
) -> set[str]:
    """The codes that another run on the same network may find: an ignore of theirs has a use.

    What only several seeds tell, what only a second look does, and, after one, the bands of reach.
    """
    return {
        rule.code
        for rule in RULES
        if rule.among
        or (rule.weigh and not rule.find and not (training and training.probability))
        or (rule.weigh and rule.find and training and any(rule.find(profile, limits)))
    }


# ---- the bands of reach


def vanishing(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The gradient that arrives at the first row is too small a part of what left the last.

    Reach is the gradient norm at the trunk's first row ÷ that at its last; below 1e-4 the first
    layers hardly learn. Of 32 labelled networks with such a reach before training, 3 % came to
    90 % training accuracy under the best of eight optimizer settings, and none under SGD
    (benchmarks/bands.py).

    After a second look (`probe --deep`, `check`), and where no threshold was set, the probability
    decides instead: below 40 % under SGD or Adam, with the decay as the main cause, or with a
    recurrent layer's gradient that fades before it is at the sequence's first position.

    Mend it where the factor per row is below 1: an init whose gain fits the activation, a
    normalisation, or skip connections, which add 1 to every factor.
    """
    reach = profile.reach
    if reach is None or not reach < limits["vanishing"] or _cut(profile):
        return
    yield Clue(
        f"the gradient {shrinks(profile)}",
        advice_for_small(profile),
        row_at_fault(profile),
        reach,
        limits["vanishing"],
    )


def exploding(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The gradient grows on its way back until a step of any useful size overshoots.

    Reach is the gradient norm at the trunk's first row ÷ that at its last. Of 10 labelled networks
    with a reach above 1e4 before training, 20 % came to 90 % training accuracy under the best of
    eight optimizer settings, and none under SGD (benchmarks/bands.py).

    After a second look (`probe --deep`, `check`), and where no threshold was set, the probability
    decides instead: below 40 % under SGD or Adam, with growth as the main cause. That is mostly the
    activations' on their way forward; the gradient's on its way back does less harm.

    Mend it where the factor per row is above 1: a smaller init, a normalisation in front of each
    branch, or a branch scaled by 1/sqrt(depth). A skip alone does not help: it adds to the factor.
    """
    reach = profile.reach
    if reach is None or not reach > limits["exploding"]:
        return
    if not all_finite(profile.trunk[0].gradient_norm):  # that is another rule's
        return
    yield Clue(
        f"the gradient {grows(profile)}",
        advice_for_large(profile),
        row_at_fault(profile),
        reach,
        limits["exploding"],
    )


def weak(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """The gradient reaches the first row, much weaker or stronger than it left the last.

    Of 10 labelled networks with a reach of 1e-4 to 1e-2 before training, 60 % came to 90 % training
    accuracy under the best of eight optimizer settings and 10 % under SGD; of 19 with 1e2 to 1e4,
    42 % and 26 %; of 169 in the healthy band between, 92 % and 89 % (benchmarks/bands.py). Adam or
    a few more normalisations often save such a network; deeper, it is lost.

    After a second look (`probe --deep`, `check`), and where no threshold was set, the probability
    decides instead: neither is it likely to fail, below 40 % under SGD or Adam, nor to train, 80 %
    or more under SGD.
    """
    reach = profile.reach
    if reach is None or not math.isfinite(reach):
        return
    if limits["vanishing"] <= reach < limits["weak_low"]:
        story, advice, threshold = shrinks(profile), advice_for_small(profile), limits["weak_low"]
    elif limits["weak_high"] < reach <= limits["exploding"]:
        story, advice, threshold = grows(profile), advice_for_large(profile), limits["weak_high"]
    else:
        return
    yield Clue(f"the gradient {story}", advice, row_at_fault(profile), reach, threshold)


# ---- the same by the probability that it trains


def _failing(
    verdict: Verdict,
) -> Callable[[GradientProfile, Training], Iterator[Clue]]:
    """What finds a network that SGD and Adam are unlikely to train, for the cause that this is."""

    def weigh(profile: GradientProfile, training: Training) -> Iterator[Clue]:
        p, found = training.probability, training.signals
        if p and found and calibration.verdict(found) is verdict:
            story, advice, row = because(calibration.causes(found, 1)[0], profile, found)
            message = f"{story}: {fraction(p.adam)} chance of training"
            yield Clue(message, advice, row, p.adam, calibration.FAILS)

    return weigh


def _uncertain(profile: GradientProfile, training: Training) -> Iterator[Clue]:
    """A network that may train and may not, or that Adam may train and SGD will not."""
    p, found = training.probability, training.signals
    if p and found and calibration.verdict(found) is Verdict.WEAK:
        story, advice, row = because(calibration.causes(found)[0], profile, found)
        both = (
            f"{fraction(p.sgd)} chance of training under SGD, {fraction(p.adam)} under SGD or Adam"
        )
        yield Clue(f"{story}: {both}", advice, row, p.sgd, calibration.TRAINS)


# ---- the same at several seeds


def _flips(reports: Sequence[Report]) -> Iterator[Clue]:
    """A network whose verdict is another one at another seed."""
    counts = tally(report.verdict for report in reports)
    if len(counts) < 2:
        return
    seeds: dict[Verdict, list[str]] = {verdict: [] for verdict in counts}
    for report in reports:
        seeds[report.verdict].append(str(report.config.get("seed")))
    common, *others = counts
    told = [f"{common} at {plural(counts[common], 'seed')}"]
    told += [f"{verdict} at {counts[verdict]}" for verdict in others]
    worst = max(counts, key=list(Verdict).index)
    which = "; ".join(f"{verdict} at {_listed(seeds[verdict])}" for verdict in counts)
    yield Clue(
        f"another seed, another verdict: {', '.join(told)}",
        f"it stands between verdicts: mend what probe --seed {seeds[worst][0]} finds ({which})",
        value=counts[common] / len(reports),
    )


def _unweighed(profile: GradientProfile, training: Training) -> Iterator[Clue]:
    """That the reach alone judges, or nothing does, where no other rule says why."""
    reach = profile.reach
    if training.reason and (is_cut(profile) or (reach and math.isfinite(reach))):
        judge = "judged by reach alone" if reach else "not judged"
        yield Clue(f"{judge}: {training.reason}", "nothing to do, if it is meant")


# ---- no gradient at all


def dead(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A gradient of exactly zero, where it did not underflow and no zero-initialised weight is why.

    A row whose outputs are zero for every sample (a dead ReLU) passes nothing back, and nothing
    upstream of it ever changes. Weights with a gradient of exactly zero are stuck in the same way.
    A smaller learning rate does not help: the init, the biases or the activation must change.
    """
    rows = _ran(profile)
    if rows and rows[-1].gradient_norm == 0:
        message = f"the loss passes no gradient on to row {rows[-1].name}"
        yield Clue(message, "look at the loss: a constant, or saturated", rows[-1], 0.0)
        return
    cut = _cut(profile)
    if cut:
        silent = "its outputs are all zero" if cut.zero_fraction == 1 else "its slope is zero"
        advice = "use a smaller or zero bias, LeakyReLU or GELU, or normalise in front of it"
        yield Clue(f"no gradient passes row {cut.name}: {silent}", advice, cut, 0.0)
        return
    for row in profile.rows:
        if row.level or not row.gradient_norm or row.gradient_norm < _underflow(profile):
            continue
        stuck = [p for p in row.parameters if p.dimensions > 1 and p.gradient_norm == 0]
        if any(p.wakes_up for p in row.parameters):
            stuck = [p for p in stuck if p.name in (profile.still_zero or ())]
        if stuck:
            message = f"exactly zero gradient: {_listed(p.name for p in stuck)}"
            advice = "its inputs or its outputs are zero for every sample: look for a dead ReLU"
            yield Clue(message, advice, row, 0.0)


def disconnected(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Parameters that get no gradient, because no path leads from the loss to them.

    Not a small gradient and not zero: autograd found no path. Either the forward pass never used
    them, or something on the way cut the graph: ``detach()``, ``.data``, ``torch.no_grad()``, a
    conversion to NumPy, an argmax. What was frozen by ``requires_grad = False`` does not count, nor
    do experts that got no token: other rules tell them.
    """
    told = (
        (
            _is_cut,
            "no gradient, the graph is cut",
            "look for detach(), .data, no_grad() or argmax between them and the loss, or for an "
            "output that nothing reads",
        ),
        (
            _is_unused,
            "no gradient, never used in the forward pass",
            "delete them, freeze them, or use them",
        ),
    )
    for chosen, message, advice in told:
        found = [(row, p) for row, p in _lost(profile) if chosen(row, p)]
        if found:
            row = next((row for row, _ in found if row), None)
            yield Clue(f"{message}: {_by_module(found)}", advice, row)


def frozen(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Parameters that are not trained, because somebody set ``requires_grad = False``.

    They get no gradient and are meant to get none, so they are told and nothing more. The gradient
    still has to get through them to whatever is trained below.
    """
    found = [(r, p) for r, ps in _owners(profile) for p in ps if not p.trainable]
    if found:
        message = f"frozen, requires_grad is False: {_by_module(found)}"
        yield Clue(message, "nothing to do, if it is meant", found[0][0])


def idle(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Modules that were not called in this batch, while others like them in the same list were.

    An expert of a mixture that got no token has no gradient now and may have one with the next
    batch; if a larger batch leaves it idle too, the router starves it. A layer that the loop over a
    list leaves out looks the same, and never learns.
    """
    found = [(row, p) for row, p in _lost(profile) if p.use is Use.IDLE]
    if found:
        message = f"not called in this batch, and its siblings were: {_by_module(found)}"
        advice = "an expert without a token: try a larger batch; a layer: see that it is called"
        yield Clue(message, advice, found[0][0])


def non_finite(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """NaN or infinity: the row that made the first one, not those that passed it on.

    On the way forward it is the first row whose output is not finite while its input is; on the way
    back the row behind which the gradient is still finite. A larger dtype shows whether it was an
    overflow (``--dtype float64``).
    """
    advice = "lower the scale of its init, or see whether --dtype float64 mends it"
    for owner, parameters in _owners(profile):
        broken = [p.name for p in parameters if not math.isfinite(p.norm)]
        if broken:
            message = f"parameters hold NaN or infinity: {_listed(broken)}"
            yield Clue(message, advice, owner, math.nan)
            return
    if not profile.input_finite:
        yield Clue("the input holds NaN or infinity", "look at the data", None, math.nan)
        return
    ran = [row for row in profile.rows if row.activation_rms is not None]
    bad = [row for row in ran if not all_finite(row.activation_rms)]
    if bad:
        inside = [row for row in bad if row.level and row.name.startswith(f"{bad[0].name}.")]
        row = inside[0] if inside else bad[0]
        message = f"row {row.name} ({row.kind}) makes the first NaN or infinity"
        yield Clue(message, advice, row, row.activation_rms)
        return
    if not math.isfinite(profile.loss):
        message = "the loss is NaN or infinite though every row's output is finite"
        yield Clue(
            message, "look at the loss, or at the layers behind the last row", None, profile.loss
        )
        return
    yield from _non_finite_gradient(profile)


def _non_finite_gradient(profile: GradientProfile) -> Iterator[Clue]:
    advice = "look for a square root or a logarithm near 0, or try --dtype float64"
    after: RowProfile | None = None
    for row in reversed([r for r in profile.rows if r.level == 0]):
        if row.gradient_norm is not None and not math.isfinite(row.gradient_norm):
            maker = f"row {after.name}" if after else "the loss"
            message = f"the backward pass through {maker} makes the first NaN or infinity"
            yield Clue(message, advice, after or row, row.gradient_norm)
            return
        after = row
    for owner, parameters in _owners(profile):
        broken = [p.name for p in parameters if not all_finite(p.gradient_norm)]
        if broken:
            message = f"the gradient holds NaN or infinity: {_listed(broken)}"
            yield Clue(message, advice, owner, math.nan)
            return


# ---- what is worth knowing and not wrong


def useless_bias(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A bias right before a normalisation over the batch, which subtracts it again.

    Its gradient is zero up to rounding (about 1e-9), so it never learns. That is no vanishing
    gradient; the bias is merely of no use: ``bias: false`` saves its memory.
    """
    found = [
        (r, p.name) for r in profile.rows for p in r.parameters if p.before_norm and not r.level
    ]
    if found:
        names = _listed(name for _, name in found)
        message = f"a bias before a normalisation does nothing: {names}"
        yield Clue(message, "set bias: false on the layer before the normalisation", found[0][0])


def zero_initialised(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """A weight that starts at zero with a gradient that is not: alive after the first step.

    A zero-initialised residual branch, head or LoRA matrix gives a gradient of exactly zero to what
    lies behind it, at the first step only. That is not dead, and for residual branches it is good
    practice: the network starts as the identity, and depth cannot hurt.
    """
    found = [(r, p.name) for r in profile.rows for p in r.parameters if p.wakes_up and not r.level]
    if found:
        names = _listed(name for _, name in found)
        message = f"zero at the start, alive after one step: {names}"
        yield Clue(message, "nothing to do: zero gradients behind it are meant", found[0][0])


def unseen(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Rows whose weights get a gradient though the row itself could not be followed.

    Its module was never called (``F.linear(x, self.layer.weight)``, a scripted or compiled model),
    or it puts out no floating point tensor, so there is no output whose gradient could be shown.
    """
    hidden = (RowStatus.NOT_RUN, RowStatus.NO_TENSOR)
    found = [
        row
        for row in profile.rows
        if not row.level and row.status in hidden and row.weight_gradient_norm is not None
    ]
    if found:
        message = f"could not be followed: {_listed(row.name for row in found)}"
        advice = "their weights are measured; for their outputs, call them as modules"
        yield Clue(message, advice, found[0])


RULES: tuple[Rule, ...] = (
    Rule(
        "GP101",
        "vanishing",
        Severity.ERROR,
        vanishing,
        Verdict.VANISHING,
        weigh=_failing(Verdict.VANISHING),
    ),
    Rule(
        "GP102",
        "exploding",
        Severity.ERROR,
        exploding,
        Verdict.EXPLODING,
        weigh=_failing(Verdict.EXPLODING),
    ),
    Rule("GP103", "weak", Severity.WARNING, weak, Verdict.WEAK, weigh=_uncertain),
    Rule(
        "GP104",
        "shattered",
        Severity.ERROR,
        None,
        Verdict.SHATTERED,
        text="""
        A gradient of a fair size that is another one after a small step, so that no step helps.

        The probability of training is below 40 % under SGD or Adam, and neither decay nor growth is
        the main cause: it is the coherence, rows without a skip, or inputs that have come to look
        alike.

        Of 95 labelled networks with a reach between 1e-2 and 1e2 and a coherence below 0.35, 21 %
        came to 90 % training accuracy under the best of eight optimizer settings, and 16 % under
        SGD; of 1,298 with a coherence of 0.8 or more, 1,294 and 1,279 did (benchmarks/bands.py).
        Balduzzi et al. 2017 (arXiv 1702.08591) call such gradients shattered.

        Mend it with skip connections, which keep a part of the gradient as it is at every depth, or
        with fewer rows. Only a second look finds it: `probe --deep`, or `check`.
        """,
        weigh=_failing(Verdict.SHATTERED),
    ),
    Rule(
        "GP105",
        "flips",
        Severity.WARNING,
        None,
        text="""
        The verdict depends on the seed: other weights of the same network, another verdict.

        The network stands between verdicts, so that luck decides how a run of it fares. Mend
        what the graver verdict finds, until every seed agrees. Only several seeds find it:
        `probe --seeds 5`, or `seeds` in the configuration of `check`.
        """,
        among=_flips,
    ),
    Rule("GP201", "dead", Severity.ERROR, dead, Verdict.DEAD),
    Rule("GP202", "disconnected", Severity.ERROR, disconnected, Verdict.DISCONNECTED),
    Rule("GP203", "frozen", Severity.INFO, frozen),
    Rule("GP204", "idle", Severity.WARNING, idle),
    Rule("GP301", "non-finite", Severity.ERROR, non_finite, Verdict.NON_FINITE),
    Rule("GP401", "useless-bias", Severity.INFO, useless_bias),
    Rule("GP402", "zero-initialised", Severity.INFO, zero_initialised),
    Rule(
        "GP403",
        "unused-ignore",
        Severity.WARNING,
        None,
        text="""
        The spec says to ignore a rule that finds nothing any more.

        What was ignored has been mended, so the ignore would only hide the next one: delete it.
        """,
    ),
    Rule("GP404", "unseen", Severity.INFO, unseen),
    Rule(
        "GP405",
        "unweighed",
        Severity.INFO,
        None,
        text="""
        There is no probability that the network trains, so that only the bands of reach judge it.

        Nothing can be weighed where there are fewer than two rows to compare or one sample in the
        batch, where an end of the trunk has no gradient, where BatchNorm has fewer than 32 values
        to normalise a channel by, in a dtype that is too coarse for a small step, or where the
        second look failed; the message says which.
        Without `--deep`, or with `check --no-deep`, reach alone is what is asked for.
        """,
        weigh=_unweighed,
    ),
    Rule(
        "GP501",
        "regression",
        Severity.ERROR,
        None,
        text="""
        The reach is further from 1 than the baseline says, by more than the allowed factor.

        The verdict may still be healthy: a gate that waits until the band is left says so too late.
        The factor is `regression` in the configuration, 3 by default; `--write-baseline` accepts
        the new reach.
        """,
    ),
    Rule(
        "GP502",
        "stale-baseline",
        Severity.ERROR,
        None,
        text="""
        The baseline lists a finding that is not there any more.

        It was mended, or its file is gone, and left in the baseline it would let the next one pass:
        `gradprobe check --baseline FILE --prune-baseline` takes it out.
        """,
    ),
    Rule(
        "GP901",
        "invalid",
        Severity.ERROR,
        None,
        text="""
        The target could not be read: no such file, no spec in it, or a spec with an error.

        Exit code 2. It cannot be ignored, nor stand in a baseline.
        """,
    ),
    Rule(
        "GP902",
        "failed",
        Severity.ERROR,
        None,
        text="""
        The network could not be built or run: it raised, ran out of time or memory, or was killed.

        Exit code 3. It cannot be ignored, nor stand in a baseline.
        """,
    ),
)
BY_CODE = {rule.code: rule for rule in RULES}
BY_NAME = {rule.name: rule for rule in RULES}

# What a spec may call a rule that it wants ignored.
RULE_WORDS = tuple(
    word
    for rule in RULES
    if rule.find or rule.weigh or rule.among
    for word in (rule.code, rule.name)
)


def check_ignores(spec: NetworkSpec | CodeSpec) -> None:
    """Refuse a spec whose ``ignore`` names a rule that there is not.

    Raises:
        InputError: at the word, with the nearest rule.
    """
    for ignore in spec.check.ignore:
        if ignore.rule not in RULE_WORDS:
            hint = suggestion(ignore.rule, RULE_WORDS) or "gradprobe rules lists them"
            raise spec.error(f"ignore: no rule '{ignore.rule}'", ignore.rule_place, hint)


# ---- what the rules share


def _owners(
    profile: GradientProfile,
) -> Iterator[tuple[RowProfile | None, tuple[ParameterProfile, ...]]]:
    """Each row with its parameters, and those that belong to no row."""
    for row in profile.rows:
        yield row, row.parameters
    yield None, profile.orphans


def _lost(
    profile: GradientProfile,
) -> Iterator[tuple[RowProfile | None, ParameterProfile]]:
    """Trained parameters without a path from the loss, with their rows."""
    for row, parameters in _owners(profile):
        if row is None or not row.level:
            yield from ((row, p) for p in parameters if p.trainable and p.gradient_norm is None)


def _is_unused(row: RowProfile | None, parameter: ParameterProfile) -> bool:
    """Whether nothing used it: its module did not run, or got a gradient for the others."""
    if parameter.use is not Use.CALLED:
        return parameter.use is Use.UNCALLED
    if row is None or row.status is RowStatus.NOT_RUN:
        return True
    home = _home(parameter)
    beside = [p for p in row.parameters if p.gradient_norm is not None]
    return any(_home(p) == home for p in beside)


def _is_cut(row: RowProfile | None, parameter: ParameterProfile) -> bool:
    return parameter.use is Use.CALLED and not _is_unused(row, parameter)


def _home(parameter: ParameterProfile) -> str:
    """The path of the module that holds it."""
    return parameter.name.rpartition(".")[0]


def _by_module(found: list[tuple[RowProfile | None, ParameterProfile]]) -> str:
    """``encoder (12 parameters), head.norm (weight, bias), scale``: by row where the whole row is
    meant, else by the module that holds them."""
    groups: dict[str, list[str]] = {}
    rows: dict[str, int] = {}
    for row, _ in found:
        if row:
            rows[row.name] = rows.get(row.name, 0) + 1
    for row, p in found:
        whole = row is not None and len(row.parameters) == rows[row.name]
        home = row.name if whole and row else _home(p)
        groups.setdefault(home, []).append(p.name.removeprefix(f"{home}."))
    return _listed((_group(home, names) for home, names in groups.items()), most=12)


def _group(home: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"{home}.{names[0]}" if home else names[0]
    inside = ", ".join(names) if len(names) < 4 else f"{len(names)} parameters"
    return f"{home} ({inside})" if home else inside


def _cut(profile: GradientProfile) -> RowProfile | None:
    """The trunk row that a gradient enters and nothing leaves, if there is one.

    Not where it faded below what its dtype can hold, nor behind a zero-initialised weight.
    """
    for after, row in pairwise(reversed(_ran(profile))):
        if row.gradient_norm == 0 and after.gradient_norm:
            if after.gradient_norm < _underflow(profile):
                return None
            hides = any(p.wakes_up for p in after.parameters)
            return _cut_after_a_step(profile) if hides else after
    return None


def _cut_after_a_step(profile: GradientProfile) -> RowProfile | None:
    """The row that still passes nothing on when no weight is zero any more."""
    for after, row in pairwise(reversed(_ran(profile))):
        if row.name in (profile.still_zero or ()):
            return after
    return None


def _ran(profile: GradientProfile) -> tuple[RowProfile, ...]:
    """The rows from the first of the trunk to the last of the network, as far as they ran."""
    trunk, ran = profile.trunk, profile.ran
    return ran[ran.index(trunk[0]) :] if trunk else ()


def _underflow(profile: GradientProfile) -> float:
    """Below this norm, a zero one row further on is an underflow and no dead row."""
    return profile.smallest_gradient * 10


def _listed(names: Iterable[str], most: int = 4) -> str:
    found = list(names)
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest
