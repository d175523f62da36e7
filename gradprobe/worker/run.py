"""A spec → its measurement: taken here, or, of Python code, in a process of its own.

The process hands back values, never objects: what it says is decoded as data, and anything short
of a complete result is an error, so that no ending of the process passes for a healthy network.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gradprobe.errors import InputError, ModelError, out_of_memory
from gradprobe.measure.blocks.profile import BlockProfile, PathProfile
from gradprobe.measure.measurement import Measurement
from gradprobe.measure.progress import Step, tell
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, NetworkSpec
from gradprobe.spec.options import ProbeOptions, RunOptions
from gradprobe.spec.sources import python
from gradprobe.spec.sources.table import Target
from gradprobe.worker import process
from gradprobe.worker.alike import alike
from gradprobe.worker.exchange import Reply, Request, decode, encode
from gradprobe.worker.frames import dumped_frames, users_frame
from gradprobe.worker.process import Answer, Ending
from gradprobe.worker.trial import tried

T = TypeVar("T")


def measure_target(
    spec: Target, options: ProbeOptions, run: RunOptions | None = None, inputs: Any = None
) -> Measurement:
    """Measure the network that ``spec`` describes: here, or in a process where it is code.

    Args:
        run: how code is run.
        inputs: a batch for a spec, instead of the one that the options or the spec describe.

    Raises:
        InputError: the spec, a name, an option, an argument or the data do not fit.
        ModelError: the network could not be built or failed while it ran; the code raised, ended
            its process, was killed, or took too long.
    """

    def measured() -> Measurement:
        return _measured(spec, options, run or RunOptions(), inputs)

    return alike(measured, str(options.seed)) if options.sharded else measured()


def _measured(spec: Target, options: ProbeOptions, run: RunOptions, inputs: Any) -> Measurement:
    if isinstance(spec, CodeSpec):
        return _given(spec, reply_of(spec, options, run).measurement)
    from gradprobe.model.ranks import joined

    with joined(options):
        return _measure_here(spec, options, inputs)


def _measure_here(
    spec: NetworkSpec | ArchitectureSpec, options: ProbeOptions, inputs: Any
) -> Measurement:
    from gradprobe.measure.take import take
    from gradprobe.model.make import make

    subject = make(spec, options, inputs, streams=True)
    if isinstance(spec, ArchitectureSpec):
        return tried(subject, take(subject, options), options)
    try:
        return tried(subject, take(subject, options, spec.check), options)
    except ModelError as error:
        # What torch refuses only when it runs is the spec's error; that memory ran out is not.
        if out_of_memory(error) or error.row is None:
            raise
        raise spec.error(error.message, error.row) from error


def reply_of(
    code: CodeSpec, options: ProbeOptions, run: RunOptions, tree: str | None = None
) -> Reply:
    """What ``measure_target`` makes of code, with its origin: the files below ``tree``, if named.

    Raises:
        InputError, ModelError: as ``measure_target``.
    """
    if options.by != "row":
        raise InputError(f"--by {options.by} needs a spec: {code.target} is a Python model")
    reply = _reply(_request(code, _within(options, run))._replace(tree=tree), run)
    measurement = _given(code, reply.measurement)
    name = code.name or measurement.name
    return reply._replace(measurement=measurement._replace(name=name, check=code.check))


def block_of(
    spec: Target, options: ProbeOptions, run: RunOptions | None = None, row: str | None = None
) -> BlockProfile:
    """One block of the network that ``spec`` describes, as ``measure.take.take_block`` takes it.

    Raises:
        InputError, ModelError: as ``measure_target``, and where there is no such block.
    """
    if isinstance(spec, CodeSpec):
        request = _request(spec, options)._replace(what="block", row=row)
        return _given(spec, _reply(request, run or RunOptions()).block)
    from gradprobe.measure.take import take_block
    from gradprobe.model.make import make

    return take_block(make(spec, options), row)


def paths_of(
    spec: Target,
    options: ProbeOptions,
    run: RunOptions | None = None,
    max_paths: int | None = None,
) -> PathProfile:
    """The network's gradient as a sum over paths, as ``measure.take.take_paths`` takes it.

    Raises:
        InputError, ModelError: as ``measure_target``, and where no residual blocks form a chain.
    """
    if isinstance(spec, CodeSpec):
        request = _request(spec, options)._replace(what="paths", max_paths=max_paths)
        return _given(spec, _reply(request, run or RunOptions()).paths)
    from gradprobe.measure.take import take_paths
    from gradprobe.model.make import make

    return take_paths(make(spec, options), max_paths)


def _reply(request: Request, run: RunOptions) -> Reply:
    reply = _run_here(request) if run.in_process else _run_apart(request, run.timeout)
    if reply.failure:
        raise reply.failure.error
    return reply


def _given(code: CodeSpec, result: T | None) -> T:
    if result is None:
        raise ModelError(f"{code.target}: what its process handed back is no result")
    return result


def _request(code: CodeSpec, options: ProbeOptions) -> Request:
    inputs = () if options.data is not None else code.inputs or ()
    if options.batch_size is not None and options.data is None and not code.library:
        raise InputError("--batch-size: the shape of a Python model's input has the batch in it")
    tensors = inputs if isinstance(inputs, tuple) else ()
    if (total := sum(map(python.size_in_bytes, tensors))) > options.limits.memory:
        raise InputError(f"the inputs take {total / 2**30:.3g} GiB", hint="see --max-memory")
    return Request(
        target=code.target,
        arguments=json.dumps(dict(code.arguments)),
        path=code.path,
        tensors=tensors,
        function=inputs if isinstance(inputs, str) else None,
        mode=code.mode,
        loss=code.loss,
        options=options,
        changes=code.changes,
        weights=code.weights,
        library=code.library,
    )


def _within(options: ProbeOptions, run: RunOptions) -> ProbeOptions:
    """A trial gets half of the time that the code may take, so that a result comes back."""
    if run.in_process:
        return options
    half = run.timeout / 2
    return replace(options, overfit_time=min(half, options.overfit_time or half))


def _run_here(request: Request) -> Reply:
    from gradprobe.worker import child

    with contextlib.redirect_stdout(sys.stderr), _forgetting(request.path):
        return child.reply(request)


@contextlib.contextmanager
def _forgetting(path: str) -> Iterator[None]:
    """Let the next run import the user's own files anew.

    A model that is built while its file is imported is another one at another seed.
    """
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if _is_own(name, Path(path).resolve()):
                del sys.modules[name]


def _is_own(name: str, folder: Path) -> bool:
    """Whether a module comes from a file below ``folder`` that nobody installed there."""
    file = getattr(sys.modules[name], "__file__", None)
    if not file or name.partition(".")[0] in sys.stdlib_module_names:
        return False
    place = Path(file).resolve()
    return place.is_relative_to(folder) and "site-packages" not in place.parts


def _run_apart(request: Request, timeout: float) -> Reply:
    answer = process.call("gradprobe.worker.child", encode(request).encode(), timeout, _hear)
    if answer.ending is not Ending.ANSWERED:
        raise _unanswered(request.target, answer, timeout)
    try:
        return decode(Reply, answer.message.decode())
    except ValueError as error:
        message = f"{request.target}: what its process handed back is no result"
        raise ModelError(message) from error


def _hear(line: str) -> None:
    step = Step.read(line)
    if step is not None:
        tell(step)


# ---- a process without an answer


def _unanswered(target: str, answer: Answer, timeout: float) -> ModelError:
    """What happened, at the user's own line where faulthandler could tell it."""
    what, hint = _what_happened(answer, timeout)
    frame = users_frame(dumped_frames(answer.dump))
    during = f" while {answer.stage}" if answer.stage else ""
    message = f"{target}: {what}{during}"
    if frame is None:
        return ModelError(message, hint=hint)
    if frame.function != "<module>":
        message += f", in {frame.function}"
    return ModelError(message, place=frame.place, excerpt=frame.excerpt, hint=hint)


def _what_happened(answer: Answer, timeout: float) -> tuple[str, str]:
    """In a few words, and what to do about it."""
    if answer.ending is Ending.TIMED_OUT:
        return f"no result after {timeout:g} s", "--timeout SECONDS gives it longer"
    if answer.ending is Ending.GARBLED:
        return "its code wrote into the pipe that the result comes through", ""
    if answer.status < 0:
        hint = "it may have run out of memory" if -answer.status == signal.SIGKILL else ""
        return process.killed_by(-answer.status), hint
    what = f"its process ended with exit code {answer.status} and no result"
    return what, "os._exit ends a process at once"
