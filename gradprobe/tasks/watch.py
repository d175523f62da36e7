"""A training loop → a report every so many steps: ``gradprobe.watch``."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gradprobe.errors import InputError
from gradprobe.numbers import number
from gradprobe.spec.options import JudgeOptions, ProbeOptions
from gradprobe.tasks.documents.report import ReportDocument
from gradprobe.verdict.judge import judge
from gradprobe.verdict.report import Report, Severity

if TYPE_CHECKING:
    from torch import nn

    from gradprobe.measure.live.watcher import Seen

LOGGER = logging.getLogger("gradprobe")


def watch(
    model: nn.Module | None = None,
    every: int = 100,
    *,
    file: str | PathLike[str] | None = None,
    deep: bool = False,
    rows: str | None = None,
) -> Watch:
    """Report on a model's gradients at its first training step and every so many after it.

    >>> with gradprobe.watch(model, every=100):  # doctest: +SKIP
    ...     train(model)

    A report is a line of the logger ``gradprobe``, a warning where something is wrong. At a step
    that is not looked at only the optimizer's own hook runs; at one that is, what is compiled runs
    as it was written.

    Args:
        model: the module that the loop trains; by default whichever holds most of an optimizer's
            parameters.
        every: steps from one report to the next.
        file: to which each report is added as a line of JSON, as ``--format json`` prints it.
        deep: judge by the probability that it trains, which costs two more passes.
        rows: a glob over ``named_modules()`` paths that says which modules are the blocks.

    Returns:
        What stops watching at the end of ``with``, or by ``close()``; its ``reports`` are there.

    Raises:
        InputError: ``every`` is below 1, the file cannot be written, or the model is no module.
    """
    if every < 1:
        raise InputError(f"every: {every} is not a number of steps")
    path = Path(file) if file is not None else None
    try:
        if path:
            path.open("ab").close()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return Watch(model, every, path, ProbeOptions(deep=deep, rows=rows))


@dataclass
class Watch:
    """Watches from the moment it is made until ``close()``."""

    model: nn.Module | None
    every: int
    file: Path | None
    options: ProbeOptions

    def __post_init__(self) -> None:
        from gradprobe.measure.live.watcher import Watcher
        from gradprobe.model.make import check_is_module

        if self.model is not None:
            check_is_module(self.model)
        self.reports: list[Report] = []
        self._watcher = Watcher(self._wants, self._look, self.options, self.model).__enter__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; a second time does nothing."""
        self._watcher.__exit__()

    def _wants(self, step: int) -> bool:
        return step == 1 or step % self.every == 0

    def _look(self, seen: Seen) -> None:
        where = f"step {seen.step.number} of {seen.step.kind}"
        if seen.measurement is None:
            LOGGER.warning("%s: nothing was measured: %s", where, seen.reason)
            return
        report = judge(seen.measurement, where, JudgeOptions())
        self.reports.append(report)
        failed = report.fails(Severity.WARNING)
        LOGGER.log(logging.WARNING if failed else logging.INFO, "%s: %s", where, story(report))
        if self.file:
            self._write(report)

    def _write(self, report: Report) -> None:
        import msgspec

        assert self.file
        try:
            with self.file.open("ab") as stream:
                stream.write(msgspec.json.encode(ReportDocument.of(report)) + b"\n")
        except OSError as error:  # which is no reason to end hours of training
            LOGGER.warning("cannot write %s: %s", self.file, error.strerror or error)


def story(report: Report) -> str:
    """``vanishing, reach 1.2e-9 over 40 rows; GP101 vanishing``"""
    parts = [str(report.verdict)]
    if report.profile.reach is not None:
        parts[0] += f", reach {number(report.profile.reach)} over {report.profile.steps} rows"
    parts += [f"{f.rule} {f.name}" for f in report.findings if f.severity > Severity.INFO]
    return "; ".join(parts)
