"""Three things that a norm does not say: whether the gradient is still the same after a small step
along it, how much of it each row hands straight back, and how far into the past it reaches.

A large gradient with a highway is useful; a large one without is a shattered one (Balduzzi et al.
2017, arXiv 1702.08591), which is another as soon as the weights have moved a little.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import quantiles
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.utils.rnn import PackedSequence

from gradprobe.measure.again import output_of, standing_at
from gradprobe.measure.blocks.chain import as_leaf
from gradprobe.measure.checkpoints import keeping_graph
from gradprobe.measure.further import Glance, further_of, glance
from gradprobe.measure.highways import Crossings
from gradprobe.measure.measurement import SecondLook
from gradprobe.measure.norms import norms
from gradprobe.measure.passes import gradients_of, model_errors
from gradprobe.measure.small_step import STEP, moved_against, parts_of
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.sharded import is_sharded
from gradprobe.model.subject import Subject
from gradprobe.model.tensors import first_tensor, in_float64, tensors_in, word_of

_COARSE = 1e-4  # a dtype's relative spacing, above which the step drowns in rounding


def immovable(model: nn.Module) -> str | None:
    """Why the model's weights cannot take such a small step, in words; ``None`` where they can."""
    if any(map(is_sharded, model.parameters())):
        return "sharded weights are not moved"
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    coarse = [d for d in dtypes if torch.finfo(d).eps > _COARSE]
    names = sorted(word_of(d) for d in coarse)
    return f"{names[0]} is too coarse for a step of {STEP:g}" if names else None


def second_look(subject: Subject, step: float = STEP, bends: bool = False) -> SecondLook:
    """Two forward and backward passes, the second one a small step later.

    The step moves each weight tensor W (two dimensions or more; m × n as a matrix) against its
    gradient by ``step`` · ‖W‖ / √min(m, n), a share of its RMS singular value: the gradient of a
    batch has few directions, so a share of the norm would be a longer step the wider the layer.
    Of scale-invariant weights the step is shorter where it would change the output too much: see
    ``small_step``. Biases, scales and complex weights stay. Weights that are zero, or whose
    gradient is, have no say.

    The highways are what ``highways`` says, each with an error of about the row's gain / √n;
    ``blocks.jacobians`` is more exact, of the unweighted trace. The model is left as it was.

    Args:
        subject: its ``projection`` is the loss.
        step: ÷ the RMS singular value of the weight.
        bends: whether the curvature of the user's loss is wanted, for as much as two passes.

    Raises:
        ModelError: a forward or backward pass raised.
    """
    weights = weights_of(subject.model)
    with keeping_graph(), model_errors():
        try:
            first = first_pass(subject, weights, bends)
        except RuntimeError:  # a model that sets itself what requires a gradient
            first = first_pass(subject, weights, bends, leaves=False)
        further = further_of(subject, first.glance)
        look, before, spread = first.look, first.gradients, first.spread
        del first  # whose glance holds a gradient of every parameter
        moved, invariant = moved_against(weights, before, step, spread)
        # Until the backward pass is over: a checkpointed layer runs again in it.
        with undisturbed(subject.model), standing_at(weights, moved):
            alike = _compared(subject, {name: weights[name] for name in moved}, before)
    coherence = lower_quartile(alike)
    return look._replace(coherence=coherence, invariant=invariant, further=further)


def weights_of(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The weights that a step may move, by name."""
    return {
        name: p
        for name, p in module.named_parameters(prefix)
        if p.dim() > 1 and p.requires_grad and p.is_floating_point()
    }


class FirstPass(NamedTuple):
    """What the pass before the step tells."""

    look: SecondLook
    gradients: dict[str, Tensor]  # of the weights
    spread: float
    glance: Glance


def first_pass(
    subject: Subject,
    weights: Mapping[str, Tensor],
    bends: bool,
    run: Callable[[Subject], Any] = output_of,
    leaves: bool = True,
) -> FirstPass:
    """The pass before the step.

    Args:
        run: gives the model's output.
        leaves: whether rows that read the data are crossed as well.
    """
    with (
        undisturbed(subject.model),
        Crossings(subject, leaves) as crossings,
        _sequences(subject.model) as sequences,
        _channels(subject.model) as channels,
    ):
        output = run(subject)
        crossings.end(output)
        seen = glance(subject, output, bends)
        highways = {name: crossing.highway() for name, crossing in crossings.by_name.items()}
        ran = list(sequences.values())  # without what a checkpointed layer runs again
        inputs = [x for sequence in ran for x in sequence.xs]
        named = {f"input {n}": x for n, x in enumerate(inputs)}
        loss = subject.projection(output)
        spread = _spread(loss, output)
        gradients = gradients_by_name(loss, {**weights, **named})
    back = iter([gradients.pop(name, None) for name in named])
    lost = [sequence.lost([next(back) for _ in sequence.xs]) for sequence in ran]
    look = SecondLook(
        coherence=None,
        highways=highways,
        lost_past=max(lost, default=0.0),
        normalised=min(channels, default=None),
    )
    return FirstPass(look, gradients, spread, seen)


def gradients_by_name(loss: Tensor, of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients of the loss that are there, by name."""
    gradients = gradients_of(loss, list(of.values()))
    pairs = zip(of, gradients, strict=True)
    return {n: (g.to_dense() if g.is_sparse else g).detach() for n, g in pairs if g is not None}


def _spread(loss: Tensor, output: Any) -> float:
    """By how much the loss differs between samples: √Σ ‖∂L/∂y‖² ‖y - ȳ‖² over the outputs y.

    A sample that is alone is compared with zero.
    """
    outputs = [y for y in tensors_in(output) if y.is_floating_point() and y.requires_grad]
    slopes = gradients_of(loss, outputs, retain=True)
    pairs = [(y.detach(), s) for y, s in zip(outputs, slopes, strict=True) if s is not None]
    apart = norms([y - y.mean(0) if y.dim() and len(y) > 1 else y for y, _ in pairs])
    steep = norms([slope.contiguous() for _, slope in pairs])
    return math.hypot(*(a * b for a, b in zip(apart, steep, strict=True)))


def _compared(
    subject: Subject, weights: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> list[float]:
    """How alike each weight's gradient is to that before, which is gone once it was compared."""
    alike: dict[str, float] = {}

    def compare(name: str, gradient: Tensor) -> Tensor:
        alike[name] = likeness(before[name], gradient.to_dense())
        if gradient.is_sparse:
            return torch.zeros_like(gradient)
        return gradient.new_zeros(()).expand(gradient.shape)

    if not weights:
        return []
    with ExitStack() as hooks:
        for name, weight in weights.items():
            hook = weight.register_hook(partial(compare, name))  # type: ignore[no-untyped-call]
            hooks.callback(hook.remove)
        loss = subject.projection(output_of(subject))
        torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return [alike[name] for name in weights if name in alike]


def lower_quartile(values: Sequence[float]) -> float | None:
    """``None`` of nothing, and where one is not finite."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]


def likeness(a: Tensor, b: Tensor) -> float:
    """1 - ‖a - b‖ / (‖a‖ + ‖b‖): of two gradients, not both zero."""
    lengths = [_length(in_float64(part) for part in parts_of(x)) for x in (a, b)]
    most = max(lengths)
    if not math.isfinite(most):
        return math.nan
    pairs = zip(parts_of(a), parts_of(b), strict=True)
    apart = _length(in_float64(x) / most - in_float64(y) / most for x, y in pairs)
    return 1 - apart / (sum(lengths) / most)


def _length(parts: Iterable[Tensor]) -> float:
    """The 2-norm of a vector that comes in parts."""
    return math.hypot(*(float(torch.linalg.vector_norm(part)) for part in parts))


class _Sequence(NamedTuple):
    """What a recurrent layer got in one call, or a recurrent cell in all of its calls."""

    xs: tuple[Tensor, ...]
    positions: Callable[[Tensor], Sequence[Tensor]]  # of one of them, or of its gradient, in time

    def lost(self, gradients: Sequence[Tensor | None]) -> float:
        """log10 of the largest gradient of a position ÷ that of the first: 0 if that is it.

        The largest and not the last, which may be padding that nothing reads. What no gradient
        comes back to belongs to no sequence.
        """
        present = [g for g in gradients if g is not None]
        sizes = norms([at.contiguous() for g in present for at in self.positions(g)])
        most = max(sizes, default=0.0)
        if not (most and all(map(math.isfinite, sizes))):
            return 0.0
        # The smallest number there is: what underflowed is gone.
        return math.log10(most / max(sizes[0], sys.float_info.min))


@contextmanager
def _sequences(model: nn.Module) -> Iterator[dict[object, _Sequence]]:
    """What recurrent layers and cells get meanwhile, where a gradient is wanted."""
    sequences: dict[object, _Sequence] = {}

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        argument: Any = args[0] if args else kwargs.get("input")
        packed = isinstance(argument, PackedSequence)
        x = argument.data if packed else argument
        if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
            return None
        if is_functorch_wrapped_tensor(x):  # in a vmap: no leaf can be made there
            return None
        if not x.dim() or (x.dim() == 1 and isinstance(module, nn.RNNBase)):  # one's own forward
            return None
        if not torch.is_grad_enabled():  # a warm-up: nothing comes back to it
            return None
        inside = x if x.requires_grad else as_leaf(x)
        if isinstance(module, nn.RNNCellBase):
            inside = inside.clone()  # what several calls get is one position in each
            earlier = sequences[module].xs if module in sequences else ()
            sequences[module] = _Sequence((*earlier, inside), lambda at: (at,))
        elif packed:
            sizes = argument.batch_sizes.tolist()
            sequences[object()] = _Sequence((inside,), lambda x: torch.split(x, sizes))
        else:
            time = 1 if module.batch_first and x.dim() == 3 else 0
            sequences[object()] = _Sequence((inside,), lambda x: x.unbind(time))
        new = argument._replace(data=inside) if packed else inside
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"input": new})

    with _before(model, (nn.RNNBase, nn.RNNCellBase), hook):
        yield sequences


@contextmanager
def _channels(model: nn.Module) -> Iterator[list[int]]:
    """How many values each BatchNorm has for a channel meanwhile, where it uses the batch's."""
    sizes: list[int] = []

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = first_tensor([args, kwargs])
        if module.training and x is not None and x.dim() > 1 and x.shape[1]:
            sizes.append(x.numel() // x.shape[1])

    with _before(model, (nn.modules.batchnorm._BatchNorm,), hook):
        yield sizes


@contextmanager
def _before(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], hook: Callable[..., Any]
) -> Iterator[None]:
    """``hook`` is called before each module of these kinds meanwhile."""
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, kinds):
                handle = module.register_forward_pre_hook(hook, with_kwargs=True)
                hooks.callback(handle.remove)
        yield
