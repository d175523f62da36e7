"""``gradprobe run``: the reports of a training script's first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from gradprobe.cli.flatten import Fields, flattened
from gradprobe.cli.output import OutputOptions, say
from gradprobe.cli.views import of_steps
from gradprobe.measure.measurement import Step
from gradprobe.render.steps import facts
from gradprobe.spec.options import Limits, ProbeOptions, Shown, option
from gradprobe.tasks.script import Script, run_script, steps_in
from gradprobe.verdict.report import Report
from gradprobe.worker.torchrun import ended, rank_of_script

# What follows the script is the script's own.
CONTEXT = {"allow_interspersed_args": False}
_DEEP = Shown("Judge by the chance of training, or by reach.", ("--deep/--no-deep",))


@flattened()
def run(
    script: Annotated[str, typer.Argument(help="A training script, or with -m a module.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="All that follows it.")] = None,
    *,
    module: Annotated[bool, typer.Option("-m", help="Run a module, as python -m does.")] = False,
    steps: Annotated[str, typer.Option(help="Look at these.", metavar="LIST")] = "1",
    optimizer: Annotated[
        int | None, typer.Option(help="Of several: this one, from 0.", metavar="N")
    ] = None,
    emit_inputs: Annotated[
        str | None, typer.Option(help="Keep the batch for --data.", metavar="FILE.safetensors")
    ] = None,
    options: Annotated[ProbeOptions, Fields("rows precision deep", {"deep": option(True, _DEEP)})],
    limits: Annotated[Limits, Fields("memory")],
    output: OutputOptions,
) -> int:
    """Run a training script to its first optimizer step, and show that.

    It is the script's own model, weights, batch, loss and precision; the script stays as it is:
    gradprobe run train.py --epochs 3. What it prints goes to standard error. Several optimizers
    have a report each. --steps 1,10,100 goes on, and shows a column a step. Options stand before
    the script, what follows it is its own.
    """

    def finish(seen: Sequence[Step], reports: Sequence[Report]) -> int:
        if rank_of_script() == "0":  # one process speaks
            for line in facts(seen):
                say(line)
            output.publish(of_steps(seen, reports, output.everything))
        return ended(output.exit_code(reports))

    own = tuple(arguments or ())
    program = Script(script, own, module, steps_in(steps), optimizer, emit_inputs)
    return run_script(program, finish, replace(options, limits=limits))
