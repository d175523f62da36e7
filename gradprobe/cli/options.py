"""The options that several commands share, each in one place."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gradprobe.errors import ExitCode, InputError
from gradprobe.spec.network import split
from gradprobe.spec.options import (
    AUTO,
    Limits,
    ProbeOptions,
    Seeds,
    choose_seeds,
    parse_bytes,
    seeds_in,
)
from gradprobe.spec.sources.python import CodeOptions, read_arguments, read_tensor
from gradprobe.spec.sources.stack import StackOptions
from gradprobe.spec.sources.yaml import parse_init
from gradprobe.spec.vocabulary import MODES
from gradprobe.verdict.report import Report, Severity


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class CompareFormat(StrEnum):
    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class Color(StrEnum):
    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class FailOn(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class CheckFormat(StrEnum):
    CONCISE = "concise"
    FULL = "full"
    JSON = "json"
    JSON_LINES = "json-lines"
    JUNIT = "junit"
    SARIF = "sarif"
    GITHUB = "github"
    GITLAB = "gitlab"
    MARKDOWN = "markdown"


class Dtype(StrEnum):
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"


class Level(StrEnum):
    BLOCKS = "blocks"
    LEAVES = "leaves"


class By(StrEnum):
    ROW = "row"
    POSITION = "position"


class LossName(StrEnum):
    PROJECTION = "projection"
    CROSS_ENTROPY = "cross_entropy"
    MSE = "mse"
    OWN = "own"


class Norm(StrEnum):
    NONE = "none"
    BATCH = "batch"
    LAYER = "layer"
    RMS = "rms"


_HF = "Hugging Face configurations"
_STACK, _PROBE, _LIMITS = "Built-in stacks", "Probe", "Limits"
_CODE, _OUTPUT, _RULES = "Python models", "Output", "Rules and configuration"
_RUN, _BASELINE = "Run", "Baseline"

Target = Annotated[str, typer.Argument(help="A spec file, -, plain, residual or a config.json.")]
Targets = Annotated[list[str], typer.Argument(help="Spec files, -, plain, residual, JSON reports.")]
AnyTarget = Annotated[
    str, typer.Argument(help="A spec file, -, plain, residual, or package.module:name.")
]
Depth = Annotated[int, typer.Option(help="Blocks.", rich_help_panel=_STACK)]
Width = Annotated[int, typer.Option(help="Units per layer.", rich_help_panel=_STACK)]
Activation = Annotated[
    str, typer.Option(help="tanh, relu, gelu, ... or none.", rich_help_panel=_STACK)
]
Init = Annotated[
    str | None,
    typer.Option(help="Weight init, such as kaiming_normal.", rich_help_panel=_STACK),
]
NormOption = Annotated[
    Norm, typer.Option("--norm", help="Normalisation in each block.", rich_help_panel=_STACK)
]
ZeroInit = Annotated[
    bool, typer.Option("--zero-init", help="Start each branch at zero.", rich_help_panel=_STACK)
]
Seed = Annotated[int, typer.Option(help="Of weights, inputs, loss.", rich_help_panel=_PROBE)]
FirstSeed = Annotated[
    int | None,
    typer.Option("--seed", help="Of weights, inputs, loss; default 0.", rich_help_panel=_PROBE),
]
SeveralSeeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        help="How many, which, or auto: until the verdict is settled.",
        metavar="N|LIST|auto",
        rich_help_panel=_PROBE,
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(help="Samples; default the spec's, or 32.", rich_help_panel=_PROBE)
]
DtypeOption = Annotated[
    Dtype, typer.Option("--dtype", help="Of weights and gradients.", rich_help_panel=_PROBE)
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=_PROBE)]
LossOption = Annotated[
    LossName | None,
    typer.Option("--loss", help="Default: the spec's, or projection.", rich_help_panel=_PROBE),
]
AnyLoss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="LOSS",
        help="projection, cross_entropy, mse; or package.module:function of a Python model's "
        "output. Default: the spec's, or projection.",
        rich_help_panel=_PROBE,
    ),
]
AnyDtype = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        help="Of weights and gradients; default float32, or as a Python model has it.",
        rich_help_panel=_PROBE,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="A batch: .npy, .npz or .safetensors.", rich_help_panel=_PROBE),
]
LevelOption = Annotated[
    Level, typer.Option("--level", help="Rows, or the leaves inside too.", rich_help_panel=_PROBE)
]
ByOption = Annotated[
    By, typer.Option("--by", help="Rows, or positions of a sequence.", rich_help_panel=_PROBE)
]
Blocks = Annotated[
    bool,
    typer.Option("--blocks", help="Show highway, branch and gain.", rich_help_panel=_PROBE),
]
Theory = Annotated[
    bool,
    typer.Option("--theory", help="Mean-field theory beside it.", rich_help_panel=_PROBE),
]
Rows = Annotated[
    str | None,
    typer.Option(help="The modules that are the blocks.", metavar="GLOB", rich_help_panel=_PROBE),
]
Layers = Annotated[
    int | None, typer.Option(help="Instead of as many as it says.", rich_help_panel=_HF)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value.", metavar="KEY=VALUE", rich_help_panel=_HF),
]
Deep = Annotated[
    bool,
    typer.Option("--deep", help="Judge by the chance of training.", rich_help_panel=_PROBE),
]
DeepOrNot = Annotated[
    bool | None,
    typer.Option(
        "--deep/--no-deep",
        help="Judge by the chance of training (the default), or by reach alone.",
        rich_help_panel=_PROBE,
    ),
]
MaxParameters = Annotated[
    int, typer.Option(help="Refuse larger networks.", rich_help_panel=_LIMITS)
]
MaxMemory = Annotated[str, typer.Option(help="Refuse larger networks.", rich_help_panel=_LIMITS)]
Arg = Annotated[
    list[str] | None,
    typer.Option(
        "--arg", metavar="KEY=VALUE", help="An argument; repeatable.", rich_help_panel=_CODE
    ),
]
ImportPath = Annotated[
    str | None,
    typer.Option(
        "--path", metavar="DIR", help="Import from here; default .", rich_help_panel=_CODE
    ),
]
InputTensor = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="TENSOR",
        help="shape=32,64/dtype=float32 or shape=8,128/dtype=int64/high=1000, the batch first; "
        "once for each argument.",
        rich_help_panel=_CODE,
    ),
]
InputFunction = Annotated[
    str | None,
    typer.Option(
        "--inputs",
        metavar="package.module:function",
        help="It gives a tensor, a tuple of arguments, a dict of keywords, or (tuple, dict).",
        rich_help_panel=_CODE,
    ),
]
TrainMode = Annotated[
    bool | None,
    typer.Option(
        "--train-mode/--eval-mode", help="Default: as it was built.", rich_help_panel=_CODE
    ),
]
CodeTimeout = Annotated[
    float, typer.Option(help="Seconds that the code may take.", rich_help_panel=_CODE)
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Run what a spec's model: names.", rich_help_panel=_CODE),
]
InProcess = Annotated[
    bool,
    typer.Option(
        "--trusted-in-process",
        help="Run it without a process of its own: faster.",
        rich_help_panel=_CODE,
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="Of the output.", rich_help_panel=_OUTPUT)
]
CompareFormatOption = Annotated[
    CompareFormat, typer.Option("--format", help="Of the output.", rich_help_panel=_OUTPUT)
]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", help="Write to FILE.", metavar="FILE", rich_help_panel=_OUTPUT),
]
All = Annotated[bool, typer.Option("--all", help="Show every row.", rich_help_panel=_OUTPUT)]
ColorOption = Annotated[
    Color, typer.Option("--color", help="When to colour.", rich_help_panel=_OUTPUT)
]
FailOnOption = Annotated[
    FailOn, typer.Option("--fail-on", help="Least severity for exit 1.", rich_help_panel=_OUTPUT)
]
FailOnOrNot = Annotated[
    FailOn | None,
    typer.Option(
        "--fail-on", help="Exit 1 from this severity; default never.", rich_help_panel=_OUTPUT
    ),
]
ExitZero = Annotated[
    bool, typer.Option("--exit-zero", help="Exit 0 whatever is found.", rich_help_panel=_OUTPUT)
]

CheckFormatOption = Annotated[
    CheckFormat,
    typer.Option(
        "--output-format",
        help=f"{', '.join(CheckFormat)}.",
        metavar="FORMAT",
        rich_help_panel=_OUTPUT,
    ),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--output",
        help="Write to FILE; may be given several times.",
        metavar="[FORMAT=]FILE",
        rich_help_panel=_OUTPUT,
    ),
]
FailOnOrConfig = Annotated[
    FailOn | None,
    typer.Option("--fail-on", help="Least severity for exit 1.", rich_help_panel=_OUTPUT),
]
Select = Annotated[
    list[str] | None,
    typer.Option(help="Rules: codes, names, prefixes.", metavar="RULES", rich_help_panel=_RULES),
]
IgnoreRules = Annotated[
    list[str] | None,
    typer.Option("--ignore", help="Rules to leave out.", metavar="RULES", rich_help_panel=_RULES),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="As in a .gitignore.", metavar="PATTERNS", rich_help_panel=_RULES),
]
ForceExclude = Annotated[
    bool,
    typer.Option("--force-exclude", help="Also files named outright.", rich_help_panel=_RULES),
]
Config = Annotated[
    str | None,
    typer.Option(help="Instead of the nearest.", metavar="FILE", rich_help_panel=_RULES),
]
Isolated = Annotated[
    bool, typer.Option("--isolated", help="Read no configuration.", rich_help_panel=_RULES)
]
ShowConfig = Annotated[
    bool,
    typer.Option("--show-config", help="Print what is in force.", rich_help_panel=_RULES),
]
CheckSeeds = Annotated[
    str | None,
    typer.Option(help="How many, or which: 3 or 5,7.", rich_help_panel=_PROBE),
]
Timeout = Annotated[
    float | None, typer.Option(min=0.01, help="Seconds for one target.", rich_help_panel=_RUN)
]
Jobs = Annotated[
    int | None,
    typer.Option("-j", "--jobs", min=1, max=256, help="Processes.", rich_help_panel=_RUN),
]
Shard = Annotated[
    str, typer.Option(help="The K-th of N parts.", metavar="K/N", rich_help_panel=_RUN)
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Measure everything anew.", rich_help_panel=_RUN)
]
CacheDir = Annotated[
    str | None,
    typer.Option(help="Default .gradprobe_cache.", metavar="DIR", rich_help_panel=_RUN),
]
BaselineFile = Annotated[
    str | None,
    typer.Option(
        "--baseline", help="Known findings pass.", metavar="FILE", rich_help_panel=_BASELINE
    ),
]
WriteBaseline = Annotated[
    str | None,
    typer.Option(help="Make today's findings known.", metavar="FILE", rich_help_panel=_BASELINE),
]
PruneBaseline = Annotated[
    bool,
    typer.Option("--prune-baseline", help="Drop what was mended.", rich_help_panel=_BASELINE),
]
Regression = Annotated[
    float | None,
    typer.Option(min=1, help="Factor by which a reach may get worse.", rich_help_panel=_BASELINE),
]

DEFAULT_LIMITS = Limits()
DEFAULT_MEMORY = f"{DEFAULT_LIMITS.memory // 2**30}GiB"


def stack_options(
    depth: int, width: int, activation: str, init: str | None, norm: str, zero_init: bool
) -> StackOptions:
    """The stack that the options describe."""
    parsed = None if init in (None, "default") else parse_init(str(init))
    return StackOptions(depth, width, activation, parsed, str(norm), zero_init)


def probe_options(
    seed: int,
    batch_size: int | None,
    dtype: str | None,
    device: str,
    loss: str | None,
    data: str | None,
    max_parameters: int,
    max_memory: str,
    level: str = "blocks",
    by: str = "row",
    blocks: bool = False,
    theory: bool = False,
    rows: str | None = None,
    deep: bool = False,
) -> ProbeOptions:
    """The probe that the options describe."""
    return ProbeOptions(
        seed=seed,
        batch_size=batch_size,
        dtype=str(dtype) if dtype else None,
        device=device,
        loss=str(loss) if loss else None,
        data=data,
        level=str(level),
        by=str(by),
        blocks=blocks,
        theory=theory,
        rows=rows,
        deep=deep,
        limits=Limits(max_parameters, parse_bytes(max_memory)),
    )


def seeds_of(text: str | None, first: int | None) -> Seeds | None:
    """The seeds that ``--seeds`` asks for, from ``--seed`` on; ``None`` where it is not given."""
    if text is None:
        return None
    return choose_seeds(AUTO if text.strip() == AUTO else seeds_in(text), first)


def code_options(
    arguments: list[str] | None,
    path: str | None,
    tensors: list[str] | None,
    function: str | None,
    train: bool | None,
    loss: str | None,
) -> CodeOptions:
    """What the options say about a Python model."""
    if tensors and function:
        raise InputError("--input and --inputs exclude each other")
    if function:
        split(function)
    return CodeOptions(
        arguments=read_arguments(arguments or ()),
        path=path,
        inputs=function or tuple(map(read_tensor, tensors or ())) or None,
        mode=None if train is None else MODES[0 if train else 1],
        loss=loss,
    )


def exit_code(reports: list[Report], fail_on: FailOn | None) -> int:
    """0, or 1 if a finding that counts is at or above ``fail_on``."""
    if fail_on is None:
        return int(ExitCode.OK)
    severity = Severity[fail_on.name]
    failed = any(report.fails(severity) for report in reports)
    return int(ExitCode.FINDINGS if failed else ExitCode.OK)
