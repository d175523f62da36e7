"""A subject → a measurement: its profile and, on request, Jacobians and a second look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from torch import Tensor

from gradprobe.errors import InputError, ModelError
from gradprobe.measure.attention import attention
from gradprobe.measure.blocks.found import take_apart_module
from gradprobe.measure.blocks.jacobian import jacobians, take_apart
from gradprobe.measure.blocks.paths import expand
from gradprobe.measure.blocks.positions import measure_positions
from gradprobe.measure.blocks.profile import BlockProfile, PathProfile
from gradprobe.measure.checkpoints import without_reentrant
from gradprobe.measure.detached import detached
from gradprobe.measure.first_nan import with_first_nan
from gradprobe.measure.followed import with_followed
from gradprobe.measure.further import further_alone
from gradprobe.measure.linear import linear_share
from gradprobe.measure.measurement import Measurement, NoLook, SecondLook
from gradprobe.measure.mixing import mixing
from gradprobe.measure.obstacles import obstacle
from gradprobe.measure.one_pass import measure
from gradprobe.measure.passes import model_errors
from gradprobe.measure.precision import precision
from gradprobe.measure.profile import GradientProfile, RowStatus
from gradprobe.measure.ranks import agreed
from gradprobe.measure.restarts import restarted
from gradprobe.measure.second_look import immovable, second_look
from gradprobe.measure.streamed_look import streamed_look
from gradprobe.measure.surroundings import Further
from gradprobe.measure.undisturbed import alone, undisturbed
from gradprobe.measure.zeros import behind_zeros, with_still_zero
from gradprobe.model.build import Network
from gradprobe.model.seeds import derive
from gradprobe.model.streamed import Streamed
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import in_float64
from gradprobe.spec.network import CheckSpec
from gradprobe.spec.options import ProbeOptions
from gradprobe.theory.moments import Moments

_SECOND_LOOK = 4  # times the weights: they, their gradient, the moved ones, and the gradient there
_DRAWS = 3  # that are tried where one has left layers out
_SHOWN = ("seed", "batch_size", "dtype", "device", "loss", "data", "level", "deep")


def take(subject: Subject, options: ProbeOptions, check: CheckSpec | None = None) -> Measurement:
    """Measure ``subject`` as the options say; it is left as it was.

    Args:
        check: the spec's own section, which goes on to the verdict.

    Raises:
        InputError: the subject has no such rows or positions.
        ModelError: the model failed while it ran.
    """
    if options.lr is not None and subject.told.get("loss") == "projection":
        hint = "--loss cross_entropy, mse, or a function of your own"
        raise InputError("--lr: the projection is linear, so no step is too large", hint=hint)
    with alone(subject):
        subject, profile = _at_a_telling_draw(subject, options)
        with behind_zeros(profile, subject, lambda: _profile(subject, options)) as profile:
            if options.by != "position":
                profile = _with_columns(with_first_nan(profile, subject), subject, options)
            look, no_look = None, None
            if options.looks_twice:
                look, no_look = look_again(subject, profile, options.lr is not None)
                profile = replace(profile, further=further(subject, profile, look, options.lr))
        profile, look, no_look = agreed(subject.ranks, (profile, look, no_look))
        told = dict(subject.told) | _threads()
    config = {option: getattr(options, option) for option in _SHOWN}
    return Measurement(
        profile=replace(profile, idiom=subject.idiom),
        name=subject.name,
        check=check or CheckSpec(),
        config=config | told,
        look=look,
        no_look=no_look,
        moments=_moments(subject.args[0]) if options.theory and not subject.drawn else None,
    )


def take_block(subject: Subject, row: str | None = None) -> BlockProfile:
    """One block with its real numbers: ``row``, or the middle residual block.

    Raises:
        InputError: there is no such block.
        ModelError: the model failed while it ran.
    """
    with running(subject):
        if isinstance(subject.model, Network):
            return take_apart(subject, row)
        return take_apart_module(subject, row)


def take_paths(subject: Subject, max_paths: int | None = None) -> PathProfile:
    """The gradient at the first row of the trunk as a sum over paths.

    Args:
        max_paths: leave out paths through more branches.

    Raises:
        InputError: there are no residual blocks, or they are no chain.
        ModelError: the model failed while it ran.
    """
    first = measure(subject).trunk[0].name
    with running(subject):
        return expand(subject, first, max_paths)


def _at_a_telling_draw(subject: Subject, options: ProbeOptions) -> tuple[Subject, GradientProfile]:
    """The subject and its profile; at another draw where this one leaves layers out.

    A layer drop may take all layers of a decoder, which alone reads the encoder: no gradient gets
    from the end to the start then.
    """
    profile = _profile(subject, options)
    left_out = any(r.parameters and r.status is RowStatus.NOT_RUN for r in profile.rows)
    if profile.reach is not None or not left_out or not subject.model.training:
        return subject, profile
    for number in range(_DRAWS):
        other = replace(subject, seed=derive(subject.seed, f"draw/{number}"))
        seen = _profile(other, options)
        if seen.reach is not None:
            return other, seen
    return subject, profile


def _profile(subject: Subject, options: ProbeOptions) -> GradientProfile:
    if options.by == "position":
        with running(subject):
            return measure_positions(subject)
    return agreed(subject.ranks, with_still_zero(measure(subject, options.level), subject))


def _with_columns(
    profile: GradientProfile, subject: Subject, options: ProbeOptions
) -> GradientProfile:
    """``profile`` with what takes passes of its own, each on request."""
    if options.precision or profile.is_half:
        profile = with_precision(profile, subject, options.precision)
    if not (options.blocks or options.attention):
        return profile
    with running(subject):
        jacobian = jacobians(subject) if options.blocks else {}
        attended = attention(subject) if options.attention else {}
    if options.attention and not attended:
        raise InputError("--attention: no row has attention that torch's graph shows")
    rows = tuple(
        row._replace(jacobian=jacobian.get(row.name), attention=attended.get(row.name))
        for row in profile.rows
    )
    return replace(profile, rows=rows)


def with_precision(
    profile: GradientProfile, subject: Subject, requested: bool = False
) -> GradientProfile:
    """``profile`` with what each row would lose in small dtypes.

    Raises:
        ModelError: it was requested, and the model failed while it ran in float32.
    """
    try:
        with running(subject):
            lost = precision(subject)
    except ModelError:
        if requested:
            raise
        return profile
    rows = tuple(row._replace(precision=lost.get(row.name)) for row in profile.rows)
    return replace(profile, rows=rows)


def look_again(
    subject: Subject, profile: GradientProfile, bends: bool = False
) -> tuple[SecondLook | None, NoLook | None]:
    """A second look, or why there is none: a model that cannot be run twice is no failure."""
    model = subject.model
    reason = obstacle(profile) or immovable(model)
    size = 0 if isinstance(model, Streamed) else sum(p.nbytes for p in model.parameters())
    if reason is None and _SECOND_LOOK * size > subject.memory:
        reason = "a second look would need more memory than --max-memory allows"
    if reason:
        return None, NoLook(reason)
    try:
        if isinstance(model, Streamed):
            return streamed_look(subject, model), None
        return second_look(subject, bends=bends), None
    except ModelError as error:
        return None, NoLook(f"the second look failed: {error.message}", failed=True)


def further(
    subject: Subject, profile: GradientProfile, look: SecondLook | None, rate: float | None
) -> Further:
    """What is known beside the signals, also where there is no second look."""
    known = look.further if look else further_alone(subject, rate is not None)
    with suppress(Exception):
        known = known._replace(mixing=mixing(subject))
    with suppress(Exception):
        known = known._replace(detached=detached(subject, profile.around.loose))
    with suppress(Exception):
        known = with_followed(known, subject)
    with suppress(Exception):
        known = known._replace(restarted=restarted(subject))
    with suppress(Exception):
        known = known._replace(linear=linear_share(subject, profile.around.straight))
    return known._replace(rate=rate)


def _moments(x: Tensor) -> Moments | None:
    """What theory is told of data: the moments over samples and features, as if all were alike."""
    if not x.is_floating_point() or x.shape[0] < 2:
        return None
    flat = in_float64(x).flatten(1)
    size, width = flat.shape
    squares, total = float(flat.square().sum()), float(flat.sum(0).square().sum())
    product = (total - squares) / (size * (size - 1) * width)
    return Moments(tuple(x.shape), float(flat.mean()), squares / flat.numel(), product, False)


def _threads() -> dict[str, int]:
    """How many there are, where the last digits depend on them: by one they are as everywhere."""
    threads = torch.get_num_threads()
    return {"threads": threads} if threads > 1 else {}


@contextmanager
def running(subject: Subject) -> Iterator[None]:
    """Leave the model and the random state as they were; say plainly what failed."""
    with (
        alone(subject),
        undisturbed(subject.model),
        without_reentrant(),
        model_errors(),
        torch.inference_mode(False),
    ):
        yield
