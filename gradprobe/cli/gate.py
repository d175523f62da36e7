"""The options of ``gradprobe check`` beside those by which targets are judged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradprobe.cli.effects import Given, kind_of
from gradprobe.cli.output import warn
from gradprobe.errors import InputError
from gradprobe.files import write_atomically
from gradprobe.spec.options import NEVER, CheckOptions, Shown, option
from gradprobe.spec.seeds import choose_seeds, seeds_in
from gradprobe.spec.sources.stack import STACKS
from gradprobe.tasks.check import baseline as baselines
from gradprobe.tasks.check import run as gate
from gradprobe.tasks.check.cache import NAME, Cache, open_cache
from gradprobe.tasks.check.config import nearest
from gradprobe.tasks.check.discover import OptionsOf
from gradprobe.tasks.check.recognise import names_code
from gradprobe.tasks.check.result import CheckResult
from gradprobe.tasks.check.target import Target


@dataclass(frozen=True, slots=True)
class ConfigOptions:
    """Which configuration counts, and for what."""

    force_exclude: bool = option(False, Shown("Also files named outright."))
    config: str | None = option(None, Shown("Instead of the nearest.", metavar="FILE"))
    isolated: bool = option(False, Shown("Read no configuration."))
    show_config: bool = option(False, Shown("Print what is in force."))
    allow_code: bool = option(
        False, Shown("Run Python models; so does GRADPROBE_ALLOW_CODE=1 in the environment.")
    )

    @property
    def code_allowed(self) -> bool:
        """By the option or the environment: nothing in a tree that is checked can allow it."""
        return self.allow_code or os.environ.get("GRADPROBE_ALLOW_CODE") == "1"


@dataclass(frozen=True, slots=True)
class BaselineOptions:
    """The findings that are known already.

    Raises:
        InputError: the options contradict each other.
    """

    baseline: str | None = option(None, Shown("Known findings pass.", metavar="FILE"))
    write_baseline: str | None = option(None, Shown("Make today's findings known.", metavar="FILE"))
    prune_baseline: bool = option(False, Shown("Drop what was mended."))

    def load(self, in_part: bool) -> baselines.Baseline | None:
        """The baseline to hold the result to; a wrong one is told before anything is measured.

        ``in_part``: a part of the list is checked.

        Raises:
            InputError: the options contradict each other, or the file is no baseline.
        """
        if self.baseline and self.write_baseline:
            raise InputError("--baseline and --write-baseline contradict each other")
        if self.prune_baseline and not self.baseline:
            raise InputError("--prune-baseline needs --baseline FILE")
        if self.write_baseline and in_part:
            hint = "gradprobe merge --write-baseline writes that of all parts"
            raise InputError("--write-baseline needs the whole list: leave --shard out", hint=hint)
        return baselines.load(self.baseline) if self.baseline else None

    def hold(
        self,
        result: CheckResult,
        baseline: baselines.Baseline | None,
        options_of: OptionsOf,
    ) -> CheckResult:
        """``result`` in the light of the baseline, which is written or pruned on request."""
        if not self.baseline or not baseline:
            return self.written(result)
        if self.prune_baseline:
            baseline = baselines.pruned(
                baseline, result, lambda path: gate.selection_of(options_of, path)
            )
            write_atomically(self.baseline, baselines.dump(baseline))
        return gate.hold(result, baseline, self.baseline, options_of)

    def written(self, result: CheckResult) -> CheckResult:
        """``result`` with its findings known, where a baseline is to be made of them.

        Raises:
            InputError: it was held to another baseline, or the file cannot be written.
        """
        if not self.write_baseline:
            return result
        baseline = baselines.of(result, self.write_baseline)
        write_atomically(self.write_baseline, baselines.dump(baseline))
        return gate.hold(result, baseline, None, lambda folder: CheckOptions())


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        bounds = f"K is from 1 to {count}" if count else "not K/N with K from 1 to N"
        raise InputError(f"--shard {text}: {bounds}", hint="--shard 2/4")
    return number, count


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """How the work is done: by how many processes, which part of it, and what is remembered."""

    jobs: int | None = option(None, Shown("Processes.", ("-j", "--jobs"), least=1, most=256))
    shard: tuple[int, int] | None = option(
        None, Shown("The K-th of N parts of like work.", metavar="K/N", read=_shard, kind=str)
    )
    no_cache: bool = option(False, Shown("Measure everything anew."))
    cache_dir: str | None = option(None, Shown("Default .gradprobe_cache.", metavar="DIR"))

    @property
    def cache(self) -> Cache | None:
        """The cache, by default beside the configuration that counts here."""
        if self.no_cache:
            return None
        if self.cache_dir:
            return open_cache(Path(self.cache_dir), warn)
        path = nearest(Path.cwd())
        return open_cache((path.parent if path else Path.cwd()) / NAME, warn)

    def run(
        self, reading: ConfigOptions, tell: gate.Warn, require: Callable[[Sequence[Target]], None]
    ) -> gate.Run:
        """How the check goes about its targets."""
        return gate.Run(
            self.jobs,
            self.shard,
            self.cache,
            reading.force_exclude,
            reading.code_allowed,
            tell=tell,
            require=require,
        )


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """The seeds that each target is probed at."""

    seeds: str | None = option(None, Shown("How many, or which: 3 or 5,7.", metavar="N|LIST"))
    seed: int | None = option(None, Shown("The first of them; alone: that one.", least=0))

    @property
    def overrides(self) -> dict[str, tuple[int, ...]]:
        """What stands above the configuration.

        Raises:
            InputError: out of range, or a list beside a first one.
        """
        if self.seeds is None and self.seed is None:
            return {}
        count = 1 if self.seeds is None else seeds_in(self.seeds)
        return {"seeds": choose_seeds(count, self.seed).seeds}


def requirement(given: Given) -> Callable[[Sequence[Target]], None]:
    """A function that refuses an option without effect on any of the targets of a check."""

    def require(targets: Sequence[Target]) -> None:
        given.require_trial(not targets or any(t.options.overfit != NEVER for t in targets))
        names, kinds = [target.path for target in targets], list(map(_kind_of, targets))
        given.require_effect(names, kinds, except_for=("allow_code", "timeout"))

    return require


def _kind_of(target: Target) -> str:
    """A key of ``KINDS``; a spec is not read for it."""
    if target.spec is not None:
        return kind_of(target.spec)
    if target.path in STACKS and not os.path.lexists(target.path):
        return "stack"
    return "code" if names_code(target.data) else "spec"
