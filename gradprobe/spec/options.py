"""What a probe may be told, with its defaults. One place, read by the library and the commands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

from gradprobe.errors import InputError, suggestion
from gradprobe.spec.entry import Entry, PerFileIgnore
from gradprobe.spec.network import Ignore, is_target
from gradprobe.spec.seeds import AUTO
from gradprobe.spec.sizes import parse_bytes
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
NEVER, ALWAYS = "never", "always"
TRIALS = (NEVER, AUTO, ALWAYS)  # when a network is tried: auto is where its prediction is not clear
TRIAL_SECONDS = 30.0  # of one in the check


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
    panel: str = ""  # of ``--help``; by default that of the dataclass


def _trial(typed: bool) -> str:
    return ALWAYS if typed else NEVER


def option(default: Any, shown: Shown) -> Any:
    """A field of an options dataclass, which a command line can offer; a type makes its default."""
    if isinstance(default, type):
        return field(default_factory=default, metadata={"shown": shown})
    return field(default=default, metadata={"shown": shown})


_LOSS = Shown(
    "projection, cross_entropy, mse; or package.module:function of a Python model's output. "
    "Default: the spec's, or projection.",
    metavar="LOSS",
    panel="Measurement",
)
_DATA = Shown("A batch: .npy, .npz or .safetensors.", metavar="FILE", panel="Measurement")
_ROWS = Shown("The modules that are the blocks.", metavar="GLOB", panel="Measurement")
_BATCH = Shown("Samples; default the spec's, or 32.", panel="Measurement")
_PARAMETERS = Shown("Refuse larger networks.", ("--max-parameters",), panel="Limits")
_MEMORY = Shown(
    "Refuse larger networks.",
    ("--max-memory",),
    read=parse_bytes,
    kind=str,
    typed="8GiB",
    metavar="SIZE",
    panel="Limits",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a network may cost before anything is allocated; the defaults fit a laptop."""

    parameters: int = option(1_000_000_000, _PARAMETERS)
    memory: int = option(8 * 2**30, _MEMORY)  # bytes


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """What is measured, and on what. ``None`` means: what the target says, else the default.

    Raises:
        InputError: a value is out of range or a word is unknown.
    """

    seed: int = option(0, Shown("Of weights, inputs, loss."))
    batch_size: int | None = option(None, _BATCH)
    dtype: str | None = option(
        None,
        Shown(
            "Of weights and gradients; default float32, or as a Python model has it.",
            choices=DTYPES,
        ),
    )
    device: str = option("cpu", Shown("cpu, cuda, cuda:1, mps.", metavar="DEVICE"))
    loss: str | None = option(None, _LOSS)
    data: str | None = option(None, _DATA)
    level: str = option("blocks", Shown("Rows, or the leaves inside too.", choices=LEVELS))
    by: str = option("row", Shown("Rows, or positions of a sequence.", choices=UNITS))
    blocks: bool = option(False, Shown("Show highway, branch and gain."))
    attention: bool = option(False, Shown("Show attention's entropy, tokens' likeness."))
    precision: bool = option(False, Shown("Show what float16, bfloat16, float8 lose."))
    theory: bool = option(False, Shown("Mean-field theory beside it."))
    rows: str | None = option(None, _ROWS)
    deep: bool = option(False, Shown("Judge by the chance of training."))
    lr: float | None = option(None, Shown("SGD's learning rate: is it stable at the start?"))
    overfit: str = option(
        NEVER,
        Shown("Try whether it learns one batch by heart.", kind=bool, typed=False, read=_trial),
    )
    overfit_time: float | None = option(None, Shown("Seconds for that; default no end."))
    stream: bool = option(False, Shown("Hold one block in memory at a time."))
    boundaries: str | None = option(
        None, Shown("What stands between streamed blocks is kept so.", choices=("bfloat16",))
    )
    limits: Limits = field(default_factory=Limits)
    sharded: bool = False  # whether each process of torchrun holds a part of the weights

    @property
    def looks_twice(self) -> bool:
        """Whether a second look is taken: a trial that is asked for stands beside a prediction."""
        return self.deep or self.overfit == ALWAYS or self.lr is not None

    @property
    def needs_whole(self) -> str | None:
        """The option that needs the whole network in memory, where there is one."""
        needing = {
            "--lr": self.lr is not None,
            "--overfit": self.overfit != NEVER,
            "--precision in bfloat16": self.precision and self.dtype == DTYPES[2],
            "--level leaves": self.level == LEVELS[1],
        }
        return next((flag for flag, given in needing.items() if given), None)

    @property
    def needs_one_process(self) -> str | None:
        """The option that cannot be had of weights that several processes hold."""
        needing = {
            "--deep": self.deep,
            "--stream": self.stream,
            "--blocks": self.blocks,
            "--attention": self.attention,
            "--precision": self.precision,
            "--by position": self.by == UNITS[1],
        }
        return self.needs_whole or next((flag for flag, given in needing.items() if given), None)

    def __post_init__(self) -> None:
        choose("--overfit", self.overfit, TRIALS)
        if self.sharded and (flag := self.needs_one_process):
            message = f"{flag} needs one process, and under torchrun each holds a part"
            raise InputError(message, hint=f"leave {flag} out, or torchrun")
        if self.stream and (flag := self.needs_whole):
            message = f"{flag} needs the whole network, and --stream makes one block at a time"
            raise InputError(message, hint="leave one of them out")
        if self.boundaries and not self.stream:
            raise InputError("--boundaries is about one block at a time", hint="add --stream")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"--lr {self.lr:g} is no learning rate: it is to be above 0")
        if self.overfit_time is not None and not 0 < self.overfit_time <= MAX_TIMEOUT:
            bounds = f"{self.overfit_time:g} is out of range (0 to {MAX_TIMEOUT:,.0f} s)"
            raise InputError(f"--overfit-time {bounds}")
        if self.overfit != NEVER and self.by == "position":
            raise InputError("--overfit is about rows: leave --by position out")
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
    attention: bool
    precision: bool
    thresholds: Mapping[str, float] | None
    deep: bool
    lr: float | None
    overfit: bool | str
    overfit_time: float | None
    stream: bool
    boundaries: str | None
    max_memory: int
    seeds: int | Sequence[int] | str | None


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
    include: tuple[str, ...] = ()  # patterns of files that are specs, whatever is in them
    targets: tuple[Entry, ...] = ()
    per_file_ignores: tuple[PerFileIgnore, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(THRESHOLDS))
    seeds: tuple[int, ...] = (0,)
    deep: bool = option(  # two more passes
        True,
        Shown(
            "Judge by the chance of training (the default), or by reach alone.",
            ("--deep/--no-deep",),
        ),
    )
    overfit: str = option(
        AUTO,
        Shown(
            "Try whether it learns one batch by heart; default: where the prediction is unclear.",
            ("--overfit/--no-overfit",),
            read=_trial,
            kind=bool,
        ),
    )
    overfit_time: float = option(TRIAL_SECONDS, Shown("Seconds for that; default 30.", least=0.01))
    loss: str | None = option(None, _LOSS)
    data: str | None = option(None, _DATA)
    rows: str | None = option(None, _ROWS)
    batch_size: int | None = option(None, _BATCH)
    max_parameters: int = option(Limits().parameters, _PARAMETERS)
    max_memory: int = option(Limits().memory, _MEMORY)  # bytes
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
        return ProbeOptions(
            seed=seed,
            batch_size=self.batch_size,
            loss=self.loss,
            data=self.data,
            rows=self.rows,
            deep=self.deep,
            overfit=self.overfit,
            overfit_time=min(self.overfit_time, self.timeout / 2),
            limits=limits,
        )


def choose(name: str, word: str, words: tuple[str, ...]) -> str:
    """``word``, if it is one of ``words``; ``name`` is what an error calls it.

    Raises:
        InputError: with the nearest of the words.
    """
    if word not in words:
        hint = suggestion(word, words) or f"known: {', '.join(words)}"
        raise InputError(f"{name}: unknown word '{word}'", hint=hint)
    return word


def misordered(thresholds: Mapping[str, float]) -> str:
    """What is wrong where thresholds bound no bands; an empty string where they ascend."""
    values = [thresholds[key] for key in THRESHOLDS]
    order = " ≤ ".join(f"{key} {thresholds[key]:g}" for key in THRESHOLDS)
    return "" if values == sorted(values) else f"thresholds: must ascend: {order}"
