"""``gradprobe check``: the gate. Many specs, one line a finding, one exit code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gradprobe.cli import options as o
from gradprobe.cli.output import emit, steps, style_for, warn
from gradprobe.cli.reporting import destinations, publish
from gradprobe.errors import ExitCode, InputError
from gradprobe.files import write_atomically
from gradprobe.render.config import render_config
from gradprobe.tasks.check import baseline as baselines
from gradprobe.tasks.check import run as gate
from gradprobe.tasks.check.cache import NAME, Cache
from gradprobe.tasks.check.config import nearest, parse_list, parse_seeds, resolver, values
from gradprobe.tasks.check.result import CheckResult


def check(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, directories, globs, -; default '.'.")
    ] = None,
    output_format: o.CheckFormatOption = o.CheckFormat.CONCISE,
    output: o.Outputs = None,
    color: o.ColorOption = o.Color.AUTO,
    fail_on: o.FailOnOrConfig = None,
    exit_zero: o.ExitZero = False,
    select: o.Select = None,
    ignore: o.IgnoreRules = None,
    exclude: o.Exclude = None,
    force_exclude: o.ForceExclude = False,
    config: o.Config = None,
    isolated: o.Isolated = False,
    show_config: o.ShowConfig = False,
    allow_code: o.AllowCode = False,
    seeds: o.CheckSeeds = None,
    deep: o.DeepOrNot = None,
    batch_size: o.BatchSize = None,
    timeout: o.Timeout = None,
    baseline: o.BaselineFile = None,
    write_baseline: o.WriteBaseline = None,
    prune_baseline: o.PruneBaseline = False,
    regression: o.Regression = None,
    jobs: o.Jobs = None,
    shard: o.Shard = "1/1",
    no_cache: o.NoCache = False,
    cache_dir: o.CacheDir = None,
) -> int:
    """Check every spec below PATHS: one line a finding, and an exit code for CI.

    0: all passed; 1: findings at or above --fail-on; 2: a usage, configuration, spec or file error,
    or nothing matched; 3: a network that could not be built or run. gradprobe.toml, or
    [tool.gradprobe] in pyproject.toml, holds the configuration: the nearest one above each file.
    """
    overrides = {
        "select": parse_list("--select", select, rules=True),
        "ignore": parse_list("--ignore", ignore, rules=True),
        "exclude": parse_list("--exclude", exclude),
        "fail_on": str(fail_on) if fail_on else None,
        "regression": regression,
        "seeds": parse_seeds(seeds),
        "deep": deep,
        "batch_size": batch_size,
        "timeout": timeout,
    }
    options_of = resolver(config, isolated, overrides)
    named = paths or ["."]
    if show_config:
        options = options_of(_folder_of(named[0]))
        emit(render_config(values(options), options.origins, style_for(color, None)))
        return 0
    destinations(output or [], output_format)  # a wrong word is told before anything is measured
    known = _baseline(baseline, write_baseline, prune_baseline)
    part = _shard(shard)
    if write_baseline and part[1] > 1:
        raise InputError("--write-baseline needs the whole list: leave --shard out")
    folder = Path(cache_dir) if cache_dir else _project() / NAME
    run = gate.Run(jobs, part, None if no_cache else Cache(folder), force_exclude, allow_code)
    result = gate.check(
        named, options_of, run, warn, lambda items, total: steps("specs", items, total)
    )
    if write_baseline:
        baseline, known = write_baseline, baselines.of(result, write_baseline)
        write_atomically(write_baseline, baselines.dump(known))
    elif baseline and known and prune_baseline:
        known = baselines.pruned(known, result, lambda path: gate.selection_of(options_of, path))
        write_atomically(baseline, baselines.dump(known))
    if baseline and known:
        result = gate.hold(result, known, baseline, options_of, part[0] == 1)
    publish(result, output_format, output or [], color)
    return _exit_code(result, exit_zero)


def _baseline(
    baseline: str | None, write_baseline: str | None, prune: bool
) -> baselines.Baseline | None:
    """The baseline to hold the result to; a wrong one is told before anything is measured."""
    if baseline and write_baseline:
        raise InputError("--baseline and --write-baseline contradict each other")
    if prune and not baseline:
        raise InputError("--prune-baseline needs --baseline FILE")
    return baselines.load(baseline) if baseline else None


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise InputError(f"--shard {text}: not K/N with K from 1 to N", hint="--shard 2/4")
    return number, count


def _project() -> Path:
    """The directory of the configuration that counts here, or this one."""
    path = nearest(Path.cwd())
    return path.parent if path else Path.cwd()


def _folder_of(path: str) -> Path:
    return Path(path) if Path(path).is_dir() else Path(path).parent


def _exit_code(result: CheckResult, exit_zero: bool) -> int:
    code = result.exit_code
    return int(ExitCode.OK if exit_zero and code is ExitCode.FINDINGS else code)
