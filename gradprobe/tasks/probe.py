"""A target is measured, then judged, or taken apart: ``gradprobe.probe``, and the commands probe,
block and paths.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Unpack

from gradprobe.errors import InputError, in_own_words
from gradprobe.measure.blocks.profile import BlockProfile, PathProfile
from gradprobe.measure.profile import GradientProfile
from gradprobe.numbers import from_one
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, InitSpec, NetworkSpec
from gradprobe.spec.options import (
    ALWAYS,
    NEVER,
    JudgeOptions,
    Limits,
    ProbeKeywords,
    ProbeOptions,
    RunOptions,
    choose,
    misordered,
)
from gradprobe.spec.seeds import Seeds, choose_seeds
from gradprobe.spec.sources.table import Target
from gradprobe.spec.vocabulary import THRESHOLDS
from gradprobe.theory.moments import Moments, Theory
from gradprobe.verdict.judge import judge
from gradprobe.verdict.report import Report
from gradprobe.verdict.seeds import repeated
from gradprobe.worker.cures import with_cures
from gradprobe.worker.run import block_of, measure_target, paths_of
from gradprobe.worker.trial import tried

if TYPE_CHECKING:
    from torch import nn


def probe_target(
    spec: Target,
    options: ProbeOptions | None = None,
    judging: JudgeOptions | None = None,
    run: RunOptions | None = None,
    inputs: Any = None,
) -> Report:
    """Measure the network of ``spec``, and say what is wrong with it.

    Args:
        run: how the code of a Python model is run.
        inputs: a batch for a spec, instead of the one that the options or the spec describe.

    Raises:
        InputError, ModelError: as ``worker.run.measure_target``.
    """
    options = options or ProbeOptions()
    measurement = measure_target(spec, options, run, inputs)
    report = judge(measurement, spec.source, judging or JudgeOptions())
    if not options.theory or not isinstance(spec, NetworkSpec):
        return report
    size = report.config["batch_size"]
    assert isinstance(size, int)
    profile, theory = _beside_theory(report.profile, spec, size, measurement.moments)
    return replace(report, profile=profile, theory=theory)


def probe_seeds(
    spec: Target,
    options: ProbeOptions,
    seeds: Seeds | None,
    run: RunOptions,
    progress: Callable[[str], AbstractContextManager[None]],
) -> Report:
    """The report of ``options.seed``; or a typical one of ``seeds``, all in its ``repeats``.

    Args:
        progress: is entered while a seed is probed; it gets the words that tell it from others.

    Raises:
        InputError, ModelError: as ``probe_target``.
    """

    number = count(1)

    def probe_at(seed: int) -> Report:
        most = f"{'at most ' if seeds and seeds.auto else ''}{len(seeds.seeds) if seeds else 1}"
        with progress(f", seed {seed} ({next(number)} of {most})" if seeds else ""):
            return probe_target(spec, replace(options, seed=seed), run=run)

    if seeds is None:
        return probe_at(options.seed)
    ignores = () if isinstance(spec, ArchitectureSpec) else spec.check.ignore
    return repeated(probe_at, seeds, ignores)


@in_own_words(ProbeKeywords.__annotations__)
def probe(
    model: nn.Module | NetworkSpec, inputs: Any = None, **keywords: Unpack[ProbeKeywords]
) -> Report:
    """Probe any ``nn.Module``, or a spec: one forward and one backward pass.

    The model is probed in the mode and dtype that it is in, and is left as it was.

    Args:
        model: the module; or a spec from ``gradprobe.load``, which needs no inputs.
        inputs: a tensor (batch first), a tuple of positional arguments, a dict of keyword
            arguments, or both as ``((...), {...})``; a DataLoader, or its ``[x, labels]``, whose
            labels ``cross_entropy``, ``mse`` and a loss of (output, target) take.
        loss: ``projection`` (a fixed random direction of every output; the default, unless a spec
            says otherwise), ``cross_entropy`` or ``mse`` of the first floating tensor in the
            output, ``own`` for the loss that a Hugging Face model puts out, a function from the
            output to a scalar tensor, or one of (output, target) with ``inputs=(x, target)``.
        seed: of the loss's direction, and of what the forward pass draws; default 0.
        level: ``blocks`` (the default), or ``leaves`` for the layers inside them too.
        rows: a glob over ``named_modules()`` paths that says which modules are the blocks, where
            it is not the repeated ones: ``encoder.layer.*``.
        blocks: measure highway, branch and gain of each block too.
        attention: measure attention's entropy and the tokens' similarity where there is attention.
        precision: measure which share of each row's gradient entries float16, bfloat16 and float8
            would lose, and the loss scale that float16 needs.
        thresholds: of the reach bands, see ``gradprobe rules GP101``; these decide then, also where
            ``deep`` knows the probability.
        deep: take a second look, two more passes, for a verdict by the probability that it trains,
            which is in ``training``.
        lr: SGD's learning rate, held against the curvature of the loss, which has to be one with a
            curvature (not the projection); ``deep`` is then the default.
        overfit: try whether it learns one batch by heart, a few dozen steps at each of a few rates,
            or with ``auto`` do so where the prediction is not clear; ``deep`` is then the default.
            The batch is the given one, the loss yours where it is a function.
        overfit_time: seconds for that; default no end.
        stream: of a spec, make, run and drop one block at a time, twice; the default where the
            network does not fit in ``max_memory``. The numbers are the same.
        boundaries: ``bfloat16`` keeps what stands between streamed blocks so, in half the memory;
            what does not fit in ``max_memory`` is in a temporary file.
        max_memory: bytes that a spec's network, the second look or the trial may take; default 8
            GiB.
        seeds: of a spec, probe so many seeds from ``seed`` on, those of a list, or with ``auto`` as
            many as settle the verdict; the report is a typical one of them, all are in ``repeats``.

    Returns:
        Profile, findings and verdict.

    Raises:
        InputError: an argument does not fit.
        ModelError: the model raised while it ran, or has nothing to train.
    """
    options, judging = _options(keywords)
    loss, seeds = keywords.get("loss"), keywords.get("seeds")
    if isinstance(model, NetworkSpec):
        if loss is not None and not isinstance(loss, str):
            raise InputError("a spec takes the name of a loss, not a function")

        def probe_at(seed: int) -> Report:
            return probe_target(model, replace(options, seed=seed), judging, inputs=inputs)

        if seeds is None:
            return probe_at(options.seed)
        return repeated(probe_at, choose_seeds(seeds, options.seed or None), model.check.ignore)
    if seeds is not None:
        hint = "gradprobe.load gives a spec; of a module, probe one for each seed"
        raise InputError("seeds: a module is built already: only a spec is built anew", hint=hint)
    if inputs is None:
        raise InputError("probe(model, inputs): a module needs inputs; only a spec knows its own")
    from gradprobe.measure.take import take
    from gradprobe.model.make import module_subject

    subject = module_subject(model, inputs, loss, options)
    measurement = tried(subject, take(subject, options), options)
    measurement = with_cures(subject, measurement, options)
    return replace(judge(measurement, subject.name or "", judging), name=None)


def _signature(function: Callable[..., Report]) -> inspect.Signature:
    """Of ``function``, with each of the keywords and its default, for those who ask for it."""
    defaults = {**asdict(ProbeOptions()), "loss": None, "overfit": False}
    defaults["max_memory"] = Limits().memory
    plain = inspect.signature(function)
    given = [p for p in plain.parameters.values() if p.kind is not p.VAR_KEYWORD]
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name))
        for name in ProbeKeywords.__annotations__
    ]
    return plain.replace(parameters=[*given, *keywords])


probe.__signature__ = _signature(probe)  # type: ignore[attr-defined]


def _options(keywords: ProbeKeywords) -> tuple[ProbeOptions, JudgeOptions]:
    """What is measured and what is judged by, of the keywords of ``probe``."""
    unknown = next((name for name in keywords if name not in ProbeKeywords.__annotations__), None)
    if unknown:
        raise TypeError(f"probe() got an unexpected keyword argument '{unknown}'")
    loss = keywords.get("loss")
    measured: dict[str, Any] = {
        field.name: keywords[field.name]  # type: ignore[literal-required]
        for field in fields(ProbeOptions)
        if field.name in keywords
    }
    overfit = measured.get("overfit", False)
    measured["overfit"] = overfit if isinstance(overfit, str) else ALWAYS if overfit else NEVER
    if measured["overfit"] != NEVER:
        measured.setdefault("deep", True)
    measured["loss"] = loss if isinstance(loss, str) else None
    limits = Limits(memory=keywords.get("max_memory", Limits().memory))
    options = ProbeOptions(**measured, limits=limits)
    return options, JudgeOptions(_thresholds(keywords.get("thresholds") or {}))


def _thresholds(own: Mapping[str, float]) -> dict[str, float]:
    for name in own:
        choose("thresholds", name, tuple(THRESHOLDS))
    thresholds = {**THRESHOLDS, **own}
    if wrong := misordered(thresholds):
        raise InputError(wrong)
    return thresholds


# ---- one network taken apart


def block(
    spec: Target, options: ProbeOptions, row: str | None, run: RunOptions | None = None
) -> BlockProfile:
    """One block of the network of ``spec`` with its real numbers, in float64 where code does not
    say otherwise.

    Args:
        row: its name; by default the middle residual block, or the middle row with weights.

    Raises:
        InputError, ModelError: as ``probe_target``; there is no such block.
    """
    return block_of(spec, _precise(spec, options), run, row)


def paths(
    spec: Target, options: ProbeOptions, max_paths: int | None, run: RunOptions | None = None
) -> PathProfile:
    """The gradient at the first row of the trunk as a sum over paths, in float64 as a block is.

    Args:
        max_paths: leave out paths through more branches.

    Raises:
        InputError, ModelError: as ``probe_target``; there is no residual block.
    """
    return paths_of(spec, _precise(spec, options), run, max_paths)


def _precise(spec: Target, options: ProbeOptions) -> ProbeOptions:
    if options.dtype is None and not isinstance(spec, CodeSpec):
        return replace(options, dtype="float64")
    return options


# ---- theory beside a measurement

_OTHER_INITS = {"Xavier init": "xavier_normal", "He init": "kaiming_normal"}


def _beside_theory(
    profile: GradientProfile, spec: NetworkSpec, batch_size: int, moments: Moments | None
) -> tuple[GradientProfile, Theory]:
    """``profile`` of a probe of ``spec`` with each row's prediction, and what stands beside it.

    The alternative is that of Xavier's and He's init whose factor per row is nearest 1, where it is
    nearer than the spec's own.
    """

    from gradprobe.theory.predict import about, predict, with_init

    def predicted(of: NetworkSpec) -> GradientProfile:
        by_name = {row.name: row for row in predict(of, batch_size, moments)}
        rows = [
            row if row.level else row._replace(theory=by_name.get(row.name)) for row in profile.rows
        ]
        return replace(profile, rows=tuple(rows))

    with_theory = predicted(spec)
    own = with_theory.predicted_decay
    decays: list[tuple[float, str | None, float | None]] = [(from_one(own), None, own)]
    for label, init in _OTHER_INITS.items():
        decay = predicted(with_init(spec, InitSpec(init))).predicted_decay
        decays.append((from_one(decay) + 0.01, label, decay))  # nearer by 1 % at least
    distance, best, decay = min(decays, key=lambda entry: entry[0])
    if best is None or math.isinf(distance):
        return with_theory, Theory(about(spec))
    return with_theory, Theory(about(spec), best, decay)
