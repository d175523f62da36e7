"""What a configuration names: targets of the check, and rules that do not count in some files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradprobe.errors import Place
from gradprobe.spec.network import TensorSpec, Value


@dataclass(frozen=True, slots=True)
class PerFileIgnore:
    """A rule that does not count in the files that a pattern matches, and why."""

    pattern: str  # as in a .gitignore, relative to the configuration file
    rule: str  # a code, a name, or what a code begins with
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A target of the check that a configuration names: Python code, or a ``config.json``."""

    target: str  # as on the command line; a file is relative to ``folder``
    folder: str  # of the configuration file
    place: Place  # in that file
    path: str | None = None  # where imports begin, relative to ``folder``
    args: Mapping[str, Value] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] | str | None = None
    mode: str | None = None
    loss: str | None = None
    layers: int | None = None
    settings: tuple[str, ...] = ()  # key=value each
    weights: str | None = None  # a checkpoint, relative to ``folder``
    weights_prefix: str = ""

    @property
    def label(self) -> str:
        """What tells it from others: the target, with what it is built with."""
        own = {**self.args, **({} if self.layers is None else {"layers": self.layers})}
        own |= {} if self.weights is None else {"weights": self.weights}
        words = [*(f"{key}={value}" for key, value in own.items()), *self.settings]
        return f"{self.target}({', '.join(words)})" if words else self.target
