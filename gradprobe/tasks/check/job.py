"""One target of the check and one seed, measured in a worker process."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from gradprobe.errors import InputError
from gradprobe.measure.measurement import Measurement
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, NetworkSpec, is_target
from gradprobe.spec.options import OWN_LOSS, ProbeOptions, RunOptions
from gradprobe.spec.sources.python import CodeOptions, completed
from gradprobe.spec.sources.yaml import parse_any
from gradprobe.verdict.rules.table import check_ignores
from gradprobe.worker.exchange import Failure, Reply, encode
from gradprobe.worker.pool import Clock, import_torch
from gradprobe.worker.run import measure_target, reply_of


class Job(NamedTuple):
    """One target to be measured: its bytes, what it is called, how, and for how long at most."""

    name: str
    data: bytes
    options: ProbeOptions
    timeout: float  # seconds; importing torch does not count
    allow_code: bool = False  # whether the code that a spec names may run
    spec: CodeSpec | ArchitectureSpec | None = None  # None: ``data`` is a spec
    tree: str = "."


class Done(NamedTuple):
    """An encoded ``Reply``. ``lasting``: the target's bytes and the options alone decide it.

    A reply does not last where a spec names code or where memory ran out: another run may end
    differently. That of a target that is code has the files that decide it, too.
    """

    body: str
    lasting: bool


def measure(job: Job, clock: Clock) -> Done:
    """The reply for one target: its measurement, or what is wrong with it.

    Raises:
        ModelError: the network failed while it ran.
    """
    clock(job.timeout)
    lasting = False
    try:
        if job.spec is not None:
            return _measure_named(job.spec, job, clock)
        spec = parse_any(job.data, job.name)
        check_ignores(spec)
        if isinstance(spec, CodeSpec):
            return Done(encode(Reply(_measure_code(spec, job, clock))), lasting=False)
        import_torch(clock, job.timeout)
        lasting = True  # what is wrong with the spec lasts, too
        measurement = measure_target(spec, about(spec, job.options))
        return Done(encode(Reply(measurement)), lasting=_lasting(measurement))
    except InputError as error:
        return Done(encode(Reply(failure=Failure.of(error))), lasting)


def about(spec: NetworkSpec | CodeSpec | ArchitectureSpec, options: ProbeOptions) -> ProbeOptions:
    """The options that have an effect on ``spec``: a check may have targets of every kind."""
    if isinstance(spec, CodeSpec):
        return options if spec.library else replace(options, batch_size=None)
    loss = options.loss
    if isinstance(spec, ArchitectureSpec):
        return replace(options, data=None, loss=None if is_target(loss or "") else loss)
    special = loss == OWN_LOSS or is_target(loss or "")
    return replace(options, rows=None, loss=None if special else loss)


def _lasting(measurement: Measurement) -> bool:
    """Whether another run would end as this one did."""
    failed = measurement.no_look is not None and measurement.no_look.failed
    return not failed and (measurement.trial is None or measurement.trial.lasting)


def _measure_named(spec: CodeSpec | ArchitectureSpec, job: Job, clock: Clock) -> Done:
    options = about(spec, job.options)
    if isinstance(spec, CodeSpec):
        clock(math.inf)  # the code's own process keeps the time
        code = replace(spec, loss=options.loss or spec.loss)
        reply = reply_of(code, options, RunOptions(job.timeout), job.tree)
    else:
        import_torch(clock, job.timeout)
        reply = Reply(measure_target(spec, options))
    assert reply.measurement is not None
    return Done(encode(reply), lasting=_lasting(reply.measurement))


def _measure_code(spec: CodeSpec, job: Job, clock: Clock) -> Measurement:
    code = completed(spec, CodeOptions(allow_code=job.allow_code, loss=job.options.loss))
    clock(math.inf)  # the code's own process keeps the time
    return measure_target(code, about(code, job.options), RunOptions(job.timeout))
