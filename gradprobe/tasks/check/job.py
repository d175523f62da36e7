"""One target of the check and one seed, measured in a worker process."""

from __future__ import annotations

import math
from typing import NamedTuple

from gradprobe.errors import InputError
from gradprobe.spec.network import CodeSpec
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources.python import CodeOptions, completed, require_allowed
from gradprobe.spec.sources.yaml import parse_any
from gradprobe.tasks.probe import measure_spec
from gradprobe.verdict.rules.table import check_ignores
from gradprobe.worker.archive import Failure, Measurement, Reply, encode
from gradprobe.worker.pool import Clock, import_torch
from gradprobe.worker.run import RunOptions, measure_code


class Job(NamedTuple):
    """One target to be measured: its bytes, what it is called, how, and for how long at most."""

    name: str
    data: bytes
    options: ProbeOptions
    timeout: float  # seconds; importing torch does not count
    allow_code: bool = False  # whether the code that a spec names may run


class Done(NamedTuple):
    """An encoded ``Reply``. ``lasting``: the target's bytes and the options alone decide it.

    A reply does not last where the spec names code or where memory ran out: another run may end
    differently.
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
        spec = parse_any(job.data, job.name)
        check_ignores(spec)
        if isinstance(spec, CodeSpec):
            require_allowed(spec, job.allow_code)
            return Done(encode(Reply(_measure_code(spec, job, clock))), lasting=False)
        import_torch(clock, job.timeout)
        lasting = True  # what is wrong with the spec lasts, too
        measurement = measure_spec(spec, job.options)
        failed = measurement.training is not None and measurement.training.failed
        return Done(encode(Reply(measurement)), lasting=not failed)
    except InputError as error:
        return Done(encode(Reply(failure=Failure.of(error))), lasting)


def _measure_code(spec: CodeSpec, job: Job, clock: Clock) -> Measurement:
    clock(math.inf)  # the code's own process keeps the time
    return measure_code(completed(spec, CodeOptions()), job.options, RunOptions(job.timeout))
