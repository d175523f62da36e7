"""``gradprobe paths``: the product over blocks, expanded."""

from __future__ import annotations

from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.effects import Given
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import progress
from gradprobe.cli.views import of_paths
from gradprobe.spec.options import RunOptions
from gradprobe.spec.sources.table import TargetOptions
from gradprobe.tasks.probe import paths as expand


@flattened(follow=o.TARGET_ORDER)
def paths(
    target: o.Target,
    *,
    max_paths: Annotated[
        int | None,
        typer.Option("--max-paths", min=0, help="Leave out paths through more branches."),
    ] = None,
    about: TargetOptions,
    options: o.PreciseProbe,
    run: RunOptions,
    output: o.TableOutput,
    given: Given,
) -> int:
    """Show how much gradient comes through which paths of the skips.

    Each path goes through each block by its skip or by its branch. Grouped by the number of
    branches on the way, the groups add up to the gradient at the first row, exactly. In a Python or
    Hugging Face model the blocks y = x + F(x) are found.
    """
    spec, options = o.loaded(target, about, options, given)
    with progress(f"expanding {target}"):
        expanded = expand(spec, options, max_paths, run)
    output.publish(of_paths(expanded, target, output.everything))
    return 0
