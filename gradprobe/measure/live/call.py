"""One call of a module by a program that trains, watched, and measured before its backward pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from gradprobe.measure.hooks import of_all_ranks, pass_of
from gradprobe.measure.measurement import Measurement, SecondLook
from gradprobe.measure.one_pass import measure, profile_of
from gradprobe.measure.outputs import Outputs, parameters_in
from gradprobe.measure.passes import Pass, gradients_of
from gradprobe.measure.profile import GradientProfile
from gradprobe.measure.ranks import agreed, failing_together
from gradprobe.measure.surroundings import NOTHING, Further
from gradprobe.measure.take import further, look_again, with_precision
from gradprobe.measure.terms import times_compared
from gradprobe.measure.zeros import behind_zeros, with_still_zero
from gradprobe.model.classes import classes_of
from gradprobe.model.losses import loss_of
from gradprobe.model.ranks import Ranks
from gradprobe.model.rows import Row
from gradprobe.model.sharded import class_of, is_sharded
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import map_tensors, tensors_in, word_of
from gradprobe.spec.network import CheckSpec, Idiom
from gradprobe.spec.options import ProbeOptions


class Call:
    """A call of ``model``, from its forward pass to the optimizer's step.

    ``measurement`` is that of the last backward pass that it took part in.
    """

    def __init__(self, model: nn.Module, rows: list[Row], ranks: Ranks | None = None) -> None:
        self.model, self.rows = model, rows
        self.args: tuple[Any, ...] = ()
        self.kwargs: Mapping[str, Any] = {}
        self.measurement: Measurement | None = None
        self.error: str | None = None  # why there is none
        self.has_waited = False
        self.autocast = _autocast_now()
        self.outputs = Outputs(model, rows, alone=False, ranks=ranks)
        self.outputs.__enter__()

    def ended(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """The forward pass is over."""
        self.args, self.kwargs = args, kwargs
        self.outputs.ended(output)

    def forget(self) -> None:
        """Remove every hook."""
        self.outputs.__exit__()

    def waits(self) -> bool:
        """Whether no backward pass came to it, for the first time that this is asked."""
        first, self.has_waited = not self.has_waited, True
        return first and self.measurement is None and self.error is None

    def feeds(self, nodes: Collection[Node]) -> bool:
        """Whether its output is among what a loss follows from."""
        return any(t.grad_fn in nodes for t in tensors_in(self.outputs.output) if t.grad_fn)

    def size(self) -> int:
        """Elements that it was called with."""
        return sum(t.numel() for t in tensors_in([self.args, dict(self.kwargs)]))

    def measure(self, root: Tensor, scale: float, options: ProbeOptions) -> Measurement:
        """What the backward pass of ``root`` brings to each row, divided by ``scale``.

        Raises:
            ModelError: the backward pass raised.
        """
        profile = self._profile(root, scale)
        subject = self._subject(root, scale, options)
        profile = self._with_precision(profile, subject, scale, options)
        look, no_look = None, None
        with self._as_called(), self._behind_zeros(profile, subject, scale, options) as seen:
            if options.deep:
                look, no_look = look_again(subject, seen)
                seen = replace(seen, further=self._further(subject, seen, look, root))
        profile, look, no_look = agreed(self.outputs.ranks, (seen, look, no_look))
        parameter = next(self.model.parameters())
        dtype = self.autocast[1] if self.autocast else parameter.dtype
        return Measurement(
            profile=profile,
            name=class_of(self.model).__name__,
            check=CheckSpec(),
            config={
                "dtype": word_of(dtype),
                "device": str(parameter.device),
                "loss": "custom",
                "deep": options.deep,
            },
            look=look,
            no_look=no_look,
        )

    def _profile(self, root: Tensor, scale: float) -> GradientProfile:
        """The profile of the backward pass of ``root``."""
        arguments, ranks = [self.args, dict(self.kwargs)], self.outputs.ranks
        # torch.func.functional_call has put others in their place while the model ran. FSDP2 has
        # its own there now, whose memory is gone.
        if not any(map(is_sharded, self.outputs.parameters)):
            self.outputs.parameters = parameters_in(self.model)
        self.outputs.inputs = list(tensors_in(arguments))
        with failing_together(ranks):
            result = pass_of(self.model, self.outputs, root, [], retain=True)
        result = _divided(of_all_ranks(result, self.outputs, arguments), scale)
        idiom = Idiom("code", classes_of(self.model, [row.name for row in self.rows]))
        profile = profile_of(self.model, self.rows, result, self.outputs.inputs)
        return agreed(ranks, replace(profile, idiom=idiom))

    @contextmanager
    def _behind_zeros(
        self, profile: GradientProfile, subject: Subject, scale: float, options: ProbeOptions
    ) -> Iterator[GradientProfile]:
        """Meanwhile what is zero at this step alone is drawn at random, where a copy has room."""
        size = sum(p.nbytes for p in self.model.parameters())
        if not self._is_alone or 2 * size > subject.memory:
            yield profile
            return

        def again() -> GradientProfile:
            seen = replace(with_still_zero(measure(subject), subject), idiom=profile.idiom)
            return self._with_precision(seen, subject, scale, options)

        with behind_zeros(with_still_zero(profile, subject), subject, again) as seen:
            yield seen

    def _further(
        self, subject: Subject, profile: GradientProfile, look: SecondLook | None, root: Tensor
    ) -> Further:
        """What is known beside the signals."""
        if not self._is_alone:
            return NOTHING
        added = None
        with suppress(Exception):  # a graph that cannot be gone through twice
            trained = [p for p in self.model.parameters() if p.requires_grad]
            added = times_compared(root, trained)
        # The subject's loss is linear: what it would be at equal outputs or of a fit says nothing,
        # and of a draw that is put out the program may take the density.
        around = profile.around._replace(straight=0)
        known = further(subject, replace(profile, around=around), look, rate=None)
        drawn = None if known.drawn and known.drawn[-1] else known.drawn
        return known._replace(alike=None, added=added, drawn=drawn)

    @property
    def _is_alone(self) -> bool:
        """Whether one process has the whole model."""
        return self.outputs.ranks is None and not any(map(is_sharded, self.model.parameters()))

    def _with_precision(
        self, profile: GradientProfile, subject: Subject, scale: float, options: ProbeOptions
    ) -> GradientProfile:
        """With what small dtypes lose: on request, and where float16 is used without a scale."""
        half = self.autocast is not None and self.autocast[1] is torch.float16
        if scale != 1:  # what it is for
            profile = replace(profile, smallest_gradient=torch.finfo(torch.float32).tiny)
        elif half:
            profile = replace(profile, smallest_gradient=torch.finfo(torch.float16).tiny)
        if not (options.precision or profile.is_half):
            return profile
        return with_precision(profile, subject, options.precision)

    def _subject(self, root: Tensor, scale: float, options: ProbeOptions) -> Subject:
        """The call as a subject: its loss is linear, with the gradients of the program's own."""
        outputs = [t for t in tensors_in(self.outputs.output) if t.requires_grad]

        @cache
        def directions() -> list[Tensor | None]:
            gradients = gradients_of(root, outputs, retain=True)
            return [g if g is None else g.detach() / scale for g in gradients]

        def loss(output: Any) -> Tensor:
            given = (t for t in tensors_in(output) if t.requires_grad)
            pairs = zip(given, directions(), strict=True)
            return sum((t * g).sum() for t, g in pairs if g is not None)  # type: ignore[return-value]

        args, kwargs = map_tensors(_cut_off, (tuple(self.args), dict(self.kwargs)))
        return Subject(
            model=self.model,
            args=args,
            kwargs=kwargs,
            loss=loss,
            projection=loss_of("projection", None, options.seed),
            rows=tuple(self.rows),
            seed=options.seed,
            memory=options.limits.memory,
            own_loss=True,
        )

    def _as_called(self) -> AbstractContextManager[Any]:
        # Without copies of the weights, which would be of before a step.
        called = self.autocast and torch.autocast(*self.autocast, cache_enabled=False)
        return called or nullcontext()


def _cut_off(tensor: Tensor) -> Tensor:
    """The same numbers without what they were made from: that graph is the program's own."""
    return tensor.detach().requires_grad_() if tensor.grad_fn is not None else tensor


def _autocast_now() -> tuple[str, torch.dtype] | None:
    for device in ("cuda", "cpu"):
        if torch.is_autocast_enabled(device):
            return device, torch.get_autocast_dtype(device)
    return None


def _divided(result: Pass, scale: float) -> Pass:
    """Without the factor that a GradScaler put on the loss."""
    if scale == 1:
        return result

    def less(value: float | None) -> float | None:
        return None if value is None else value / scale

    rows = [row._replace(gradient_norm=less(row.gradient_norm)) for row in result.rows]
    around = result.around._replace(output_norm=less(result.around.output_norm))
    parameters = {key: (own, less(norm)) for key, (own, norm) in result.parameters.items()}
    return result._replace(
        rows=rows, parameters=parameters, loss=result.loss / scale, around=around
    )
