"""A target's name → its spec, held against the rules."""

from __future__ import annotations

from dataclasses import replace

from gradprobe.errors import InputError
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, NetworkSpec
from gradprobe.spec.sources import table, yaml
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.table import Target, TargetOptions
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
        InputError: as ``sources.table.load``, or its spec ignores a rule that there is not.
    """
    spec = table.load(target, options)
    if not isinstance(spec, ArchitectureSpec):
        check_ignores(spec)
    return spec


def load_network(
    target: str, options: TargetOptions | None = None
) -> NetworkSpec | ArchitectureSpec:
    """The same, for those that run no code of the user's.

    Raises:
        InputError: as ``load_target``, or the target is Python code.
    """
    if table.names_code(target):
        raise InputError(f"{target} is a Python model, which only gradprobe probe takes")
    options = options or TargetOptions()
    spec = load_target(target, replace(options, code=replace(options.code, allow_code=True)))
    if isinstance(spec, CodeSpec):
        hint = "gradprobe probe --allow-code runs it, in a process of its own"
        raise spec.error(f"this spec runs code: {spec.target}", spec.place, hint)
    return spec


def load_spec(target: str, stack: StackOptions | None = None) -> NetworkSpec:
    """The same, where only layers will do.

    Raises:
        InputError: as ``load_network``, or the target is a Hugging Face configuration.
    """
    spec = load_network(target, TargetOptions(stack or StackOptions()))
    if isinstance(spec, ArchitectureSpec):
        raise InputError(f"{target}: a Hugging Face configuration", hint="gradprobe probe takes it")
    return spec
