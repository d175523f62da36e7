"""What a probe may be told, with its defaults. One place, read by the library and the commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

from gradprobe.errors import InputError, suggestion
from gradprobe.spec.network import Ignore, is_target
from gradprobe.spec.vocabulary import LOSSES, THRESHOLDS

DTYPES = ("float32", "float64", "bfloat16")
LEVELS = ("blocks", "leaves")
UNITS = ("row", "position")
MAX_TIMEOUT = 1e6  # seconds
SEVERITIES = ("info", "warning", "error")
DEFAULT_BATCH_SIZE = 32
MAX_BATCH_SIZE = 2**20
ARCHITECTURE_BATCH_SIZE = 8  # of a Hugging Face model, whose samples are sequences or images
OWN_LOSS = "own"  # the one that a Hugging Face model computes from labels
MAX_SEEDS = 1000
AUTO = "auto"
AUTO_SEEDS = (3, 30)  # at least, at most

_NO_SEEDS = "is not a number of seeds, nor a list of them"
_SEEDS_HINT = "5, or 3,7,9; gradprobe probe takes auto too"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Shown(NamedTuple):
    """What a command line has to say of an option."""

    help: str  # one line
    flags: tuple[str, ...] = ()  # its names; by default the field's
    choices: tuple[str, ...] = ()  # the words that it takes
    metavar: str | None = None
    read: Callable[[Any], Any] | None = None  # from what is typed to the value, where they differ
    kind: Any = None  # the type of what is typed, where it is not the field's
    typed: Any = None  # the default as it would be typed, where it is not the field's
    least: float | None = None
    most: float | None = None


def option(default: Any, shown: Shown) -> Any:
    """A field of an options dataclass, which a command line can offer; a type makes its default."""
    if isinstance(default, type):
        return field(default_factory=default, metadata={"shown": shown})
    return field(default=default, metadata={"shown": shown})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a network may cost before anything is allocated; the defaults fit a laptop."""

    parameters: int = option(
        1_000_000_000, Shown("Refuse larger networks.", flags=("--max-parameters",))
    )
    memory: int = option(
        8 * 2**30,
        Shown(
            "Refuse larger networks.",
            flags=("--max-memory",),
            read=lambda text: parse_bytes(text),
            kind=str,
            typed="8GiB",
        ),
    )  # bytes


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """What is measured, and on what. ``None`` means: what the target says, else the default.

    Raises:
        InputError: a value is out of range or a word is unknown.
    """

    seed: int = option(0, Shown("Of weights, inputs, loss."))
    batch_size: int | None = option(None, Shown("Samples; default the spec's, or 32."))
    dtype: str | None = option(
        None,
        Shown(
            "Of weights and gradients; default float32, or as a Python model has it.",
            choices=DTYPES,
        ),
    )
    device: str = option("cpu", Shown("cpu, cuda, cuda:1, mps."))
    loss: str | None = option(
        None,
        Shown(
            "projection, cross_entropy, mse; or package.module:function of a Python model's "
            "output. Default: the spec's, or projection.",
            metavar="LOSS",
        ),
    )
    data: str | None = option(None, Shown("A batch: .npy, .npz or .safetensors."))
    level: str = option("blocks", Shown("Rows, or the leaves inside too.", choices=LEVELS))
    by: str = option("row", Shown("Rows, or positions of a sequence.", choices=UNITS))
    blocks: bool = option(False, Shown("Show highway, branch and gain."))
    theory: bool = option(False, Shown("Mean-field theory beside it."))
    rows: str | None = option(None, Shown("The modules that are the blocks.", metavar="GLOB"))
    deep: bool = option(False, Shown("Judge by the chance of training."))
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.dtype is not None:
            choose("--dtype", self.dtype, DTYPES)
        choose("--level", self.level, LEVELS)
        choose("--by", self.by, UNITS)
        if self.theory and self.by == "position":
            raise InputError("--theory is about rows: leave --by position out")
        if self.deep and self.by == "position":
            raise InputError("--deep is about rows: leave --by position out")
        if self.loss is not None and not is_target(self.loss):
            choose("--loss", self.loss, (*LOSSES, OWN_LOSS))
        if self.batch_size is not None and not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            limits = f"{self.batch_size} is out of range (1 to {MAX_BATCH_SIZE:,})"
            raise InputError(f"--batch-size {limits}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is out of range (0 to 2^63 - 1)")


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What a measurement is judged by.

    ``thresholds`` are the bands of reach, see ``gradprobe rules GP101``; ``select`` and ``ignore``
    are codes, names or what codes begin with; ``reasons`` are ignores that say why.
    """

    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(THRESHOLDS))
    select: tuple[str, ...] = ("ALL",)
    ignore: tuple[str, ...] = ()
    reasons: tuple[Ignore, ...] = ()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How the code of a Python model is run.

    Raises:
        InputError: ``timeout`` is out of range.
    """

    timeout: float = option(120.0, Shown("Seconds that the code may take."))
    in_process: bool = option(
        False,
        Shown("Run it without a process of its own: faster.", flags=("--trusted-in-process",)),
    )

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= MAX_TIMEOUT:
            limits = f"{self.timeout:g} is out of range (0 to {MAX_TIMEOUT:,.0f} s)"
            raise InputError(f"--timeout {limits}")


class ProbeKeywords(TypedDict, total=False):
    """The keywords of ``gradprobe.probe`` and of what asks it: see there for what each says."""

    loss: str | Callable[[Any], Any] | None
    seed: int
    level: str
    rows: str | None
    blocks: bool
    thresholds: Mapping[str, float] | None
    deep: bool
    max_memory: int
    seeds: int | Sequence[int] | str | None


@dataclass(frozen=True, slots=True)
class PerFileIgnore:
    """A rule that does not count in the files that a pattern matches, and why."""

    pattern: str  # as in a .gitignore, relative to the configuration file
    rule: str  # a code, a name, or what a code begins with
    reason: str


def _listed(default: tuple[str, ...], sentence: str, metavar: str) -> Any:
    """A field whose option takes words between commas, and may be given several times."""

    def read(texts: list[str]) -> tuple[str, ...]:
        return tuple(word.strip() for text in texts for word in text.split(",") if word.strip())

    return option(default, Shown(sentence, metavar=metavar, read=read, kind=list[str]))


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How ``gradprobe check`` checks: the defaults, a configuration file over them, options last.

    ``origins`` says of each field that is not the default where its value came from.
    """

    fail_on: str = option("error", Shown("Least severity for exit 1.", choices=SEVERITIES))
    select: tuple[str, ...] = _listed(("ALL",), "Rules: codes, names, prefixes.", "RULES")
    ignore: tuple[str, ...] = _listed((), "Rules to leave out.", "RULES")
    exclude: tuple[str, ...] = _listed((), "As in a .gitignore.", "PATTERNS")
    per_file_ignores: tuple[PerFileIgnore, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(THRESHOLDS))
    seeds: tuple[int, ...] = option(
        (0,),
        Shown(
            "How many, or which: 3 or 5,7.",
            read=lambda text: choose_seeds(seeds_in(text)).seeds,
            kind=str,
        ),
    )
    deep: bool = option(  # two more passes
        True,
        Shown(
            "Judge by the chance of training (the default), or by reach alone.",
            ("--deep/--no-deep",),
        ),
    )
    batch_size: int | None = option(None, Shown("Samples; default the spec's, or 32."))
    max_parameters: int = Limits().parameters
    max_memory: int = Limits().memory  # bytes
    timeout: float = option(120.0, Shown("Seconds for one target.", least=0.01))
    regression: float = option(  # beyond the baseline's
        3.0, Shown("Factor by which a reach may get worse.", least=1)
    )
    root: str = "."  # what the patterns of per_file_ignores are relative to
    exclude_root: str = "."  # and those of exclude
    origins: Mapping[str, str] = field(default_factory=dict)

    def judge(self, reasons: Sequence[Ignore] = ()) -> JudgeOptions:
        """What a measurement is judged by; ``reasons`` are what the configuration ignores."""
        return JudgeOptions(self.thresholds, self.select, self.ignore, tuple(reasons))

    def probe(self, seed: int) -> ProbeOptions:
        """How one seed is probed."""
        limits = Limits(self.max_parameters, self.max_memory)
        return ProbeOptions(seed=seed, batch_size=self.batch_size, deep=self.deep, limits=limits)


class Seeds(NamedTuple):
    """Which seeds are probed, one after another; ``auto``: no more than it takes to settle."""

    seeds: tuple[int, ...]
    auto: bool = False


def choose_seeds(asked: int | Sequence[int] | str, first: int | None = None) -> Seeds:
    """So many seeds from ``first`` on (default 0), those of a list, or ``auto``.

    Raises:
        InputError: out of range, or a list beside ``first``.
    """
    if asked == AUTO:
        return Seeds(_from(first or 0, AUTO_SEEDS[1]), auto=True)
    if isinstance(asked, int) and not isinstance(asked, bool):
        if not 1 <= asked <= MAX_SEEDS:
            message = f"--seeds: {asked} is out of range (1 to {MAX_SEEDS:,})"
            raise InputError(message, hint=_SEEDS_HINT)
        return Seeds(_from(first or 0, asked))
    if not isinstance(asked, list | tuple | range) or not asked or not all(map(is_seed, asked)):
        raise InputError(f"--seeds: {asked!r} {_NO_SEEDS}", hint=_SEEDS_HINT)
    if first is not None:
        hint = "--seeds 3,7,9 alone, or --seed 3 --seeds 5"
        raise InputError("--seed and a list of --seeds contradict each other", hint=hint)
    return Seeds(tuple(dict.fromkeys(asked)))


def seeds_in(text: str) -> int | tuple[int, ...]:
    """The number of ``--seeds 3``, or the list of ``--seeds 5,7``.

    Raises:
        InputError: not whole numbers, or out of range.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(f"--seeds: '{text}' {_NO_SEEDS}", hint=_SEEDS_HINT)
    numbers = tuple(int(word) if len(word) < 20 else 2**63 for word in words)
    if not all(map(is_seed, numbers)):
        message = f"--seeds: {text} is out of range (0 to 2^63 - 1)"
        raise InputError(message, hint=_SEEDS_HINT)
    return numbers if len(numbers) > 1 else numbers[0]


def is_seed(value: object) -> bool:
    """Whether ``value`` may seed a probe."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _from(first: int, count: int) -> tuple[int, ...]:
    if not is_seed(first + count - 1):
        raise InputError(f"--seed {first} is out of range (0 to 2^63 - {count})")
    return tuple(range(first, first + count))


def choose(name: str, word: str, words: tuple[str, ...]) -> str:
    """``word``, if it is one of ``words``; ``name`` is what an error calls it.

    Raises:
        InputError: with the nearest of the words.
    """
    if word not in words:
        hint = suggestion(word, words) or f"known: {', '.join(words)}"
        raise InputError(f"{name}: unknown word '{word}'", hint=hint)
    return word


def ascending(thresholds: Mapping[str, float]) -> bool:
    """Whether the bands that thresholds bound follow each other."""
    values = [thresholds[key] for key in THRESHOLDS]
    return values == sorted(values)


def parse_bytes(text: str) -> int:
    """Bytes from ``4GiB``, ``512M`` or ``1000000``.

    Raises:
        InputError: not a size.
    """
    match = re.fullmatch(
        r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE
    )
    size = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if size < 1:
        raise InputError(f"--max-memory: '{text}' is not a size", hint="like 4GiB or 512MiB")
    return int(size)
