"""One target at two git revisions, with the options of a probe → the report of each."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from gradprobe.cli.effects import Given, kind_of
from gradprobe.cli.options import loaded
from gradprobe.cli.output import progress
from gradprobe.errors import InputError
from gradprobe.spec.network import script_of
from gradprobe.spec.options import ProbeOptions, RunOptions
from gradprobe.spec.sources.table import Target, TargetOptions
from gradprobe.tasks.revisions import checked_out
from gradprobe.verdict.report import Report


def reports_at(
    revisions: str,
    target: str,
    about: TargetOptions,
    options: ProbeOptions,
    run: RunOptions,
    given: Given,
) -> tuple[list[Report], list[Report]]:
    """The reports of ``target`` before and after; data and weights are those of the working tree.

    Raises:
        InputError: there are no such revisions, or the target is the same at all of them.
        ModelError: as ``probe_target``; both say at which revision.
    """
    weights = replace(about.weights, file=_absolute(about.weights.file))
    about, options = replace(about, weights=weights), replace(options, data=_absolute(options.data))
    reports: list[list[Report]] = []
    with checked_out(revisions) as sides:
        for side in sides:
            with side.entered(), progress(f"probing {target} at {side.name}"):
                spec, own = loaded(target, about, options, given)
                _require_tracked(target, spec)
                reports.append([side.probed(spec, own, run)])
    before, after = reports
    return before, after


def _absolute(file: str | None) -> str | None:
    return os.path.abspath(file) if file else file


def _require_tracked(target: str, spec: Target) -> None:
    """Refuse what no revision changes.

    Raises:
        InputError: it is no file of the repository.
    """
    script = script_of(target)
    outside = target == "-" or Path(script[0] if script else target).is_absolute()
    if outside or kind_of(spec) in ("stack", "named"):
        hint = "a path from here, or package.module:name"
        raise InputError(f"--rev: {target} is the same at any revision", hint=hint)
