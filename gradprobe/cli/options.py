"""What several commands take: their targets, and what they change of the options' classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from gradprobe.cli.effects import Given, kind_of
from gradprobe.cli.flatten import Fields
from gradprobe.cli.output import FORMATS, OutputOptions, progress
from gradprobe.errors import InputError
from gradprobe.spec.network import NetworkSpec, is_target
from gradprobe.spec.options import (
    DTYPES,
    NEVER,
    OWN_LOSS,
    SEVERITIES,
    ProbeOptions,
    RunOptions,
    Shown,
    option,
)
from gradprobe.spec.seeds import AUTO, Seeds, choose_seeds, seeds_in
from gradprobe.spec.sources.table import Target as Target_
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks.probe import probe_target
from gradprobe.tasks.read_report import is_report, load
from gradprobe.tasks.sweep import Axes, Job, listed, named
from gradprobe.tasks.targets import load_each, load_target
from gradprobe.verdict.report import Report
from gradprobe.worker.torchrun import torchrun

_KINDS = (
    "package.module:name, file.py:name, a spec file, -, plain, residual, a config.json, "
    "timm:NAME, torchvision:NAME, hf:FOLDER"
)
Target = Annotated[str, typer.Argument(help=f"{_KINDS}.")]
Targets = Annotated[list[str], typer.Argument(help=f"Each: {_KINDS}.")]
_EITHER = f"Each: {_KINDS}, or an earlier report."
Diffed = Annotated[list[str], typer.Argument(help=_EITHER)]
Compared = Annotated[list[str], typer.Argument(help=_EITHER)]
GainAxis = Annotated[str | None, typer.Option(help="Weight std * sqrt(fan_in), zero bias.")]
ArgAxis = Annotated[
    list[str] | None,
    typer.Option(help="Values of an argument; repeatable.", metavar="KEY=VALUE,VALUE"),
]
LayersAxis = Annotated[
    str | None, typer.Option(help="Numbers of layers of a config.json.", metavar="N,N")
]
SetAxis = Annotated[
    list[str] | None,
    typer.Option(help="Values of a key of a config.json; repeatable.", metavar="KEY=VALUE,VALUE"),
]
EmitSpec = Annotated[bool, typer.Option("--emit-spec", help="Print the stack as YAML.")]
FirstSeed = Annotated[
    int | None, typer.Option("--seed", help="Of weights, inputs, loss; default 0.")
]
SeveralSeeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        help="How many, which, or auto: until the verdict is settled.",
        metavar="N|LIST|auto",
    ),
]


_MEASURED = "seed batch_size dtype device loss data rows limits"
_PRECISE = Shown(
    "Of weights and gradients; default float64, or as a Python model has it.", choices=DTYPES
)

_DEEP = Shown("Judge by the chance of training, or by reach.", ("--deep/--no-deep",))

FullProbe = Annotated[ProbeOptions, Fields("", {"deep": option(False, _DEEP)})]
MeasuredProbe = Annotated[ProbeOptions, Fields(_MEASURED)]
JudgedProbe = Annotated[ProbeOptions, Fields(f"{_MEASURED} deep", {"deep": option(False, _DEEP)})]
PreciseProbe = Annotated[ProbeOptions, Fields(_MEASURED, {"dtype": option(None, _PRECISE)})]
SweepProbe = Annotated[ProbeOptions, Fields(f"{_MEASURED} theory")]
_REPORTS = option("text", Shown("Of the output.", choices=(*FORMATS, "csv", "markdown")))
ReportOutput = Annotated[OutputOptions, Fields("", {"format": _REPORTS})]
Unweighted = Annotated[TargetOptions, Fields("stack code architecture")]
TextOutput = Annotated[OutputOptions, Fields("format output html svg color talk")]
TableOutput = Annotated[OutputOptions, Fields("format output html svg everything color talk")]
SweepOutput = Annotated[
    OutputOptions,
    Fields(
        "format output html svg color talk",
        {"format": option("text", Shown("Of the output.", choices=(*FORMATS, "csv")))},
    ),
]
FixOutput = Annotated[
    OutputOptions,
    Fields(
        "format output everything color talk",
        {"everything": option(False, Shown("Try, and show, every change.", ("--all",)))},
    ),
]
DiffOutput = Annotated[
    OutputOptions,
    Fields(
        "format output html svg everything color exit_zero talk",
        {
            "format": option("text", Shown("Of the output.", choices=(*FORMATS, "markdown"))),
            "everything": option(False, Shown("Show what did not change too.", ("--all",))),
        },
    ),
]
CompareOutput = Annotated[
    OutputOptions,
    Fields(
        "format output html svg figure everything color fail_on talk",
        {
            "format": _REPORTS,
            "fail_on": option(
                None, Shown("Exit 1 from this severity; default never.", choices=SEVERITIES)
            ),
        },
    ),
]


# What ``gradprobe probe --help`` lists after an option, where it is not the classes' order.
PROBE_ORDER = {
    "data": "weights weights_prefix",
    "blocks": "arg path input inputs train_mode",
    "timeout": "allow_code",
    "trusted_in_process": "theory rows layers set deep",
    "deep": "lr overfit overfit_time stream boundaries max_parameters max_memory",
}


# The same for the commands that take one target apart.
TARGET_ORDER = {
    "max_memory": "timeout trusted_in_process",
    "data": "weights weights_prefix",
}


def loaded(
    target: str, about: TargetOptions, options: ProbeOptions, given: Given
) -> tuple[Target_, ProbeOptions]:
    """The network that a target names, and the options for it; one without effect is refused.

    Raises:
        InputError: as ``load_target``; an option has no effect on such a target.
    """
    options = replace(options, sharded=torchrun() is not None)
    about, options = with_loss(about, options)
    spec = load_target(target, about)
    given.require_effect([target], [kind_of(spec)])
    given.require_trial(options.overfit != NEVER)
    return spec, options


def reported(
    targets: list[str], about: TargetOptions, options: ProbeOptions, run: RunOptions, given: Given
) -> list[list[Report]]:
    """The reports of each target: those that a file holds, or that of a probe.

    Raises:
        InputError, ModelError: as ``load_each`` and ``probe_target``; an option has no effect.
    """
    if targets.count("-") > 1:
        raise InputError("standard input ('-') can be read only once")
    about, options = with_loss(about, options)
    sources = [load(t) if is_report(t) else load_each(t, about) for t in targets]
    kinds = ["report" if isinstance(source, list) else kind_of(source) for source in sources]
    given.require_effect(targets, kinds)
    reports: list[list[Report]] = []
    for number, source in enumerate(sources, 1):
        if isinstance(source, list):
            reports.append(source)
            continue
        own = options.loss != OWN_LOSS or not isinstance(source, NetworkSpec)
        each = options if own else replace(options, loss=None)
        with progress(f"probing {source.source} ({number} of {len(sources)})"):
            reports.append([probe_target(source, each, run=run)])
    return reports


def axes(
    stacks: dict[str, str | None], arg: list[str], layers: str | None, settings: list[str]
) -> Axes:
    """What a sweep varies, by what was typed.

    Raises:
        InputError: a value is empty or stands twice; --init and --gain are both given.
    """
    if stacks["init"] and stacks["gain"]:
        raise InputError("--init and --gain both set the weights: give one")
    specs = {name: listed(name, text) for name, text in stacks.items() if text is not None}
    counts = {"layers": listed("layers", layers)} if layers is not None else {}
    return Axes(specs, named("--arg", arg), counts | named("--set", settings))


def require_swept(given: Given, targets: list[str], jobs: list[Job]) -> None:
    """Refuse an option without an effect on what is swept.

    Raises:
        InputError: there is one.
    """
    kinds = {job.target: kind_of(job.spec) for job in jobs}
    deepens = ("depth",) if "spec" in kinds.values() else ()
    given.require_effect(targets, list(kinds.values()), deepens)


def with_loss(about: TargetOptions, options: ProbeOptions) -> tuple[TargetOptions, ProbeOptions]:
    """``--loss`` for both: code takes any, and a loss that is code is for code alone."""
    loss = options.loss
    about = replace(about, code=replace(about.code, loss=loss))
    return about, replace(options, loss=None if loss and is_target(loss) else loss)


def seeds_of(text: str | None, first: int | None) -> Seeds | None:
    """The seeds that ``--seeds`` asks for, from ``--seed`` on; ``None`` where it is not given."""
    if text is None:
        return None
    return choose_seeds(AUTO if text.strip() == AUTO else seeds_in(text), first)
