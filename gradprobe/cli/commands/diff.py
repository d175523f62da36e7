"""``gradprobe diff``: before and after, and whether it got worse."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.effects import Given
from gradprobe.cli.flatten import flattened
from gradprobe.cli.revisions import reports_at
from gradprobe.cli.views import of_differences
from gradprobe.errors import ExitCode, InputError
from gradprobe.spec.options import RunOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks.diff import differences


@flattened(follow=o.TARGET_ORDER)
def diff(
    targets: o.Diffed,
    *,
    rev: Annotated[
        str | None,
        typer.Option(
            help="Two revisions of one target; A alone: with the files as they are.", metavar="A..B"
        ),
    ] = None,
    regression: Annotated[
        float, typer.Option(min=1, help="Factor by which a reach may get worse.")
    ] = 3.0,
    about: TargetOptions,
    options: o.JudgedProbe,
    run: RunOptions,
    output: o.DiffOutput,
    given: Given,
) -> int:
    """Show what changed between two reports, and whether it got worse.

    Each of the two is an earlier report of probe, compare or check in JSON, or a target. --rev
    main..HEAD probes one target at two git revisions, each in a worktree of its own. Exit 1 where
    it got worse: a graver verdict, a reach that --regression does not allow, or a new error.
    """
    if len(targets) != (1 if rev else 2):
        raise InputError("two targets or reports, or --rev A..B with one target")
    if rev:
        before, after = reports_at(rev, targets[0], about, options, run, given)
    else:
        before, after = o.reported(targets, about, options, run, given)
    found = differences(before, after, regression)
    output.publish(of_differences(found, output.everything))
    worse = any(difference.worse for difference in found) and not output.exit_zero
    return int(ExitCode.FINDINGS if worse else ExitCode.OK)
