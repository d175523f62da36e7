"""The pipeline: target → module and batch → profile → report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gradprobe._version import __version__
from gradprobe.errors import (
    GradprobeError,
    InputError,
    ModelError,
    first_line,
    in_own_words,
    out_of_memory,
)
from gradprobe.measure.blocks.profile import BlockProfile, JacobianProfile, PathProfile
from gradprobe.measure.profile import GradientProfile, from_one, trunk_of
from gradprobe.spec.network import ArchitectureSpec, Ignore, InitSpec, NetworkSpec
from gradprobe.spec.options import (
    ARCHITECTURE_BATCH_SIZE,
    DEFAULT_BATCH_SIZE,
    OWN_LOSS,
    Limits,
    ProbeOptions,
    ascending,
    choose,
    choose_seeds,
)
from gradprobe.spec.sources import huggingface, stack
from gradprobe.spec.sources import yaml as yaml_source
from gradprobe.spec.sources.python import is_script, is_target
from gradprobe.spec.sources.stack import STACKS, StackOptions
from gradprobe.spec.vocabulary import LOSSES
from gradprobe.theory.prediction import Theory
from gradprobe.verdict.calibration import outlook, probability
from gradprobe.verdict.diagnose import diagnose
from gradprobe.verdict.report import Report, Training
from gradprobe.verdict.rules.rule import Selection
from gradprobe.verdict.rules.table import check_ignores
from gradprobe.verdict.seeds import repeated
from gradprobe.verdict.signals import obstacle, signals
from gradprobe.worker.archive import Measurement

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradprobe.model.batch import Batch
    from gradprobe.model.build import Network
    from gradprobe.model.subject import Subject
    from gradprobe.theory.moments import Moments

_NORMALISED = 32  # values a channel: what the calibration's networks had, and fewer shatter
_SECOND_LOOK = 4  # times the weights: they, their gradient, the moved ones, and the gradient there
_SMALL_WORK = 200_000_000  # multiplications of a forward pass


def load_target(target: str, options: StackOptions | None = None) -> NetworkSpec:
    """The network that ``target`` names, as ``load_any``, where only a spec will do."""
    found = load_any(target, options)
    if isinstance(found, ArchitectureSpec):
        raise InputError(f"{target}: a Hugging Face configuration", hint="gradprobe probe takes it")
    return found


def load_any(
    target: str,
    options: StackOptions | None = None,
    layers: int | None = None,
    settings: Sequence[str] = (),
) -> NetworkSpec | ArchitectureSpec:
    """The network that ``target`` names: a spec file, ``-``, a built-in stack, a ``config.json``.

    Args:
        options: of the built-in stacks.
        layers, settings: of a Hugging Face configuration.

    Raises:
        InputError: there is no such target, or it is no spec.
    """
    if is_target(target) or is_script(target):
        raise InputError(f"{target} is a Python model, which only gradprobe probe takes")
    is_stack = target in STACKS and not Path(target).is_file()
    if not is_stack and huggingface.is_config(target):
        return huggingface.load(target, layers, settings)
    if layers is not None or settings:
        raise InputError("--layers and --set are about a Hugging Face config.json")
    if is_stack:
        return stack.load(target, options or StackOptions())
    return load(target)


def load(path: str) -> NetworkSpec:
    """Read a spec file, or ``-`` for standard input.

    Raises:
        InputError: no such file, or it is no spec; names file, line and column.
    """
    spec = yaml_source.load(path)
    check_ignores(spec)
    return spec


class Prepared(NamedTuple):
    """A network that was built, with what it takes to run it once."""

    network: Network
    x: Tensor
    loss: Callable[[Any], Tensor]
    options: ProbeOptions  # resolved: nothing in them is ``None`` for "the default"


def probe_spec(
    spec: NetworkSpec | ArchitectureSpec,
    options: ProbeOptions | None = None,
    inputs: Tensor | None = None,
) -> Report:
    """Build the network of ``spec``, measure it, and say what is wrong with it.

    Raises:
        InputError: the spec, an option or the data do not fit.
        ModelError: the network failed while it ran.
    """
    options = options or ProbeOptions()
    if isinstance(spec, ArchitectureSpec):
        return _probe_architecture(spec, options)
    network, x, loss, resolved = prepare(spec, options, inputs)
    if resolved.by == "position":
        from gradprobe.measure.blocks.positions import measure_positions

        with _running(network):
            profile = measure_positions(_subject(network, [x], {}, loss, resolved))
    else:
        try:
            with _enough_threads(network):
                subject = _subject(network, [x], {}, loss, resolved)
                profile = _measure(subject, resolved)
        except ModelError as error:
            raise _blamed(spec, error) from error
    if resolved.blocks and resolved.by == "row":
        from gradprobe.measure.blocks.jacobian import jacobians

        with _running(network):
            measured = jacobians(_subject(network, [x], {}, loss, resolved))
        profile = _beside_rows(profile, measured)
    training = None
    if resolved.deep:
        with _enough_threads(network):
            subject = _subject(network, [x], {}, loss, resolved)
            training = _training(subject, profile, resolved)
    report = _report(profile, spec.source, resolved, spec, training=training)
    if not resolved.theory:
        return report
    given = inputs is not None or resolved.data is not None
    size = resolved.batch_size or DEFAULT_BATCH_SIZE
    profile, theory = _beside_theory(profile, spec, size, _moments(x) if given else None)
    return replace(report, profile=profile, theory=theory)


def _training(subject: Subject, profile: GradientProfile, options: ProbeOptions) -> Training:
    """How likely the model is to train, from its profile and two more passes.

    The loss of those is always the projection, as the calibration's is. A model that cannot be
    looked at twice has no probability, and the reason says so.
    """
    from gradprobe.measure.second_look import second_look, too_coarse

    size = sum(p.numel() * p.element_size() for p in subject.model.parameters())
    reason = obstacle(profile) or too_coarse(subject.model)
    if reason is None and _SECOND_LOOK * size > options.limits.memory:
        reason = "a second look would need more memory than --max-memory allows"
    if reason:
        return Training(reason=reason)
    try:
        look = second_look(subject)
    except ModelError as error:
        return Training(reason=f"the second look failed: {error.message}", failed=True)
    if look.normalised is not None and look.normalised < _NORMALISED:
        told = f"BatchNorm has {look.normalised} values a channel, too few to tell"
        return Training(reason=f"{told} ({_NORMALISED} do: --batch-size)")
    found = signals(profile, look.coherence, look.highways, look.lost_past)
    if found is None:
        return Training(reason="no weight has a finite gradient that is not zero")
    p = probability(found)
    return Training(found, p, outlook(p).margin)


def measure_spec(spec: NetworkSpec, options: ProbeOptions) -> Measurement:
    """What ``probe_spec`` measures, before it is judged.

    Raises:
        InputError, ModelError: as ``probe_spec``.
    """
    report = probe_spec(spec, options)
    config = {key: value for key, value in report.config.items() if key != "thresholds"}
    told = (report.profile, spec.name, spec.check, config, report.training)
    return Measurement(*told)  # type: ignore[arg-type]


def judge(
    measured: Measurement,
    target: str,
    thresholds: Mapping[str, float],
    selection: Selection,
    ignores: Sequence[Ignore] = (),
) -> Report:
    """The report on a measurement; ``ignores`` count beside the spec's own."""
    check = replace(measured.check, ignore=(*measured.check.ignore, *ignores))
    findings, verdict = diagnose(measured.profile, thresholds, check, selection, measured.training)
    config = {**measured.config, "thresholds": {**thresholds, **check.thresholds}}
    return Report(
        target,
        measured.profile,
        findings,
        verdict,
        config,
        versions(),
        name=measured.name,
        training=measured.training,
    )


def versions() -> dict[str, str]:
    """What made a report: a version of gradprobe and one of torch, which is not imported."""
    return {"gradprobe": __version__, "torch": _torch_version()}


@cache
def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return "none"


def _probe_architecture(spec: ArchitectureSpec, options: ProbeOptions) -> Report:
    model, inputs, loss, resolved = _prepare_architecture(spec, options)
    projection = _main_loss("projection", resolved.seed)
    subject = replace(_subject(model, [], inputs, loss, resolved), projection=projection)
    profile = _measure(subject, resolved)
    if options.blocks:
        profile = _with_jacobians(profile, subject)
    training = _training(subject, profile, resolved) if options.deep else None
    report = _report(profile, spec.source, resolved, None, training=training)
    return replace(report, name=type(model).__name__)


def _prepare_architecture(
    spec: ArchitectureSpec, options: ProbeOptions
) -> tuple[nn.Module, dict[str, Tensor], Callable[[Any], Tensor], ProbeOptions]:
    """The model, its inputs by name, its loss, and the options, resolved."""
    from gradprobe.model import transformers as architectures

    if options.data is not None or options.by != "row" or options.theory:
        raise InputError("--data, --by and --theory are about specs, not Hugging Face models")
    named = options.loss or "projection"
    resolved = replace(
        options, batch_size=options.batch_size or ARCHITECTURE_BATCH_SIZE, loss=named
    )
    assert resolved.batch_size is not None
    model, inputs = architectures.build(
        spec,
        seed=options.seed,
        batch_size=resolved.batch_size,
        dtype=_dtype(options.dtype),
        device=_device(options.device),
        limits=options.limits,
        own_loss=named == OWN_LOSS,
    )
    if named == OWN_LOSS:
        return model, inputs, architectures.own_loss, resolved
    return model, inputs, _main_loss(named, options.seed), resolved


def _main_loss(name: str, seed: int) -> Callable[[Any], Tensor]:
    """The loss called ``name`` of what a Hugging Face model is for: its main output."""
    from gradprobe.model import transformers as architectures
    from gradprobe.model.losses import loss_of

    of = loss_of(name, None, seed)
    return lambda output: of(architectures.main_output(output))


def take_apart(spec: NetworkSpec, options: ProbeOptions, row: str | None) -> BlockProfile:
    """One block of the network of ``spec`` with its real numbers.

    Raises:
        InputError, ModelError: as ``probe_spec``; there is no such block.
    """
    from gradprobe.measure.blocks import jacobian as blocks

    network, x, loss, resolved = prepare(spec, options)
    with _running(network):
        return blocks.take_apart(_subject(network, [x], {}, loss, resolved), row)


def expand(
    spec: NetworkSpec | ArchitectureSpec, options: ProbeOptions, max_paths: int | None
) -> PathProfile:
    """The gradient at the first row of the trunk as a sum over paths.

    Raises:
        InputError, ModelError: as ``probe_spec``; there is no residual block.
    """
    from gradprobe.measure.blocks import paths

    if isinstance(spec, ArchitectureSpec):
        model, inputs, of, resolved = _prepare_architecture(spec, options)
        return expand_module(model, [], inputs, of, resolved, max_paths)
    network, x, loss, resolved = prepare(spec, options)
    holds = [any(True for _ in row.module.parameters()) for row in network.rows]
    first = network.rows[trunk_of(holds).start].name
    with _running(network):
        return paths.expand(_subject(network, [x], {}, loss, resolved), first, max_paths)


def expand_module(
    model: nn.Module,
    args: list[Any],
    kwargs: dict[str, Any],
    loss: Callable[[Any], Tensor],
    options: ProbeOptions,
    max_paths: int | None,
) -> PathProfile:
    """The same for any module, whose residual blocks are found.

    Raises:
        InputError: it has none, or they are no chain.
    """
    from gradprobe.measure.blocks import paths

    subject = _subject(model, args, kwargs, loss, options)
    first = _measure(subject, replace(options, level="blocks")).trunk[0].name
    with _running(model):
        return paths.expand(subject, first, max_paths)


def prepare(spec: NetworkSpec, options: ProbeOptions, inputs: Tensor | None = None) -> Prepared:
    """Build the network of ``spec`` and its batch; resolve what the options leave open.

    Raises:
        InputError: the spec, an option or the data do not fit.
        ModelError: the network could not be built.
    """
    from gradprobe.model.batch import random_batch
    from gradprobe.model.build import build
    from gradprobe.model.losses import loss_of

    if options.rows is not None:
        raise InputError("--rows: a spec's rows are its layers")
    loss = options.loss or spec.loss
    choose("--loss", loss, LOSSES)
    device, dtype = _device(options.device), _dtype(options.dtype)
    batch = _given_batch(spec, options, inputs)
    size = options.batch_size or spec.input.batch_size or DEFAULT_BATCH_SIZE
    if batch is not None:
        size = batch.inputs.shape[0]
    try:
        network = build(
            spec,
            seed=options.seed,
            batch_size=size,
            dtype=dtype,
            device=device,
            limits=options.limits,
        )
        # Only now: the plan has held its size against the limits.
        batch = batch or random_batch(spec.input, size, options.seed)
        x = batch.inputs.to(device)
        x = x.to(dtype) if x.is_floating_point() else x
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"the network could not be built: {first_line(error)}") from error
    resolved = replace(options, loss=loss, batch_size=size)
    return Prepared(network, x, loss_of(loss, batch.labels, options.seed), resolved)


@in_own_words
def probe(
    model: nn.Module | NetworkSpec,
    inputs: Any = None,
    *,
    loss: str | Callable[[Any], Tensor] | None = None,
    seed: int = 0,
    level: str = "blocks",
    rows: str | None = None,
    blocks: bool = False,
    thresholds: dict[str, float] | None = None,
    deep: bool = False,
    max_memory: int = Limits().memory,
    seeds: int | Sequence[int] | str | None = None,
) -> Report:
    """Probe any ``nn.Module``, or a spec: one forward and one backward pass.

    The model is probed in the mode and dtype that it is in, and is left as it was.

    Args:
        model: the module; or a spec from ``gradprobe.load``, which needs no inputs.
        inputs: a tensor (batch first), a tuple of positional arguments, a dict of keyword
            arguments, or both as ``((...), {...})``.
        loss: ``projection`` (a fixed random direction; the default, unless a spec says otherwise),
            ``cross_entropy`` or ``mse`` of the first floating tensor in the output, or a function
            from the output to a scalar tensor.
        seed: of the loss's direction, and of what the forward pass draws.
        level: ``blocks``, or ``leaves`` for the layers inside them too.
        rows: a glob over ``named_modules()`` paths that says which modules are the blocks, where
            it is not the repeated ones: ``encoder.layer.*``.
        blocks: measure highway, branch and gain of each block too.
        thresholds: of the reach bands, see ``gradprobe rules GP101``; these decide then, also where
            ``deep`` knows the probability.
        deep: take a second look, two more passes, for a verdict by the probability that it trains,
            which is in ``training``.
        max_memory: bytes that a spec's network, or the second look, may take.
        seeds: of a spec, probe so many seeds from ``seed`` on, those of a list, or with ``auto`` as
            many as settle the verdict; the report is a typical one of them, all are in ``repeats``.

    Returns:
        Profile, findings and verdict.

    Raises:
        InputError: an argument does not fit.
        ModelError: the model raised while it ran, or has nothing to train.
    """
    from gradprobe.model.losses import loss_of
    from gradprobe.model.subject import arguments_of

    limits = Limits(memory=max_memory)
    options = ProbeOptions(
        seed=seed, level=level, rows=rows, blocks=blocks, deep=deep, limits=limits
    )
    for name in thresholds or {}:
        choose("thresholds", name, tuple(options.thresholds))
    options = replace(options, thresholds={**options.thresholds, **(thresholds or {})})
    if not ascending(options.thresholds):
        raise InputError(f"thresholds must ascend: {', '.join(options.thresholds)}")
    if isinstance(model, NetworkSpec):
        if loss is not None and not isinstance(loss, str):
            raise InputError("a spec takes the name of a loss, not a function")

        def one(seed: int) -> Report:
            return probe_spec(model, replace(options, loss=loss, seed=seed), inputs)

        if seeds is None:
            return one(seed)
        chosen = choose_seeds(seeds, seed or None)
        return repeated(one, chosen, model.check.ignore)
    if seeds is not None:
        hint = "gradprobe.load gives a spec; of a module, probe one for each seed"
        raise InputError("seeds: a module is built already: only a spec is built anew", hint=hint)
    named = loss or "projection" if not callable(loss) else None
    options = replace(options, loss=named)
    if inputs is None:
        raise InputError("probe(model, inputs): a module needs inputs; only a spec knows its own")
    _check_trainable(model)
    args, kwargs = arguments_of(inputs)
    subject_loss = loss_of(named, None, seed) if named else loss
    assert callable(subject_loss)
    subject = _subject(model, args, kwargs, subject_loss, options)
    parameter = next(model.parameters())
    own = {"dtype": str(parameter.dtype).removeprefix("torch."), "device": str(parameter.device)}
    profile = _measure(subject, options)
    if blocks:
        profile = _with_jacobians(profile, subject)
    training = _training(subject, profile, options) if deep else None
    return _report(profile, type(model).__name__, options, None, own, training)


def _check_trainable(model: nn.Module) -> None:
    """Refuse a model without numbers, or without any to train."""
    from torch.nn.parameter import is_lazy

    parameters = list(model.parameters())
    if any(is_lazy(p) for p in parameters):
        raise InputError("the model has lazy layers: run it once, so that they know their sizes")
    if any(p.is_meta for p in parameters):
        raise InputError("the model is on the meta device: it has no numbers to measure")
    if not any(p.requires_grad for p in parameters):
        raise InputError("the model has no trainable parameters")


def _subject(
    model: nn.Module,
    args: list[Any],
    kwargs: dict[str, Any],
    loss: Callable[[Any], Tensor],
    options: ProbeOptions,
) -> Subject:
    from gradprobe.model.subject import subject_of

    return subject_of(model, (tuple(args), kwargs), loss, seed=options.seed, rows=options.rows)


def _measure(subject: Subject, options: ProbeOptions) -> GradientProfile:
    from gradprobe.measure.one_pass import measure
    from gradprobe.measure.still_zero import with_still_zero

    return with_still_zero(measure(subject, options.level), subject)


def _with_jacobians(profile: GradientProfile, subject: Subject) -> GradientProfile:
    """The profile of any module, with the Jacobian of each row that keeps its input's shape."""
    from gradprobe.measure.blocks.jacobian import jacobians

    with _running(subject.model):
        return _beside_rows(profile, jacobians(subject))


def _beside_rows(
    profile: GradientProfile, jacobians: Mapping[str, JacobianProfile]
) -> GradientProfile:
    """The profile with the Jacobian of each row that has one, by its name."""
    rows = tuple(row._replace(jacobian=jacobians.get(row.name)) for row in profile.rows)
    return replace(profile, rows=rows)


@contextmanager
def _running(network: nn.Module) -> Iterator[None]:
    """Leave the network and the random state as they were; say plainly what failed."""
    from gradprobe.measure.passes import failed
    from gradprobe.measure.undisturbed import undisturbed
    from gradprobe.model.build import Network

    few = _enough_threads(network) if isinstance(network, Network) else nullcontext()
    with undisturbed(network), few:
        try:
            yield
        except Exception as error:
            raise failed(error) from error


def _blamed(spec: NetworkSpec, error: ModelError) -> GradprobeError:
    """What torch refuses only when it runs is the spec's error; that memory ran out is not."""
    if out_of_memory(error) or error.row is None:
        return error
    return spec.error(error.message, error.row)


@contextmanager
def _enough_threads(network: Network) -> Iterator[None]:
    """One thread for a small network: on a busy machine, waiting for a second takes longer."""
    import torch

    threads = torch.get_num_threads()
    if network.work < _SMALL_WORK:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _report(
    profile: GradientProfile,
    target: str,
    options: ProbeOptions,
    spec: NetworkSpec | None,
    own: dict[str, str] | None = None,
    training: Training | None = None,
) -> Report:
    """The profile with findings and verdict; ``own`` overrides options that did not apply."""
    check = spec.check if spec else None
    findings, verdict = diagnose(profile, options.thresholds, check, training=training)
    config = {
        "seed": options.seed,
        "batch_size": options.batch_size,
        "dtype": options.dtype,
        "device": options.device,
        "loss": options.loss or "custom",
        "data": options.data,
        "level": options.level,
        "deep": options.deep,
        "thresholds": {**options.thresholds, **(check.thresholds if check else {})},
        **(own or {}),
    }
    name = spec.name if spec else None
    return Report(target, profile, findings, verdict, config, versions(), name, training=training)


_OTHER_INITS = {"Xavier init": "xavier_normal", "He init": "kaiming_normal"}


def _beside_theory(
    profile: GradientProfile, spec: NetworkSpec, batch_size: int, signal: Moments | None = None
) -> tuple[GradientProfile, Theory]:
    """``profile`` of a probe of ``spec`` with each row's prediction, and what stands beside it.

    The alternative is that of Xavier's and He's init whose factor per row is nearest 1, where it is
    nearer than the spec's own.
    """

    from gradprobe.theory.predict import predict
    from gradprobe.theory.weights import about, with_init

    def predicted(of: NetworkSpec) -> GradientProfile:
        known = {row.name: row for row in predict(of, batch_size, signal)}
        rows = [
            row if row.level else row._replace(theory=known.get(row.name)) for row in profile.rows
        ]
        return replace(profile, rows=tuple(rows))

    found = predicted(spec)
    own = found.predicted_decay
    decays: list[tuple[float, str | None, float | None]] = [(from_one(own), None, own)]
    for label, init in _OTHER_INITS.items():
        decay = predicted(with_init(spec, InitSpec(init))).predicted_decay
        decays.append((from_one(decay) + 0.01, label, decay))  # nearer by 1 % at least
    distance, best, decay = min(decays, key=lambda one: one[0])
    if best is None or math.isinf(distance):
        return found, Theory(about(spec))
    return found, Theory(about(spec), best, decay)


def _given_batch(spec: NetworkSpec, options: ProbeOptions, inputs: Tensor | None) -> Batch | None:
    from gradprobe.model.batch import Batch, load_batch

    if inputs is not None:
        return Batch(inputs)
    if options.data is None:
        return None
    size = options.batch_size or spec.input.batch_size
    return load_batch(options.data, spec.input, size, options.limits.memory)


def _moments(x: Tensor) -> Moments | None:
    """What theory is told of data: the moments over samples and features, as if all were alike."""
    from gradprobe.theory.moments import Moments

    if not x.is_floating_point() or x.shape[0] < 2:
        return None
    flat = x.double().flatten(1)
    size, width = flat.shape
    squares, total = float(flat.square().sum()), float(flat.sum(0).square().sum())
    product = (total - squares) / (size * (size - 1) * width)
    return Moments(tuple(x.shape), float(flat.mean()), squares / flat.numel(), product, False)


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it has no memory to measure in")
    except RuntimeError as error:
        raise InputError(
            f"--device: unknown device '{name}'", hint="cpu, cuda, cuda:1, mps"
        ) from error
    try:
        torch.empty(1, device=device)
    except Exception as error:
        raise InputError(f"--device {name} is not to be had here: {first_line(error)}") from error
    return device


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)
