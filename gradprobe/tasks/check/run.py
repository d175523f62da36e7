"""Paths → one ``CheckResult``: specs found, measured or remembered, judged, held to a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from gradprobe._version import __version__
from gradprobe.errors import ExitCode, InputError, Place, located
from gradprobe.files import outside
from gradprobe.spec.network import CodeSpec, Ignore
from gradprobe.spec.options import CheckOptions
from gradprobe.tasks.check import baseline as baselines
from gradprobe.tasks.check.baseline import Baseline
from gradprobe.tasks.check.cache import Cache, DamagedError, key_of
from gradprobe.tasks.check.discover import OptionsOf, discover
from gradprobe.tasks.check.ignore import matches
from gradprobe.tasks.check.job import Done, Job, measure
from gradprobe.tasks.check.result import CheckResult, Diagnostic, Outcome, with_fingerprints
from gradprobe.tasks.check.shard import split
from gradprobe.tasks.check.target import Target, names_network, read, shown_place
from gradprobe.verdict.diagnose import diagnose_seeds
from gradprobe.verdict.judge import judge, versions
from gradprobe.verdict.report import Finding, Report, Severity
from gradprobe.verdict.rules.rule import Selection
from gradprobe.verdict.rules.table import BY_CODE, BY_NAME
from gradprobe.worker import pool
from gradprobe.worker.exchange import Failure, Reply, decode
from gradprobe.worker.origin import unchanged

_ALWAYS = frozenset({"GP901", "GP902"})  # reported whatever is selected

Warn = Callable[[str], None]
Measured = Iterable[tuple[int, Done | Failure]]  # the number of a job, and what came of it
Track = Callable[[Measured, int], Measured]


@dataclass(frozen=True, slots=True)
class Run:
    """How one run of the check goes about its targets; the targets' own options are elsewhere."""

    jobs: int | None = None  # worker processes; by default as many as it takes
    shard: tuple[int, int] | None = None  # which of how many parts of the list
    cache: Cache | None = None
    force_exclude: bool = False
    allow_code: bool = False  # whether the code that a spec names may run
    tell: Warn = lambda text: None  # what only somebody who asks for it wants to know
    require: Callable[[Sequence[Target]], None] = lambda targets: None  # refuses an idle option


def check(
    paths: Sequence[str],
    options_of: OptionsOf,
    run: Run,
    warn: Warn = lambda text: None,
    track: Track = lambda items, total: items,
) -> CheckResult:
    """Check every spec that ``paths`` name, each by the options of its directory.

    What happens to one target does not touch the others. ``warn`` is told what does not change the
    result, ``track`` may watch the targets that are measured.

    Raises:
        InputError: a configuration is wrong, the paths name no spec at all, or an option has no
            effect on any of them.
    """
    discovered = discover(paths, options_of, run.force_exclude)
    for path in discovered.skipped:
        run.tell(f"skipped {path}: no spec of gradprobe's")
    if not discovered.files and not discovered.missing:
        raise InputError("no spec to check", hint="all that the paths name is excluded")
    files, part = discovered.files, None
    if run.shard:
        files, part = split(discovered, options_of, *run.shard)
    targets: list[Target] = []
    # What belongs to no file is the first shard's.
    missing = discovered.missing if part is None or part.number == 1 else ()
    outcomes = [_failed(path, Failure(ExitCode.USAGE, why, hint)) for path, why, hint in missing]
    for path in files:
        entry = discovered.entries.get(path)
        try:
            targets.append(read(path, options_of(_folder(path)), entry, run.allow_code))
        except InputError as error:
            place = entry.place if entry and names_network(entry.target) else None
            outcomes.append(_failed(path, Failure.of(error), place, elsewhere=entry is not None))
    if not outcomes and not run.shard:  # what is not read here may have what an option is for
        run.require(targets)
    outcomes += map(_outcome, targets, _measured(targets, run, warn, track))
    outcomes.sort(key=lambda outcome: outcome.path)
    return CheckResult(tuple(outcomes), __version__, part)


def hold(
    result: CheckResult, baseline: Baseline, file: str | None, options_of: OptionsOf
) -> CheckResult:
    """The result in the light of a baseline: one read from ``file``, or made of this result.

    The first shard answers for the targets whose files are gone.
    """
    outcomes = []
    for outcome in result.outcomes:
        options = options_of(_folder(outcome.path))
        selection = _selection(options)
        compared = baselines.compare(outcome, baseline, options.regression, selection)
        selected = [d for d in compared if d.rule in _ALWAYS or selection.holds(BY_CODE[d.rule])]
        outcomes.append(_ended(replace(outcome, diagnostics=tuple(selected))))
    first = result.part is None or result.part.number == 1
    if file and first and (lost := baselines.gone(baseline, file)):
        outcomes.append(_ended(Outcome(file, lost)))
    outcomes.sort(key=lambda outcome: outcome.path)
    return replace(result, outcomes=tuple(outcomes))


# ---- measured, or remembered


def _measured(targets: Sequence[Target], run: Run, warn: Warn, track: Track) -> list[list[Reply]]:
    """For each target one reply per seed."""
    torch_version = versions()["torch"]
    results: dict[tuple[int, int], Reply] = {}
    todo: list[tuple[tuple[int, int], str, Job]] = []
    cache = run.cache
    for index, target in enumerate(targets):
        for seed in target.options.seeds:
            probe = target.options.probe(seed)
            key = key_of(target.data, probe, torch_version)
            remembered = _remembered(cache, key, target, warn)
            if remembered is not None:
                results[index, seed] = remembered
            else:
                seconds = target.options.timeout
                about = (target.spec, target.tree)
                job = Job(target.name, target.data, probe, seconds, run.allow_code, *about)
                todo.append(((index, seed), key, job))
    workers = run.jobs or pool.default_workers(len(todo))
    done = pool.run(measure, [job for _, _, job in todo], workers)
    for number, result in track(done, len(todo)):
        where, key, _ = todo[number]
        if isinstance(result, Failure):
            results[where] = Reply(failure=result)
            continue
        results[where] = decode(Reply, result.body)
        if cache and result.lasting:
            try:
                cache.write(key, result.body)
            except OSError as error:
                warn(f"no cache: cannot write {cache.folder}: {error.strerror or error}")
                cache = None
    return [[results[i, seed] for seed in t.options.seeds] for i, t in enumerate(targets)]


def _remembered(cache: Cache | None, key: str, target: Target, warn: Warn) -> Reply | None:
    """What is known of a target; of code only while the files that it came from are the same."""
    try:
        reply = cache.reply(key) if cache else None
    except DamagedError:
        warn(f"the cache's entry for {target.path} is damaged, or not this user's: measured anew")
        return None
    if reply is None or not isinstance(target.spec, CodeSpec):
        return reply
    same = reply.origin is not None and unchanged(reply.origin, target.tree)
    return reply if same else None


# ---- judged


def _outcome(target: Target, replies: Sequence[Reply]) -> Outcome:
    failures = [reply.failure for reply in replies if reply.failure]
    lines = _lines(target)
    if failures and lines is None and failures[0].exit_code is ExitCode.USAGE:
        failures[0] = failures[0]._replace(message="a link out of the tree to no spec", hint="")
    if failures:
        elsewhere = target.spec is not None
        return _failed(target.path, failures[0], target.place, lines or [], elsewhere)
    measurements = [reply.measurement for reply in replies if reply.measurement]
    place = next((reply.origin.place for reply in replies if reply.origin), target.place)
    source = _Source(target.path, lines or []) if place is None else _Source.of(place)
    options = target.options
    ignores = [
        Ignore(ignore.rule, ignore.reason)
        for ignore in options.per_file_ignores
        if matches([ignore.pattern], options.root, source.path)
    ]
    judging = options.judge(ignores)
    reports = [judge(measurement, target.path, judging) for measurement in measurements]
    own = measurements[0].check.ignore
    among = diagnose_seeds(reports, (*own, *ignores), _selection(options))
    reports.sort(key=_badness, reverse=True)  # stable: the first seed of equals comes first
    report = reports[0]
    findings = (*_findings(reports), *among)
    diagnostics = tuple(_diagnostic(source, finding, report) for finding in findings)
    fail_on = Severity[options.fail_on.upper()]
    return _ended(Outcome(target.path, diagnostics, report, fail_on=fail_on))


class _Source(NamedTuple):
    """The file that findings are shown in, and the line of those that have none of their own."""

    path: str
    lines: Sequence[str]
    line: int | None = None

    @classmethod
    def of(cls, place: Place) -> _Source:
        """Where a model's class stands."""
        shown = shown_place(place)
        try:
            lines = Path(place.file).read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        return cls(shown.file, lines, place.line)


def _lines(target: Target) -> list[str] | None:
    """The lines of a spec; ``None`` where the file was named and may be anything."""
    if target.spec is not None:
        return []
    if target.path != "-" and outside(target.path):
        return None
    return target.data.decode("utf-8", "replace").splitlines()


def _findings(reports: Sequence[Report]) -> list[Finding]:
    """The findings of all seeds, each once: rule, row and number tell them apart.

    An ignore is unused only where no seed has a use for it.
    """
    by_key: dict[tuple[str, str | None, int], list[Finding]] = {}
    for report in reports:
        seen: Counter[tuple[str, str | None]] = Counter()
        for finding in report.findings:
            key = (finding.rule, finding.row)
            by_key.setdefault((*key, seen[key]), []).append(finding)
            seen[key] += 1
    return [
        same[0]
        for same in by_key.values()
        if same[0].rule != BY_NAME["unused-ignore"].code or len(same) == len(reports)
    ]


def selection_of(options_of: OptionsOf, path: str) -> Selection:
    """The rules that a target is held to."""
    return _selection(options_of(_folder(path)))


def _selection(options: CheckOptions) -> Selection:
    return Selection(options.select, options.ignore)


def _badness(report: Report) -> tuple[int, int]:
    """How bad a report is: its gravest finding that counts, and how many there are."""
    counted = [finding.severity for finding in report.findings if finding.ignored is None]
    return max(counted, default=-1), len(counted)


def _diagnostic(source: _Source, finding: Finding, report: Report) -> Diagnostic:
    placed = finding.line or source.line
    line = placed or 1
    return Diagnostic(
        source.path,
        finding.rule,
        finding.name,
        finding.severity,
        finding.message,
        finding.advice,
        line=line,
        column=finding.column or 1,
        row=finding.row,
        unit=report.profile.unit,
        excerpt=source.lines[line - 1] if placed and line <= len(source.lines) else "",
        certainty=finding.certainty,
        ignored=finding.ignored,
    )


def _ended(outcome: Outcome) -> Outcome:
    """The outcome with fingerprints, and with the exit code that its diagnostics come to."""
    marked = with_fingerprints(outcome.diagnostics, outcome.path)
    outcome = replace(outcome, diagnostics=marked)
    if outcome.exit_code >= ExitCode.USAGE:
        return outcome
    failed = any(map(outcome.fails, outcome.diagnostics))
    return replace(outcome, exit_code=ExitCode.FINDINGS if failed else ExitCode.OK)


def _folder(path: str) -> Path:
    """The directory whose configuration counts for a target."""
    return Path() if path == "-" else Path(path).parent


def _failed(
    path: str,
    failure: Failure,
    named: Place | None = None,
    lines: Sequence[str] = (),
    elsewhere: bool = False,
) -> Outcome:
    """The outcome of a target that has no measurement: the failure is its one diagnostic.

    ``named``: where the configuration names it, for a failure without a place of its own.
    ``elsewhere``: it is shown in the file that it names, which is not the target's own.
    """
    rule = BY_NAME["invalid" if failure.exit_code is ExitCode.USAGE else "failed"]
    place = failure.place or named
    excerpt = located("", place, lines).excerpt if place and not elsewhere else failure.excerpt
    diagnostic = Diagnostic(
        shown_place(place).file if place and elsewhere else path,
        rule.code,
        rule.name,
        rule.severity,
        failure.message,
        failure.hint,
        line=place.line if place else 1,
        column=place.column if place else 1,
        excerpt=excerpt,
    )
    return Outcome(path, with_fingerprints([diagnostic], path), None, failure.exit_code)
