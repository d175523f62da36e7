"""A sweep: the same targets at every point of one or two axes, spread over processes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from gradprobe.errors import InputError, ModelError
from gradprobe.spec.network import (
    ArchitectureSpec,
    CodeSpec,
    InitSpec,
    LayerSpec,
    NetworkSpec,
    check_layer_count,
)
from gradprobe.spec.options import ProbeOptions, RunOptions
from gradprobe.spec.sources.python import read_arguments
from gradprobe.spec.sources.stack import STACKS, StackOptions, read_init
from gradprobe.spec.sources.table import Target, TargetOptions
from gradprobe.spec.vocabulary import ACTIVATIONS as ACTIVATION_WORDS
from gradprobe.tasks.curves import Point, Sweep
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_each, load_spec
from gradprobe.worker import pool
from gradprobe.worker.exchange import Failure
from gradprobe.worker.pool import Clock, Lost, import_torch

MAX_POINTS = 10_000


class Job(NamedTuple):
    """One network to probe."""

    target: str
    at: tuple[str, ...]
    depth: int
    spec: Target
    options: ProbeOptions
    run: RunOptions


class Axes(NamedTuple):
    """What is to vary, by name, for each family of targets that has such axes."""

    specs: Mapping[str, list[str]]
    code: Mapping[str, list[str]] = MappingProxyType({})
    configs: Mapping[str, list[str]] = MappingProxyType({})

    def of(self, family: str) -> Mapping[str, list[str]]:
        return {"specs": self.specs, "Python models": self.code}.get(family, self.configs)


_NOTHING_VARIES = {
    "specs": "--depth 2,4,8",
    "Python models": "--arg layers=2,4,8 varies an argument",
    "configurations": "--layers 2,4,8 or --set hidden_size=64,128",
}


# What a value on each axis does to the options of a stack.
AXES: dict[str, Callable[[StackOptions, str], StackOptions]] = {
    "depth": lambda stack, text: replace(stack, depth=_whole("depth", text)),
    "width": lambda stack, text: replace(stack, width=_whole("width", text)),
    "activation": lambda stack, text: replace(stack, activation=text),
    "init": lambda stack, text: replace(stack, init=read_init(text)),
    "gain": lambda stack, text: replace(stack, init=_gain(text)),
}


def listed(name: str, text: str) -> list[str]:
    """The values between the commas that stand outside of braces, of the option ``--name``.

    Raises:
        InputError: a value is empty, or stands twice.
    """
    values, depth = [""], 0
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    values = [value.strip() for value in values]
    if not all(values):
        raise InputError(f"--{name}: an empty value in '{text}'")
    if len(set(values)) < len(values):
        raise InputError(f"--{name}: a value stands twice in '{text}'")
    return values


def named(flag: str, texts: Sequence[str]) -> dict[str, list[str]]:
    """The values of each ``KEY=VALUE,VALUE``.

    Raises:
        InputError: one is not of that form, or a key stands twice.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key:
            raise InputError(f"{flag}: '{text}' is not of the form key=value,value")
        if key in axes:
            raise InputError(f"{flag}: '{key}' is given twice")
        axes[key] = listed(f"{flag.removeprefix('--')} {key}", values)
    return axes


def plan(
    targets: list[str],
    about: TargetOptions,
    axes: Axes,
    options: ProbeOptions,
    run: RunOptions | None = None,
) -> tuple[list[Job], Sweep]:
    """Every network of the sweep, and the sweep without its points.

    Axes of one value are settings; of the others there may be one or two.

    Raises:
        InputError: more than two axes, an axis that a target does not have, a value out of range.
    """
    if len(set(targets)) < len(targets):
        raise InputError("a target is named twice")
    networks = [_Network(target, about, run or RunOptions()) for target in targets]
    families = {network.family for network in networks}
    if len(families) > 1:
        raise InputError(f"{' and '.join(sorted(families))} have no axis in common: sweep each")
    [family] = families
    own = axes.of(family)
    if not own:
        raise InputError(f"{targets[0]}: nothing varies", hint=_NOTHING_VARIES[family])
    settings, varied = _split(own, family, about)
    jobs: list[Job] = []
    for network in networks:
        for at in itertools.product(*varied.values()):
            if len(jobs) >= MAX_POINTS:
                raise InputError(f"the sweep has more than {MAX_POINTS:,} networks")
            place = dict(zip(varied, at, strict=True))
            jobs.append(network.job(settings, place, options))
    names = tuple((name, tuple(values)) for name, values in varied.items())
    empty = Sweep(tuple(targets), names, (), options.theory)
    if options.theory and "gain" in varied and len(varied) == 2:
        empty = replace(empty, edges=_edges(empty, _stack_at(about.stack, settings)))
    return jobs, empty


def _split(
    axes: Mapping[str, list[str]], family: str, about: TargetOptions
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The axes of one value, which are settings, and those of several: one or two."""
    settings = {name: values[0] for name, values in axes.items() if len(values) == 1}
    varied = {name: values for name, values in axes.items() if len(values) > 1}
    if len(varied) > 2:
        raise InputError(f"at most two axes: {', '.join(varied)} have several values")
    if not varied:
        first = "depth" if family == "specs" else next(iter(axes))
        varied = {first: [settings.pop(first, str(about.stack.depth))]}
    return settings, varied


def run(jobs: list[Job], workers: int) -> Iterator[Point]:
    """The points, in the order of the jobs, each as soon as those before it are done.

    Raises:
        InputError, ModelError: a network does not fit, failed, or its process was lost.
    """
    if workers <= 1 or len(jobs) < 2:
        yield from map(probe_job, jobs)
        return
    results: dict[int, Point | Failure] = {}
    done = 0
    for index, result in pool.run(_work, jobs, workers):
        results[index] = result
        while done in results:
            point = results.pop(done)
            if isinstance(point, Lost):
                name = f"{jobs[done].target} at {', '.join(jobs[done].at)}"
                raise ModelError(f"{name}: {point.message}", hint=point.hint)
            if isinstance(point, Failure):
                raise point.error
            yield point
            done += 1


def _work(job: Job, clock: Clock) -> Point:
    import_torch(clock, math.inf)
    return probe_job(job)


def probe_job(job: Job) -> Point:
    """Probe one network of the sweep."""
    report = probe_target(job.spec, job.options, run=job.run)
    predicted = report.profile.predicted_reach if job.options.theory else None
    return Point(job.target, job.at, job.depth, report.reach, report.verdict, predicted)


def _edges(sweep: Sweep, stack: StackOptions) -> dict[tuple[str, str], float]:
    """The gain of χ₁ = 1 in a plain stack without norm, zero biases: the others have no edge."""
    from gradprobe.theory.activations import ACTIVATIONS, activation  # numpy: only this needs it
    from gradprobe.theory.mean_field import edge_of_chaos

    other, values = next(axis for axis in sweep.axes if axis[0] != "gain")
    edges = {}
    if "plain" in sweep.targets and stack.norm == "none":
        for value in values:
            word = value if other == "activation" else stack.activation
            kind = ACTIVATION_WORDS.get(word, word)
            edge = edge_of_chaos(activation(kind)) if kind in ACTIVATIONS else None
            if edge is not None:
                edges["plain", value] = edge
    return edges


class _Network:
    """One target, read once, and what it becomes at a point of the axes."""

    def __init__(self, target: str, about: TargetOptions, run: RunOptions) -> None:
        self.target, self.about, self.run = target, about, run
        self.spec = load_each(target, about)
        self.is_stack = isinstance(self.spec, NetworkSpec) and target in STACKS
        self.is_stack = self.is_stack and not Path(target).is_file()

    @property
    def family(self) -> str:
        """What it has axes in common with."""
        if isinstance(self.spec, CodeSpec):
            return "Python models"
        return "configurations" if isinstance(self.spec, ArchitectureSpec) else "specs"

    def job(self, settings: dict[str, str], at: dict[str, str], options: ProbeOptions) -> Job:
        """The network where the axes have the values ``at``."""
        spec = self._at(settings, at)
        given = settings | at
        own = str(self.about.stack.depth) if self.family == "specs" else next(iter(at.values()))
        depth = given.get("depth", own)
        size = int(depth) if depth.isdecimal() and len(depth) < 10 else 0
        return Job(self.target, tuple(at.values()), size, spec, options, self.run)

    def _at(self, settings: dict[str, str], at: dict[str, str]) -> Target:
        if isinstance(self.spec, CodeSpec):
            own = read_arguments([f"{key}={text}" for key, text in (settings | at).items()])
            return replace(self.spec, arguments={**self.spec.arguments, **own})
        if isinstance(self.spec, ArchitectureSpec):
            return self._configured(settings | at)
        if self.is_stack:
            stack = _stack_at(_stack_at(self.about.stack, settings), at)
            stack = stack if self.target != "plain" else replace(stack, zero_init=False)
            return replace(load_spec(self.target, stack), weights=self.about.weights.weights)
        if others := [name for name in at if name != "depth"]:
            message = f"--{others[0]} varies built-in stacks only; {self.target} is a spec"
            raise InputError(message)
        return _deepened(self.spec, _whole("depth", at["depth"]))

    def _configured(self, values: dict[str, str]) -> Target:
        own = self.about.architecture
        layers = values.pop("layers", None)
        settings = tuple(f"{key}={text}" for key, text in values.items())
        own = replace(own, settings=(*own.settings, *settings))
        own = own if layers is None else replace(own, layers=_whole("layers", layers))
        return load_each(self.target, replace(self.about, architecture=own))


def _stack_at(stack: StackOptions, values: dict[str, str]) -> StackOptions:
    for name, text in values.items():
        stack = AXES[name](stack, text)
    return stack


def _deepened(spec: NetworkSpec, depth: int) -> NetworkSpec:
    """The spec with its longest top-level repeat made ``depth`` iterations long."""
    repeats = [layer for layer in spec.layers if layer.kind == "repeat"]
    if not repeats:
        raise InputError(f"{spec.source} has no repeat at its top level to deepen")
    longest = max(repeats, key=lambda layer: layer.times)

    def deepen(layer: LayerSpec) -> LayerSpec:
        if layer is not longest:
            return layer
        return replace(layer, arguments={**layer.arguments, "times": depth})

    deep = replace(spec, layers=tuple(map(deepen, spec.layers)))
    check_layer_count(deep)
    return deep


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**9):
        raise InputError(f"--{name}: '{text}' is not a whole number of at least 1")
    return int(text)


def _gain(text: str) -> InitSpec:
    """Weights of standard deviation gain / sqrt(fan_in), biases zero."""
    try:
        gain = float(text)
    except ValueError:
        gain = -1.0
    if not 0 < gain < 1e6:
        raise InputError(f"--gain: '{text}' is not a number between 0 and 1e6")
    return InitSpec("variance_scaling", {"scale": gain**2, "mode": "fan_in"})
