"""What the calibrated verdict is worth, on networks that it was not fitted on, beside its peers.

    python benchmarks/trainability/report.py

Reads ``outcomes_report.jsonl`` and ``profiles.jsonl``; a network that has no signals (its gradient
is zero or not finite) counts as one that will not train. gradprobe may be uncertain, its peers are
not: a false alarm is a network that trained and was said to fail, a miss one that failed and was
said to train, and what is uncertain is neither, but no part of the accuracy either. The ablation
fits again without a signal, on the networks of the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from fit import LINKS, SIGNS, TARGETS, TRAINED, seen
from profiles import FIT, GIVEN, REPORT, SEEDS, load
from regression import Array, agreement, auc, bins, fit, log_loss, predict, reliability
from sample import PER_SEED
from trials import read_trials

from gradprobe.spec.seeds import AUTO_SEEDS
from gradprobe.verdict import calibration
from gradprobe.verdict.calibration import FAILS, TRAINS, minus_log_log, outlook, probability
from gradprobe.verdict.report import Probability, Verdict, tally
from gradprobe.verdict.seeds import sure
from gradprobe.verdict.signals import Signals, effort

Line = tuple[dict[str, Any], dict[str, Any]]  # outcome, profile
HOPELESS = Probability(0.0, 0.0)
NEARLY = 0.8
CLEAR = 0.97  # under SGD, from which on a check makes no trial
DRAWS = ((25, 28), (29, 32))  # seeds of sample.py


class Judged(NamedTuple):
    """What a rule says of one network: whether it will fail, a score to rank it by, and doubt."""

    fails: bool
    score: float  # the higher, the better
    uncertain: bool = False

    @property
    def passes(self) -> bool:
        return not self.fails and not self.uncertain


def probabilities(profile: dict[str, Any]) -> Probability:
    return probability(Signals(**profile["signals"])) if profile["signals"] else HOPELESS


def said(lines: list[Line], model: int) -> Array:
    """The probability of each network: 0 under SGD, 1 under the best of eight."""
    return np.array([probabilities(profile)[model] for _, profile in lines])


def calibrated(
    model: int, fails: float = FAILS, trains: float = TRAINS
) -> Callable[[dict[str, Any]], Judged]:
    def rule(profile: dict[str, Any]) -> Judged:
        p = probabilities(profile)[model]
        return Judged(p < fails, p, fails <= p < trains)

    return rule


def verdict(profile: dict[str, Any]) -> Judged:
    """The verdict of ``gradprobe check``, one for both: an error, a warning (weak), or healthy."""
    p = probabilities(profile)
    if p == HOPELESS:
        return Judged(True, 0.0)
    fails, trains, _ = outlook(p)
    return Judged(fails, p.adam, not fails and not trains)


# ---- with a trial on one batch, which the profile then holds


def with_trials(lines: list[Line]) -> list[Line]:
    trials = read_trials()
    return [(o, profile | {"trial": trials[o["id"]]}) for o, profile in lines if o["id"] in trials]


def trial_alone(model: int) -> Callable[[dict[str, Any]], Judged]:
    """It fails where no rate learned; the less effort it took, the better."""

    def rule(profile: dict[str, Any]) -> Judged:
        took = effort(profile["trial"])
        return Judged(profile["trial"].failed, -took[model] if took else 0.0)

    return rule


def after_trial(profile: dict[str, Any]) -> Probability:
    if not profile["signals"]:
        return HOPELESS
    return probability(Signals(**profile["signals"]), effort(profile["trial"]))


def second_model(model: int) -> Callable[[dict[str, Any]], Judged]:
    def rule(profile: dict[str, Any]) -> Judged:
        p = after_trial(profile)[model]
        return Judged(p < FAILS, p, FAILS <= p < TRAINS)

    return rule


def tried_verdict(bar: float) -> Callable[[dict[str, Any]], Judged]:
    """A check that tries what is not clear: what fails by both fails, what learned is healthy.

    It is weak, though, where Adam learned it, or where the prediction was not healthy and SGD's
    probability after the trial is below ``bar``.
    """

    def rule(profile: dict[str, Any]) -> Judged:
        trial, before, after = profile["trial"], verdict(profile), after_trial(profile)
        p = probabilities(profile)
        if p == HOPELESS or p.sgd >= CLEAR:
            return before._replace(score=after.adam)
        if trial.learned:
            unlikely = p.sgd < TRAINS and after.sgd < bar
            doubtful = unlikely or trial.only_adam
            return Judged(False, after.adam, doubtful)
        return Judged(before.fails, after.adam, not before.fails)

    return rule


# ---- the peers, each from the threshold that it publishes. What is not finite is missing here, and
# ---- a comparison with NaN is false: that is how they let it pass.


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -99.0


def _rank(value: float) -> float:
    """A score for the ranking; NaN ranks as the worst."""
    return -99.0 if math.isnan(value) else value


def bands(profile: dict[str, Any]) -> Judged:
    """gradprobe's bands of reach, from one pass, without the calibration."""
    reach, said = _nan(profile["reach"]), profile["verdict"]
    fails = said not in ("healthy", "weak")
    return Judged(fails, _rank(-abs(_log(reach))), said == "weak")


def reach(profile: dict[str, Any]) -> Judged:
    """Reach outside 1e-4 … 1e4."""
    value = _nan(profile["reach"])
    return Judged(not 1e-4 <= value <= 1e4, _rank(-abs(_log(value))))


def sagemaker(profile: dict[str, Any]) -> Judged:
    """Vanishing if a tensor's mean |g| < 1e-7, or dead ReLUs in more than half of a layer."""
    smallest = _nan(profile["peers"]["mean"][0])
    fails = smallest < 1e-7 or _nan(profile["peers"]["silent"]) > 0.5
    return Judged(fails, _rank(_log(smallest)))


def autotrainer(profile: dict[str, Any]) -> Judged:
    """Vanishing if first ÷ last < 1e-3 and first < 1e-4, exploding if > 70, dead if 70 % zeros."""
    peers = profile["peers"]
    first, last = _nan(peers["norm_first"]), _nan(peers["norm_last"])
    ratio = first / last if last else math.nan
    fails = (ratio < 1e-3 and first < 1e-4) or ratio > 70 or _nan(peers["zeros"]) >= 0.7
    return Judged(fails, _rank(-abs(_log(ratio))))


def deepchecker(profile: dict[str, Any]) -> Judged:
    """A tensor's mean |g| below 1e-6 or above 1e6."""
    low, high = map(_nan, profile["peers"]["mean"])
    return Judged(low < 1e-6 or high > 1e6, _rank(_log(low)))


def smallest_rms(profile: dict[str, Any]) -> Judged:
    """The smallest weight gradient's RMS below 1e-7."""
    low = _nan(profile["peers"]["rms"][0])
    return Judged(low < 1e-7, _rank(_log(low)))


def rms_window(profile: dict[str, Any]) -> Judged:
    """Every weight gradient's RMS above 1e-6 and below 1."""
    low, high = map(_nan, profile["peers"]["rms"])
    return Judged(low < 1e-6 or high > 1, _rank(min(_log(low) + 6, -_log(high))))


RULES: dict[str, Callable[[dict[str, Any]], Judged]] = {
    "gradprobe check's verdict": verdict,
    "gradprobe's bands of reach": bands,
    "reach in 1e-4 … 1e4": reach,
    "SageMaker Debugger": sagemaker,
    "AutoTrainer": autotrainer,
    "TheDeepChecker": deepchecker,
    "smallest RMS ≥ 1e-7": smallest_rms,
    "RMS in 1e-6 … 1": rms_window,
}


def auc_error(score: Array, y: Array, draws: int = 1000) -> float:
    """Standard error of the AUC over which networks were drawn: by bootstrap."""
    random = np.random.default_rng(0)
    every = [random.integers(0, len(y), len(y)) for _ in range(draws)]
    return float(np.std([auc(score[drawn], y[drawn]) for drawn in every]))


def trained(outcome: dict[str, Any], target: str) -> bool:
    return bool(outcome[TARGETS[target]] >= TRAINED)


def outcomes(lines: list[Line], target: str) -> Array:
    return np.array([trained(o, target) for o, _ in lines], dtype=float)


class Quality(NamedTuple):
    accuracy: float
    auc: float
    alarms: float  # of those that trained, the share that the rule says will fail
    misses: float  # of those that failed, the share that the rule says will train
    uncertain: float  # of all


def quality(lines: list[Line], target: str, rule: Callable[[dict[str, Any]], Judged]) -> Quality:
    y = outcomes(lines, target) > 0.5
    judged = [rule(profile) for _, profile in lines]
    fails, uncertain = (np.array([one[k] for one in judged], dtype=bool) for k in (0, 2))
    passes = ~fails & ~uncertain
    score = np.array([one.score for one in judged])
    return Quality(
        float(((passes & y) | (fails & ~y)).mean()),
        auc(score, y.astype(float)),
        float(fails[y].mean()),
        float(passes[~y].mean()),
        float(uncertain.mean()),
    )


# ---- what is printed


def rules_table(lines: list[Line]) -> None:
    for model, target in enumerate(TARGETS):
        y = outcomes(lines, target)
        print(f"\n{target}: {int(y.sum())} of {len(y)} networks train")
        heads = ("accuracy", "AUC", "false alarms", "misses", "uncertain")
        print(f"{'':28}" + "".join(f"{head:>{len(head) + 3}}" for head in heads))
        own = {
            f"gradprobe, p({target})": calibrated(model),
            "  fails below 0.3, as before": calibrated(model, fails=0.3),
            "  without doubt, at 0.5": calibrated(model, 0.5, 0.5),
        }
        for name, rule in (own | RULES).items():
            q = quality(lines, target, rule)
            print(f"{name:28}{q.accuracy:11.1%}{q.auc:6.3f}{q.alarms:15.1%}", end="")
            print(f"{q.misses:9.1%}{q.uncertain:12.1%}")
        p = said(lines, model)
        print(f"the AUC of p has a standard error of {auc_error(p, y):.3f}")
        missed = [
            o for (o, _), q in zip(lines, p, strict=True) if q >= TRAINS and not trained(o, target)
        ]
        near = sum(o[TARGETS[target]] >= NEARLY for o in missed)
        told = f"of {len(missed)} misses {near} reach {NEARLY:.0%}"
        if target == "SGD":
            told += f", {sum(trained(o, 'best of eight') for o in missed)} train with Adam"
        print(told)


def trial_table(lines: list[Line]) -> None:
    """What a trial is worth alone, beside the signals, and in the verdict of a check."""
    lines = with_trials(lines)
    print(f"\nwith a trial on one batch: {len(lines)} networks were tried")
    for model, target in enumerate(TARGETS):
        y = outcomes(lines, target)
        rules: dict[str, Callable[[dict[str, Any]], Judged]] = {
            "first model, no trial": calibrated(model),
            "the trial alone": trial_alone(model),
            "second model, with trial": second_model(model),
            "verdict: healthy if learned": tried_verdict(0.0),
            "verdict: and 80 % after it": tried_verdict(TRAINS),
        }
        print(
            f"\n{target + ', with a trial':28}    AUC   ± error   false alarms   misses   uncertain"
        )
        for name, rule in rules.items():
            q = quality(lines, target, rule)
            score = np.array([rule(profile).score for _, profile in lines])
            print(f"{name:28}{q.auc:7.4f}{auc_error(score, y):10.4f}{q.alarms:15.1%}", end="")
            print(f"{q.misses:9.1%}{q.uncertain:12.1%}")


def by_draw(lines: list[Line]) -> None:
    """Each draw alone: the first had been looked at when the second model got another link."""
    print(f"\n{'seeds':9}{'networks':>9}{'target':>15}{'AUC':>7}{'alarms':>8}{'misses':>8}", end="")
    print(f"{'χ²':>7}{'beyond 2σ':>11}{'outside chance':>16}")
    for first, last in DRAWS:
        some = [line for line in lines if first <= line[0]["id"] // PER_SEED <= last]
        for model, target in enumerate(TARGETS):
            q = quality(some, target, calibrated(model))
            chi, wide, outside = agreement(bins(said(some, model), outcomes(some, target)))
            print(f"{f'{first} to {last}':9}{len(some):9}{target:>15}{q.auc:7.3f}", end="")
            print(f"{q.alarms:8.1%}{q.misses:8.1%}{chi:7.1f}{wide:11}{outside:16}")


def by_kind(lines: list[Line]) -> None:
    print(f"\n{'kind':14}{'networks':>9}{'SGD fails':>11}{'alarms':>8}{'misses':>8}", end="")
    print(f"{'best fails':>12}{'alarms':>8}{'misses':>8}")
    for kind in sorted({outcome["config"]["kind"] for outcome, _ in lines}):
        some = [line for line in lines if line[0]["config"]["kind"] == kind]
        print(f"{kind:14}{len(some):9}", end="")
        for model, target in enumerate(TARGETS):
            y = outcomes(some, target) > 0.5
            said = [calibrated(model)(profile) for _, profile in some]
            fails = np.array([one.fails for one in said])
            passes = ~fails & ~np.array([one.uncertain for one in said])
            counts = (int((~y).sum()), int((fails & y).sum()), int((passes & ~y).sum()))
            print(f"{counts[0]:{11 + model}}{counts[1]:8}{counts[2]:8}", end="")
        print()


def ablation(lines: list[Line]) -> None:
    x, fitted = seen(load(GIVEN) + load(FIT))
    z, _ = seen(lines)
    known = [line for line in lines if line[1]["signals"]]
    print(f"\nwithout a signal, on the {len(known)} networks that have signals")
    print(f"{'':16}{'SGD: AUC':>10}{'log loss':>10}{'best: AUC':>12}{'log loss':>10}")
    for left_out in (None, *Signals._fields):
        keep = [i for i, name in enumerate(Signals._fields) if name != left_out]
        print(f"{left_out or 'all of them':16}", end="")
        for model, target in enumerate(TARGETS):
            link = LINKS[target]
            p = predict(fit(x[:, keep], fitted[target], SIGNS[keep], link), z[:, keep], link)
            y = outcomes(known, target)
            print(f"{auc(p, y):{10 + 2 * model}.3f}{log_loss(p, y):10.3f}", end="")
        print()


class Seed(NamedTuple):
    """What one seed gives: the verdict by the probability, its margin, and both probabilities."""

    verdict: Verdict
    margin: float | None
    probability: Probability


def seed_of(profile: dict[str, Any]) -> Seed:
    if not profile["signals"]:
        return Seed(Verdict(profile["verdict"]), None, HOPELESS)
    found = Signals(**profile["signals"])
    p = probability(found)
    return Seed(calibration.verdict(found), outlook(p, minus_log_log).margin, p)


def automatic(seeds: Sequence[Seed]) -> tuple[Verdict, int]:
    """The verdict of ``probe --seeds auto``, and how many of the seeds it took."""
    for count in range(AUTO_SEEDS[0], len(seeds) + 1):
        taken = seeds[:count]
        if sure([one.verdict for one in taken], [one.margin for one in taken]):
            break
    return next(iter(tally(one.verdict for one in taken))), count


def flips(lines: list[Line]) -> None:
    """How often other seeds give another verdict: one each, or as many as ``auto`` takes."""
    half = SEEDS[REPORT] // 2
    by_seed = [[seed_of(profile) for _, profile in load(REPORT, s)] for s in range(2 * half)]
    networks = list(zip(*by_seed, strict=True))
    pairs = [(one[s].verdict, one[s + half].verdict) for one in networks for s in range(half)]
    print(f"\n{'other seeds, another verdict':30}{'flips':>7}{'healthy ↔ failing':>19}{'seeds':>7}")
    _flipped("one seed", pairs, 1.0)
    found = [(automatic(one[:half]), automatic(one[half:])) for one in networks]
    counts = [count for both in found for _, count in both]
    _flipped(f"auto, at most {half}", [(a, b) for (a, _), (b, _) in found], float(np.mean(counts)))
    spread = [
        np.mean(
            [
                abs(one[a].probability[m] - one[b].probability[m])
                for one in networks
                for a, b in combinations(range(2 * half), 2)
            ]
        )
        for m in (0, 1)
    ]
    print(f"mean |difference| of p: {spread[0]:.3f} (SGD), {spread[1]:.3f} (best of eight)")


def over_seeds(lines: list[Line]) -> None:
    """What several seeds are worth: the median of the probabilities, which ``--seeds`` prints."""
    seeds = SEEDS[REPORT]
    every = [load(REPORT, s) for s in range(seeds)]
    p = np.array([[said(one, model) for model in (0, 1)] for one in every])  # seed, model, network
    print(f"\nthe median over so many seeds: mean over all groups of the {seeds}")
    print(f"{'seeds':>5}{'SGD: AUC':>12}{'from … to':>17}{'alarms':>9}{'misses':>9}", end="")
    print(f"{'best: AUC':>13}{'from … to':>17}{'alarms':>9}{'misses':>9}")
    for count in (1, 4, 8, 16):
        print(f"{count:5}", end="")
        groups = [np.median(group, 0) for group in np.split(p, seeds // count)]
        for model, target in enumerate(TARGETS):
            y = outcomes(lines, target)
            each = [group[model] for group in groups]
            areas = [auc(q, y) for q in each]
            alarms = np.mean([q[y > 0.5] < FAILS for q in each])
            misses = np.mean([q[y < 0.5] >= TRAINS for q in each])
            print(f"{np.mean(areas):{12 + model}.3f}{min(areas):9.3f} … {max(areas):.3f}", end="")
            print(f"{alarms:9.1%}{misses:9.1%}", end="")
        print()


def _flipped(name: str, pairs: list[tuple[Verdict, Verdict]], seeds: float) -> None:
    rate = np.mean([a is not b for a, b in pairs])
    mild = {Verdict.HEALTHY, Verdict.WEAK}
    ends = np.mean([Verdict.HEALTHY in (a, b) and not {a, b} <= mild for a, b in pairs])
    print(f"{name:30}{rate:7.1%}{ends:19.1%}{seeds:7.1f}")


def main() -> None:
    lines = load(REPORT)
    missing = sum(1 for _, profile in lines if profile["signals"] is None)
    print(f"{len(lines)} networks, {missing} of them without signals")
    rules_table(lines)
    trial_table(lines)
    for model, target in enumerate(TARGETS):
        reliability(target, said(lines, model), outcomes(lines, target))
    by_draw(lines)
    by_kind(lines)
    ablation(lines)
    flips(lines)
    over_seeds(lines)


if __name__ == "__main__":
    main()
