"""Rules on how much of the gradient arrives at the first row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from gradprobe.measure.measurement import LEARNED, Trial, rate_of
from gradprobe.measure.profile import GradientProfile, RowStatus
from gradprobe.numbers import all_finite, fraction, number, plural
from gradprobe.verdict import calibration
from gradprobe.verdict.causes import (
    advice_for_large,
    advice_for_small,
    because,
    grows,
    row_at_fault,
    shrinks,
)
from gradprobe.verdict.report import Report, Severity, Training, Verdict, tally
from gradprobe.verdict.rules.rule import (
    Clue,
    Rule,
    Thresholds,
    cut_row,
    each_tower,
    listed,
    wakes_later,
)

# ---- the bands of reach


@each_tower
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
    reach = profile.unpooled_reach
    if reach is None or cut_row(profile) or wakes_later(profile):  # another rule's
        return
    if reach < limits["vanishing"]:
        yield _too_small(profile, limits["vanishing"])


@each_tower
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
    growth = profile.growth
    if growth is None or not all_finite(profile.trunk[0].gradient_norm):  # another rule's
        return
    if growth > limits["exploding"]:
        yield _too_large(profile, limits["exploding"])


@each_tower
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
    reach, growth = profile.unpooled_reach, profile.growth
    if reach is None or growth is None or not math.isfinite(reach):
        return
    if limits["vanishing"] <= reach < limits["weak_low"]:
        yield _too_small(profile, limits["weak_low"])
    elif limits["weak_high"] < growth <= limits["exploding"]:
        yield _too_large(profile, limits["weak_high"])


def unmeasured(profile: GradientProfile, limits: Thresholds) -> Iterator[Clue]:
    """Nothing was measured by which the network could be judged: there is no verdict.

    The rows of a traced, scripted or exported model cannot be followed, nor can layers that are not
    called as modules (`F.linear(x, weight)`); a first row whose gradient is zero, and not only at
    the first step, tells nothing. Zero weights at the end are drawn at random to see behind them
    (GP402). Where another rule says why nothing arrives, that is told instead.

    Hand over the eager model, or say with `--rows` which modules are the rows.
    """
    if reason := _blind(profile):
        advice = "hand over the eager model, or name modules that are called: --rows"
        yield Clue(f"nothing to judge by: {reason}", advice)


def _blind(profile: GradientProfile) -> str | None:
    """Why nothing was measured, if nothing was."""
    trunk, ends = profile.trunk, [row.gradient_norm for row in profile.trunk]
    holders = [row for row in profile.rows if not row.level and row.parameters]
    hidden = [row.name for row in holders if row.status in _HIDDEN]
    if hidden and (profile.reach is None or not profile.steps):
        return f"could not be followed: {listed(hidden)}"
    if (profile.reach is None and not trunk) or None in (*ends[:1], *ends[-1:]):
        return "an end of the trunk has no gradient"
    if profile.reach is None or (profile.reach == 0 and wakes_later(profile)):
        return "zero weights let no gradient through yet"
    weights = [p for p in trunk[0].parameters if p.dimensions > 1]
    if len(profile.ran) == 1 and len(weights) > 1 and profile.unit == "row":
        return f"all {len(weights)} weights are in one row"
    return None


_FAR = 10.0  # times the loss of a constant output
_HIDDEN = (RowStatus.NOT_RUN, RowStatus.NO_TENSOR)


def _too_small(profile: GradientProfile, threshold: float) -> Clue:
    story, advice = f"the gradient {shrinks(profile)}", advice_for_small(profile)
    return Clue(story, advice, row_at_fault(profile), profile.reach, threshold)


def _too_large(profile: GradientProfile, threshold: float) -> Clue:
    story, advice = f"the gradient {grows(profile)}", advice_for_large(profile)
    return Clue(story, advice, row_at_fault(profile), profile.reach, threshold)


# ---- the same by the probability that it trains


def shattered(profile: GradientProfile, training: Training) -> Iterator[Clue]:
    """A gradient of a fair size that is another one after a small step, so that no step helps.

    The probability of training is below 40 % under SGD or Adam, and neither decay nor growth is
    the main cause: it is the coherence, rows without a skip, or inputs that have come to look
    alike.

    Of 95 labelled networks with a reach between 1e-2 and 1e2 and a coherence below 0.35, 21 %
    came to 90 % training accuracy under the best of eight optimizer settings, and 16 % under
    SGD; of 1,298 with a coherence of 0.8 or more, 1,294 and 1,279 did (benchmarks/bands.py).
    Balduzzi et al. 2017 (arXiv 1702.08591) call such gradients shattered.

    Mend it with skip connections, which keep a part of the gradient as it is at every depth, or
    with fewer rows. Only a second look finds it: `probe --deep`, or `check`.
    """
    yield from _fails(Verdict.SHATTERED, profile, training)


def _fails(verdict: Verdict, profile: GradientProfile, training: Training) -> Iterator[Clue]:
    """A network that SGD and Adam are unlikely to train, where its main cause means ``verdict``."""
    p, signals = training.probability, training.signals
    if p and signals and calibration.verdict(signals) is verdict:
        story, advice, row = because(calibration.causes(signals, 1)[0], profile, signals)
        message = f"{story}: {fraction(p.adam)} chance of training"
        yield Clue(message, advice, row, p.adam, calibration.FAILS)


def _uncertain(profile: GradientProfile, training: Training) -> Iterator[Clue]:
    """A network that may train and may not, or that Adam may train and SGD will not."""
    p, signals = training.probability, training.signals
    if p and signals and calibration.verdict(signals) is Verdict.WEAK:
        story, advice, row = because(calibration.causes(signals)[0], profile, signals)
        sgd, adam = fraction(p.sgd), fraction(p.adam)
        message = f"{story}: {sgd} chance of training under SGD, {adam} under SGD or Adam"
        yield Clue(message, advice, row, p.sgd, calibration.TRAINS)


# ---- the same by a trial


def does_not_learn(trial: Trial) -> Iterator[Clue]:
    """A trial: no rate of SGD or Adam brought the network to learn one batch by heart.

    Ten steps were taken at each of seven rates, and up to sixty at the most promising; learned
    would have been a tenth of the first loss, or nine labels of ten right. By a loss of your own
    the best rate stays within 3 % of what an output gets that is the same for every sample, or
    above it, in 240 steps of Adam too; what falls further, and not to a tenth, is no finding. Where
    the prediction says that the network fails, that finding stands, with its cause. This one stands
    where it says otherwise and the trial was asked for (`probe --overfit`), or loss and data are
    your own.

    Look at what the prediction does not see: the loss and its labels, inputs that are alike or far
    from 1, an output that is squashed before the loss.
    """
    if not trial.failed or not trial.best:
        return
    best = trial.best
    constant = f"; a constant output gets {number(trial.baseline)}" if trial.baseline else ""
    course = f"{number(best.losses[0])} to {number(best.losses[-1])} in {best.steps} steps"
    message = f"does not learn one batch by heart: at best {course} ({rate_of(best)}){constant}"
    advice = "look at the loss and its labels, the scale of the inputs, and what squashes outputs"
    if trial.baseline and best.losses[0] > _FAR * trial.baseline:
        times = number(best.losses[0] / trial.baseline)
        advice = (
            f"the first loss is {times} times that of a constant output: a smaller init of the "
        )
        advice += "last layer, or of an embedding that it shares, and targets of a size near 1"
    yield Clue(message, advice, value=best.losses[-1] / best.losses[0], threshold=LEARNED)


def _barely(trial: Trial) -> Iterator[Clue]:
    """A network that Adam trains and SGD does not, or that looked well and did not learn."""
    best = trial.best
    if trial.learned and not trial.only_adam:
        took = f"{rate_of(trial.learned)}, {plural(trial.learned.steps, 'step')}"
        message = f"learns one batch by heart ({took}), and may still not train on more data"
        yield Clue(message, "watch its first epoch, or mend what the prediction has against it")
    elif trial.learned:
        message = f"only Adam learns one batch by heart ({rate_of(trial.learned)})"
        yield Clue(message, "train it with Adam, or mend what SGD cannot cope with")
    elif trial.failed and best:
        yield from does_not_learn(trial)


# ---- the same at several seeds


def flips(reports: Sequence[Report]) -> Iterator[Clue]:
    """The verdict depends on the seed: other weights of the same network, another verdict.

    The network stands between verdicts, so that luck decides how a run of it fares. Mend
    what the graver verdict finds, until every seed agrees. Only several seeds find it:
    `probe --seeds 5`, or `seeds` in the configuration of `check`.
    """
    counts = tally(report.verdict for report in reports)
    if len(counts) < 2:
        return
    seeds: dict[Verdict, list[str]] = {verdict: [] for verdict in counts}
    for report in reports:
        seeds[report.verdict].append(str(report.config.get("seed")))
    common, *others = counts
    shares = [f"{common} at {plural(counts[common], 'seed')}"]
    shares += [f"{verdict} at {counts[verdict]}" for verdict in others]
    worst = max(counts, key=list(Verdict).index)
    which = "; ".join(f"{verdict} at {listed(seeds[verdict])}" for verdict in counts)
    yield Clue(
        f"another seed, another verdict: {', '.join(shares)}",
        f"it stands between verdicts: mend what probe --seed {seeds[worst][0]} finds ({which})",
        value=counts[common] / len(reports),
    )


_vanishes = partial(_fails, Verdict.VANISHING)
_explodes = partial(_fails, Verdict.EXPLODING)

RULES = (
    Rule("GP101", "vanishing", Severity.ERROR, vanishing, Verdict.VANISHING, weigh=_vanishes),
    Rule("GP102", "exploding", Severity.ERROR, exploding, Verdict.EXPLODING, weigh=_explodes),
    Rule("GP103", "weak", Severity.WARNING, weak, Verdict.WEAK, weigh=_uncertain, tried=_barely),
    Rule("GP104", "shattered", Severity.ERROR, verdict=Verdict.SHATTERED, weigh=shattered),
    Rule("GP107", "unmeasured", Severity.ERROR, unmeasured, Verdict.UNMEASURED),
    Rule("GP105", "flips", Severity.WARNING, among=flips),
    Rule(
        "GP106",
        "does-not-learn",
        Severity.ERROR,
        verdict=Verdict.DOES_NOT_LEARN,
        tried=does_not_learn,
    ),
)
