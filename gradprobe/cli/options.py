"""What several commands take: their targets, and what they change of the options' classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from gradprobe.cli.flatten import Fields
from gradprobe.cli.output import FORMATS, OutputOptions
from gradprobe.spec.network import is_target
from gradprobe.spec.options import (
    DTYPES,
    OWN_LOSS,
    SEVERITIES,
    ProbeOptions,
    Shown,
    option,
)
from gradprobe.spec.seeds import AUTO, Seeds, choose_seeds, seeds_in
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.spec.vocabulary import LOSSES

Target = Annotated[str, typer.Argument(help="A spec file, -, plain, residual or a config.json.")]
Targets = Annotated[list[str], typer.Argument(help="Spec files, -, plain, residual, JSON reports.")]
AnyTarget = Annotated[
    str, typer.Argument(help="A spec file, -, plain, residual, or package.module:name.")
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


def _of_specs(dtype: str, only: str = "seed batch_size dtype device loss data limits") -> Fields:
    """The probe of a command that takes no code, in ``dtype``."""
    loss = Shown("Default: the spec's, or projection.", choices=(*LOSSES, OWN_LOSS))
    changed = {
        "dtype": option(dtype, Shown("Of weights and gradients.", choices=DTYPES)),
        "loss": option(None, loss),
    }
    return Fields(only, changed)


SpecProbe = Annotated[ProbeOptions, _of_specs("float32")]
PreciseProbe = Annotated[ProbeOptions, _of_specs("float64")]
PathsProbe = Annotated[
    ProbeOptions, _of_specs("float64", "seed batch_size dtype device loss data rows limits")
]
SweepProbe = Annotated[
    ProbeOptions, _of_specs("float32", "seed batch_size dtype device loss theory limits")
]
TextOutput = Annotated[OutputOptions, Fields("output color")]
TableOutput = Annotated[OutputOptions, Fields("format output everything color")]
SweepOutput = Annotated[OutputOptions, Fields("format output color")]
FixOutput = Annotated[
    OutputOptions,
    Fields(
        "format output everything color",
        {"everything": option(False, Shown("Try, and show, every change.", ("--all",)))},
    ),
]
CompareOutput = Annotated[
    OutputOptions,
    Fields(
        "format output everything color fail_on",
        {
            "format": option("text", Shown("Of the output.", choices=(*FORMATS, "markdown"))),
            "fail_on": option(
                None, Shown("Exit 1 from this severity; default never.", choices=SEVERITIES)
            ),
        },
    ),
]


# What ``gradprobe probe --help`` lists after an option, where it is not the classes' order.
PROBE_ORDER = {
    "blocks": "arg path input inputs train_mode",
    "timeout": "allow_code",
    "trusted_in_process": "theory rows layers set deep",
    "deep": "overfit overfit_time max_parameters max_memory",
}


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
