"""The pipeline of ``gradprobe fix``: try, measure, choose the smallest change that mends."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from gradprobe.errors import GradprobeError, InputError
from gradprobe.files import write_atomically
from gradprobe.measure.measurement import rate_of
from gradprobe.measure.progress import Step, silently, tell
from gradprobe.spec.network import CodeSpec, NetworkSpec, walk
from gradprobe.spec.options import TRIAL_SECONDS, ProbeOptions
from gradprobe.spec.sources import yaml as yaml_source
from gradprobe.spec.sources.stack import STACKS, StackOptions
from gradprobe.spec.write import render_spec
from gradprobe.tasks.fix.changes import Change, apply, label, words
from gradprobe.tasks.fix.edit import edit
from gradprobe.tasks.fix.layout import CannotEditError
from gradprobe.tasks.fix.recipes import Recipe, changes_for, recipes
from gradprobe.tasks.fix.trials import (
    Fix,
    Probed,
    Trial,
    judged,
    measurement,
    needs_mending,
    tried,
)
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.targets import load_spec

_BOM = b"\xef\xbb\xbf"
_GAIN_STEPS = 12  # bisections in the search for the gain at which reach is 1
_GAINS = (0.25, 8.0)  # the search stays between them


def is_file(target: str) -> bool:
    """Whether ``target`` is a spec file, which alone can be written to."""
    return target not in ("-", "<stdin>") and (target not in STACKS or Path(target).is_file())


def read(target: str, stack: StackOptions) -> tuple[NetworkSpec | CodeSpec, str]:
    """The spec of a target with its text, without a byte-order mark; of a stack, its YAML.

    Raises:
        InputError: there is no such target, or it is no spec.
    """
    if target in STACKS and not is_file(target):
        text = render_spec(load_spec(target, stack))
        return yaml_source.parse(text.encode(), target), text
    data = yaml_source.read_bytes(target)
    spec = yaml_source.parse_any(data, "<stdin>" if target == "-" else target)
    return spec, data.decode("utf-8-sig")


def mend(
    spec: NetworkSpec,
    text: str,
    options: ProbeOptions,
    seeds: tuple[int, ...],
    *,
    everything: bool = False,
) -> Fix:
    """Try the recipes on ``spec``, the least intrusive first, until one mends it at every seed.

    Args:
        spec: parsed from ``text``.
        options: how to probe; its seed gives way to ``seeds``.
        everything: go on through all recipes.

    Raises:
        InputError, ModelError: ``spec`` itself cannot be built or run.
    """
    probes = tuple(replace(options, seed=seed) for seed in seeds)
    before = judged("as it is", [_measure(spec, probe) for probe in probes], needs_mending)
    fix = Fix(spec.source, seeds, before, writable=is_file(spec.source))
    if before.sound:
        return fix
    trials: list[Trial] = []
    chosen: tuple[Trial, tuple[Change, ...]] | None = None
    for trial, changes in _trials(spec, probes):
        trials.append(trial)
        if trial.sound and chosen is None:
            chosen = trial, changes
            if not everything:
                break
    fix = replace(fix, tried=tuple(trials))
    return fix if chosen is None else _with_diff(fix, spec, text, *chosen)


def write(target: str, text: str, fix: Fix) -> Fix:
    """Put the mended text where ``text`` was read, with the byte-order mark that it had.

    Raises:
        InputError: the file cannot be written, or is no longer what was read.
    """
    data = yaml_source.read_bytes(target)
    if data.removeprefix(_BOM) != text.encode():
        raise InputError(f"{target} changed while it was probed: nothing is written")
    bom = _BOM.decode() if data.startswith(_BOM) else ""
    write_atomically(str(Path(target).resolve()), bom + fix.text)  # a link stays a link
    return replace(fix, written=True)


def _trials(
    spec: NetworkSpec, probes: tuple[ProbeOptions, ...]
) -> Iterator[tuple[Trial, tuple[Change, ...]]]:
    """Each recipe that fits ``spec``, tried, with its changes; the same changes only once."""
    seen = {""}  # the label of no changes
    ways = recipes()
    for number, recipe in enumerate(ways, 1):
        tell(Step(number, len(ways), unit="change"))
        changes = _tuned(spec, recipe, probes[0])
        name = label(changes)
        if name in seen:
            continue
        seen.add(name)
        changed = apply(spec, changes)
        trial = tried(name, probes, partial(_measure, changed))
        if trial is not None:
            yield _learning(trial, changed, probes[0]) if trial.sound else trial, changes


def _measure(spec: NetworkSpec, options: ProbeOptions) -> Probed:
    with silently():
        return measurement(probe_target(spec, options))


def _learning(trial: Trial, spec: NetworkSpec, probe: ProbeOptions) -> Trial:
    """``trial`` with the rate at which the network learns one batch by heart, or that it does not.

    What measures well is no repair before it does. What time did not allow is no doubt: the
    measurement stands.
    """
    from gradprobe.measure.overfit import overfit
    from gradprobe.model.make import make

    with silently():
        steps = overfit(make(spec, probe), TRIAL_SECONDS)
    if steps.failed:
        return trial._replace(sound=False, doubt="does not learn one batch by heart")
    learned = steps.learned
    return trial._replace(learned=f"{rate_of(learned)}, {learned.steps} steps" if learned else "")


def _tuned(spec: NetworkSpec, recipe: Recipe, probe: ProbeOptions) -> tuple[Change, ...]:
    """The recipe's changes; where it tunes the init, with the gain at which reach is 1.

    In a plain stack reach grows with the gain, so that bisection finds it. A skip or a norm leaves
    nothing to find: the smaller the branch, the nearer reach is to 1, or it does not change.
    """
    if recipe.init != "tuned":
        return changes_for(spec, recipe)
    tunable = changes_for(spec, recipe) and not (recipe.skip or recipe.norm)
    if not tunable or any(layer.kind == "residual" for layer, _ in walk(spec.layers)):
        return ()
    low, high = _GAINS
    for _ in range(_GAIN_STEPS):
        gain = math.sqrt(low * high)
        try:
            reach = _measure(apply(spec, changes_for(spec, recipe, gain**2)), probe).reach
        except GradprobeError:
            return ()
        if reach is None or reach > 1:
            high = gain
        else:
            low = gain
    if low == _GAINS[0] or high == _GAINS[1]:  # reach is 1 nowhere between them
        return ()
    return changes_for(spec, recipe, float(f"{low * high:.3g}"))


def _with_diff(
    fix: Fix, spec: NetworkSpec, text: str, trial: Trial, changes: tuple[Change, ...]
) -> Fix:
    fix = replace(fix, after=trial, steps=tuple(dict.fromkeys(map(_in_words, changes))))
    try:
        edited = edit(text, spec, changes)
    except CannotEditError as error:
        return replace(fix, obstacle=str(error))
    return replace(fix, text=edited, diff=tuple(unified_diff(text, edited, spec.source)))


def unified_diff(before: str, after: str, name: str) -> list[str]:
    """The lines of the diff, without their ends."""
    shown: list[str] = []
    for line in difflib.unified_diff(_lines(before), _lines(after), name, name):
        shown.append(line.rstrip("\r\n"))
        if not line.endswith("\n"):
            shown.append("\\ No newline at end of file")
    return shown


def _lines(text: str) -> list[str]:
    """Lines with their ends; unlike ``splitlines``, only a newline ends one."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _in_words(change: Change) -> str:
    place = getattr(change, "place", None) or getattr(change, "owner", None)
    return (f"line {place.line}: " if place else "") + ", ".join(words(change))
