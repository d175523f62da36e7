"""A network that is Python code: run in a process of its own, and judged here.

The process hands back values, never objects: what it says is decoded as data, and anything short
of a complete result is an error, so that no ending of the process passes for a healthy network.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gradprobe.errors import InputError, ModelError
from gradprobe.spec.network import ArchitectureSpec, CodeSpec, NetworkSpec
from gradprobe.spec.options import ProbeOptions
from gradprobe.spec.sources import huggingface, python
from gradprobe.spec.sources.python import CodeOptions
from gradprobe.spec.sources.stack import STACKS, StackOptions
from gradprobe.spec.sources.yaml import load_or_code
from gradprobe.tasks import probe as check
from gradprobe.tasks.probe import judge, load_target
from gradprobe.verdict.report import Report
from gradprobe.verdict.rules.rule import Selection
from gradprobe.verdict.rules.table import check_ignores
from gradprobe.worker import archive, process
from gradprobe.worker.archive import Failure, Measurement, Reply
from gradprobe.worker.exchange import Request
from gradprobe.worker.frames import dumped_frames, users_frame
from gradprobe.worker.process import Answer, Ending

DEFAULT_TIMEOUT = 120.0  # seconds
MAX_TIMEOUT = 1e6


class RunOptions(NamedTuple):
    """How code is run."""

    timeout: float = DEFAULT_TIMEOUT
    in_process: bool = False  # faster, and at the mercy of the code
    dtype: str | None = None  # None: as the model was built


def load(
    target: str,
    stack: StackOptions,
    options: CodeOptions,
    allow_code: bool = False,
    layers: int | None = None,
    settings: Sequence[str] = (),
) -> NetworkSpec | CodeSpec | ArchitectureSpec:
    """The network that ``target`` names: as layers, or as the code that builds it.

    Args:
        target: a spec file, ``-``, a built-in stack, or ``package.module:name``.
        stack, options: what the command line says of the one and of the other.
        layers, settings: of a Hugging Face configuration.
        allow_code: whether a spec file may name code; ``package.module:name`` was named to be run.

    Raises:
        InputError: there is no such target, it is not to be run, or options do not fit it.
    """
    if python.is_target(target) or python.is_script(target):
        return python.load(target, options)
    if huggingface.is_config(target) or layers is not None or settings:
        return check.load_any(target, stack, layers, settings)
    if target not in STACKS or Path(target).is_file():
        spec = load_or_code(target)
        check_ignores(spec)
        if isinstance(spec, CodeSpec):
            python.require_allowed(spec, allow_code)
            return python.completed(spec, options)
    else:
        spec = load_target(target, stack)
    if options.given:
        raise InputError(f"{options.given} is for Python models, and {target} is a spec")
    return spec


def probe_code(
    code: CodeSpec, options: ProbeOptions | None = None, run: RunOptions | None = None
) -> Report:
    """Run the code that ``code`` names, measure the model that it builds, and judge it.

    Raises:
        InputError, ModelError: as ``measure_code``.
    """
    options = options or ProbeOptions()
    measured = measure_code(code, options, run or RunOptions())
    return judge(measured, code.source, options.thresholds, Selection())


def measure_code(code: CodeSpec, options: ProbeOptions, run: RunOptions) -> Measurement:
    """What ``probe_code`` measures, before it is judged.

    Raises:
        InputError: a name, an argument or the inputs do not fit.
        ModelError: the code raised, ended its process, was killed, or took too long.
    """
    if not 0 < run.timeout <= MAX_TIMEOUT:
        raise InputError(f"--timeout {run.timeout:g} is out of range (0 to {MAX_TIMEOUT:,.0f} s)")
    if options.by != "row":
        raise InputError(f"--by {options.by} needs a spec: {code.target} is a Python model")
    request = _request(code, options, run)
    reply = _run_here(request) if run.in_process else _run_apart(request, run.timeout)
    measured = reply.found
    if isinstance(measured, Failure):
        raise measured.error
    if measured is None:
        raise ModelError(f"{code.target}: what its process handed back is no result")
    return measured._replace(name=code.name or measured.name, check=code.check)


def _request(code: CodeSpec, options: ProbeOptions, run: RunOptions) -> Request:
    inputs = () if options.data is not None else code.inputs or ()
    if options.batch_size is not None and options.data is None:
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
        data=options.data,
        mode=code.mode,
        loss=code.loss,
        seed=options.seed,
        dtype=run.dtype,
        device=options.device,
        batch_size=options.batch_size,
        level=options.level,
        deep=options.deep,
        memory=options.limits.memory,
        rows=options.rows,
        blocks=options.blocks,
    )


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
    answer = process.call("gradprobe.worker.child", archive.encode(request).encode(), timeout)
    if answer.ending is not Ending.ANSWERED:
        raise _unanswered(request.target, answer, timeout)
    try:
        return archive.decode(Reply, answer.message.decode())
    except ValueError as error:
        message = f"{request.target}: what its process handed back is no result"
        raise ModelError(message) from error


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
        number = -answer.status
        try:
            name = f" ({signal.Signals(number).name})"
        except ValueError:
            name = ""
        hint = "it may have run out of memory" if number == signal.SIGKILL else ""
        return f"its process was killed by signal {number}{name}", hint
    what = f"its process ended with exit code {answer.status} and no result"
    return what, "os._exit ends a process at once"
