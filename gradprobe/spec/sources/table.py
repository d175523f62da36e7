"""What a user names → a spec. One table of sources, one way in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gradprobe.errors import InputError
from gradprobe.spec.network import (
    ArchitectureSpec,
    CodeSpec,
    NetworkSpec,
    is_script,
    is_target,
)
from gradprobe.spec.sources import huggingface, named, python, stack, yaml
from gradprobe.spec.sources.hints import is_no_target, refuse
from gradprobe.spec.sources.huggingface import ArchitectureOptions
from gradprobe.spec.sources.python import CodeOptions
from gradprobe.spec.sources.stack import STACKS, StackOptions
from gradprobe.spec.weights import WeightsOptions

Target: TypeAlias = NetworkSpec | CodeSpec | ArchitectureSpec


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What is said about a target, by the kind of target that it is said about."""

    stack: StackOptions = field(default_factory=StackOptions)
    code: CodeOptions = field(default_factory=CodeOptions)
    architecture: ArchitectureOptions = field(default_factory=ArchitectureOptions)
    weights: WeightsOptions = field(default_factory=WeightsOptions)


class Source(NamedTuple):
    """One kind of target.

    ``matches`` says by its name alone whether a target is of this kind; ``load`` reads it and
    raises ``InputError`` where it is wrong.
    """

    matches: Callable[[str], bool]
    load: Callable[[str, TargetOptions], Target]


def _spec_file(target: str, options: TargetOptions) -> NetworkSpec | CodeSpec:
    spec = yaml.load_or_code(target)
    return python.completed(spec, options.code) if isinstance(spec, CodeSpec) else spec


# The first that matches is asked; a spec file is what remains.
SOURCES: tuple[Source, ...] = (
    Source(named.is_model, lambda target, options: named.load(target, options.code)),
    Source(named.is_added, lambda target, options: named.load_added(target, options, options.code)),
    Source(
        lambda target: is_target(target) or is_script(target),
        lambda target, options: python.load(target, options.code),
    ),
    Source(is_no_target, refuse),
    Source(
        lambda target: target in STACKS and not Path(target).is_file(),
        lambda target, options: stack.load(target, options.stack),
    ),
    Source(
        huggingface.is_config,
        lambda target, options: replace(
            huggingface.load(target, options.architecture), mode=options.code.mode
        ),
    ),
    Source(lambda target: True, _spec_file),
)


def load(target: str, options: TargetOptions | None = None) -> Target:
    """The network that ``target`` names.

    Args:
        target: a spec file, ``-``, a built-in stack, a Hugging Face ``config.json`` or its folder,
            ``package.module:name``, ``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER``.

    Raises:
        InputError: there is no such target, or it is none of these.
    """
    options = options or TargetOptions()
    if not target:
        raise InputError("the target's name is empty")
    source = next(source for source in SOURCES if source.matches(target))
    spec = source.load(target, options)
    weights = options.weights.weights
    return replace(spec, weights=weights) if weights else spec
