"""``gradprobe check``: the gate. Many specs, one line a finding, one exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gradprobe.cli import gate
from gradprobe.cli.effects import Given
from gradprobe.cli.flatten import flattened
from gradprobe.cli.output import emit, steps, style_for, warn
from gradprobe.cli.reporting import PublishOptions, publish
from gradprobe.render.config import render_config
from gradprobe.spec.options import CheckOptions
from gradprobe.tasks.check.config import resolver, values
from gradprobe.tasks.check.run import check as check_each


@flattened(
    follow={
        "fail_on": "exit_zero",
        "exclude": "force_exclude config isolated show_config allow_code",
        "timeout": "baseline write_baseline prune_baseline",
    }
)
def check(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, directories, globs, -; default '.'.")
    ] = None,
    *,
    publishing: PublishOptions,
    overrides: Annotated[dict[str, Any], CheckOptions],
    seeds: gate.SeedOptions,
    reading: gate.ConfigOptions,
    known: gate.BaselineOptions,
    work: gate.WorkOptions,
    given: Given,
) -> int:
    """Check every spec below PATHS: a line a finding, an exit code.

    0: all passed; 1: findings at or above --fail-on; 2: a usage, configuration, spec or file error,
    or nothing matched; 3: a network that could not be built or run. gradprobe.toml, or
    [tool.gradprobe] in pyproject.toml, holds the configuration: the nearest one above each file.
    """
    options_of = resolver(reading.config, reading.isolated, overrides | seeds.overrides)
    named = paths or ["."]
    if reading.show_config:
        first = Path(named[0])
        options = options_of(first if first.is_dir() else first.parent)
        emit(render_config(values(options), options.origins, style_for(publishing.color, None)))
        return 0
    _ = publishing.files  # a wrong word is told before anything is measured
    baseline = known.load(bool(work.shard))
    run = work.run(reading, publishing.talk.tell, gate.requirement(given))
    result = check_each(named, options_of, run, warn, lambda items, n: steps("specs", items, n))
    result = known.hold(result, baseline, options_of)
    publish(result, publishing)
    return publishing.exit_code(result)
