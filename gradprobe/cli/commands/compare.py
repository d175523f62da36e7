"""``gradprobe compare``: several targets, their heat bars side by side."""

from __future__ import annotations

from gradprobe.cli import options as o
from gradprobe.cli.effects import Given
from gradprobe.cli.flatten import flattened
from gradprobe.cli.views import of_comparison
from gradprobe.spec.options import RunOptions
from gradprobe.spec.sources.table import TargetOptions


@flattened(follow=o.TARGET_ORDER)
def compare(
    targets: o.Compared,
    *,
    about: TargetOptions,
    options: o.JudgedProbe,
    run: RunOptions,
    output: o.CompareOutput,
    given: Given,
) -> int:
    """Show how far the gradient reaches in several networks.

    The same layer has the same weights in each built-in stack, so that the skip is the only
    difference. A target that ends in .json may be an earlier report of probe or check: before and
    after, row by row. It is for looking: it exits 0 unless --fail-on is given.
    """
    each = o.reported(targets, about, options, run, given)
    reports = [report for source in each for report in source]
    output.publish(of_comparison(reports, output.everything))
    return output.exit_code(reports)
