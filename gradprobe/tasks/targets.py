"""A target's name → its spec, held against the rules."""

from __future__ import annotations

import shlex
from dataclasses import replace

from gradprobe.errors import InputError
from gradprobe.spec.network import ArchitectureSpec, NetworkSpec
from gradprobe.spec.sources import table, yaml
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.table import Target, TargetOptions
from gradprobe.tasks.read_report import is_report
from gradprobe.verdict.rules.table import check_ignores


def load(path: str) -> NetworkSpec:
    """Read a spec file, or ``-`` for standard input.

    Raises:
        InputError: no such file, or it is no spec; names file, line and column.
    """
    spec = yaml.load(path)
    check_ignores(spec)
    return spec


def load_target(target: str, options: TargetOptions | None = None) -> Target:
    """The network that ``target`` names, of whatever kind.

    Raises:
        InputError: as ``sources.table.load``; its spec ignores a rule that there is not; or it is
            an earlier report, which holds no network.
    """
    if is_report(target):
        hint = f"gradprobe compare {shlex.quote(target)} NETWORK sets it beside a network"
        raise InputError(f"{target} is an earlier report, which holds no network", hint=hint)
    spec = table.load(target, options)
    if not isinstance(spec, ArchitectureSpec):
        check_ignores(spec)
    return spec


def load_each(target: str, options: TargetOptions) -> Target:
    """The same, one of several: what is said of other kinds of target does not count for it.

    Raises:
        InputError: as ``load_target``.
    """
    if target == "plain":
        options = replace(options, stack=replace(options.stack, zero_init=False))
    return load_target(target, options)


def load_spec(target: str, stack: StackOptions | None = None) -> NetworkSpec:
    """The same, where only layers will do.

    Raises:
        InputError: as ``load_target``, or the target is no spec and no stack.
    """
    spec = load_target(target, TargetOptions(stack or StackOptions()))
    if not isinstance(spec, NetworkSpec):
        raise InputError(f"{target} is not described in layers")
    return spec
