"""A network that code or a configuration describes: what would mend it, said in its own words.

No file is edited. Each change is measured as a spec's is: of a Python model in its own process,
after it was built; of a configuration by building it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from gradprobe.spec.network import ArchitectureSpec, CodeSpec
from gradprobe.spec.options import ProbeOptions, RunOptions
from gradprobe.tasks.fix.trials import (
    NO_EDIT,
    Fix,
    Probed,
    Trial,
    judged,
    measurement,
    needs_mending,
    tried,
)
from gradprobe.tasks.probe import probe_target
from gradprobe.verdict.report import Report

_INITS = ("kaiming_normal", "xavier_normal", "orthogonal")
_ACTIVATION = "GELU"
_RANGES = (0.5, 2.0, 4.0)  # times the configuration's own
_ACTIVATIONS = ("gelu", "silu")

Way = tuple[str, CodeSpec | ArchitectureSpec, tuple[str, ...]]  # name, changed network, in code


def mend(
    spec: CodeSpec | ArchitectureSpec,
    options: ProbeOptions,
    seeds: tuple[int, ...],
    run: RunOptions,
    *,
    everything: bool = False,
) -> Fix:
    """Measure the network and, where it needs mending, the changes that could be made.

    Where none mends it, ``steps`` has what the findings advise, which is not measured.

    Raises:
        InputError, ModelError: the network itself cannot be built or run.
    """
    probes = tuple(replace(options, seed=seed) for seed in seeds)
    reports = [probe_target(spec, probe, run=run) for probe in probes]
    before = judged("as it is", [measurement(report) for report in reports], needs_mending)
    fix = Fix(spec.source, seeds, before, obstacle=NO_EDIT)
    if before.sound:
        return fix
    trials: list[Trial] = []
    for name, changed, steps in _ways(spec):
        trial = tried(name, probes, partial(_measure, changed, run))
        trials += [trial] if trial else []
        if trial and trial.sound and fix.after is None:
            fix = replace(fix, after=trial, steps=steps)
            if not everything:
                break
    return replace(fix, tried=tuple(trials), steps=fix.steps or _advised(reports))


def _measure(spec: CodeSpec | ArchitectureSpec, run: RunOptions, options: ProbeOptions) -> Probed:
    return measurement(probe_target(spec, options, run=run))


def _advised(reports: list[Report]) -> tuple[str, ...]:
    findings = [finding for report in reports for finding in report.findings]
    return tuple(dict.fromkeys(finding.advice for finding in findings if finding.advice))


def _ways(spec: CodeSpec | ArchitectureSpec) -> Iterator[Way]:
    if isinstance(spec, ArchitectureSpec):
        yield from _settings(spec)
        return
    activation = f"activation {_ACTIVATION}"
    for init in _INITS:
        yield f"{init} init", replace(spec, changes=(f"init {init}",)), _init_in_code(init)
    for init in _INITS:
        steps = (f"nn.{_ACTIVATION}() in the place of nn.Sigmoid() and nn.Tanh()",)
        changed = replace(spec, changes=(activation, f"init {init}"))
        yield f"{_ACTIVATION}, {init} init", changed, (*steps, *_init_in_code(init))


def _init_in_code(init: str) -> tuple[str, ...]:
    return (
        "for module in model.modules():",
        "    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):",
        f"        nn.init.{init}_(module.weight)",
        "        if module.bias is not None:",
        "            nn.init.zeros_(module.bias)",
    )


def _settings(spec: ArchitectureSpec) -> Iterator[Way]:
    own = spec.values.get("initializer_range")
    ranges = [own * factor for factor in _RANGES] if isinstance(own, float) else []
    for key in ("hidden_act", "activation_function", "hidden_activation"):
        for word in _ACTIVATIONS:
            if key in spec.values and spec.values[key] != word:
                yield _with(spec, key, word)
    for value in ranges:
        yield _with(spec, "initializer_range", float(f"{value:.3g}"))


def _with(spec: ArchitectureSpec, key: str, value: str | float) -> Way:
    shown = f'"{value}"' if isinstance(value, str) else f"{value}"
    changed = replace(spec, values={**spec.values, key: value})
    return f"{key} {value}", changed, (f'"{key}": {shown}',)
