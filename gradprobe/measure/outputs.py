"""What each row of a running model puts out, through hooks that are removed again.

A large gradient is reduced to its norm as soon as autograd has made it.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import GradientEdge, Node

from gradprobe.measure.ends import main_output, of_input
from gradprobe.measure.norms import ActivationStats, activation_stats, norms, weighted_rms
from gradprobe.measure.on_demand import Ledger, noting
from gradprobe.measure.passes import edge_of
from gradprobe.measure.progress import Step, tell
from gradprobe.measure.recorder import Arguments, Recorder, takes_hooks
from gradprobe.measure.surroundings import Surroundings
from gradprobe.model.ranks import Ranks
from gradprobe.model.repeats import holds_weights
from gradprobe.model.rows import Row, modules_of, parameters_of
from gradprobe.model.tensors import first_tensor, tensors_in, with_tensor

_LARGE = 1 << 15  # elements: from here a gradient is reduced as soon as it is made

# Whose gradient: (-1, id) of a parameter, (index, 0) of a call's main output, (index, k) of its
# k-th other one.
Key = tuple[int, int]
MAIN: Key = (-2, 0)  # the model's own main output


class RowCall(NamedTuple):
    """One call of a row's module, as its forward hook saw it."""

    row: Row
    main: Key  # of its main output; a row may hand out a parameter of its own
    edge: GradientEdge | None = None  # where the main output's gradient arrives, unless it is large
    copy: Tensor | None = None  # of a small output: an in-place layer may overwrite the original
    stats: ActivationStats | None = None  # of a large output
    spare: tuple[GradientEdge, ...] = ()  # of what else it hands out: an LSTM's last states
    node: Node | None = None  # that made the main output
    arguments: tuple[tuple[Node | None, int], ...] = ()  # who made each, and where it lies


class Outputs(Recorder):
    """Notes what each row puts out, and the norms of large gradients as they are made.

    ``alone`` says whether the backward pass is run for the norms alone: the weights' gradients may
    then be freed at once, and a view be handed on as a copy. With ``ranks`` outputs and gradients
    are kept whole, until the processes have added up what each has.
    """

    def __init__(
        self, model: nn.Module, rows: list[Row], *, alone: bool = True, ranks: Ranks | None = None
    ) -> None:
        super().__init__(rows)
        self.model = model
        self.rows: list[Row] = rows
        self.modules = modules_of(model)
        self.parameters = parameters_in(model)
        self.alone, self.ranks = alone, ranks
        self.calls: list[RowCall] = []
        self.reduced: dict[Key, float] = {}
        self.weighted: dict[int, float | None] = {}  # of the first call that holds weights
        self.called: set[nn.Module] = set()
        self.beside: set[str] = set()  # rows that no gradient has to do with: a mask, angles
        self.inputs: list[Tensor] = []  # of a call by a program: they may follow from other weights
        self.output: Any = None  # what the model gives
        self.main: Tensor | None = None  # the first tensor in it that a gradient can come from
        self.first: tuple[nn.Module, Tensor | None] | None = None  # to run, and what it got
        self.ledger: Ledger | None = None  # of weights that are there only while they are used
        self.transformed: list[Row] = []  # their outputs exist inside torch.vmap or torch.func

    def __enter__(self) -> Self:
        super().__enter__()
        self.ledger = self._handles.enter_context(noting(self.modules))
        for module in self.modules:
            if module._parameters and takes_hooks(module):
                self.before_calls(module, self._note)
        for parameter in self.parameters if self.alone and not self.ranks else ():
            large = parameter.numel() >= _LARGE and not parameter.is_meta
            if parameter.requires_grad and large:
                shrink = partial(self._shrink, key_of(parameter))
                self.until_exit(parameter.register_hook(shrink))  # type: ignore[no-untyped-call]
        return self

    def begun(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        """Note that the model itself runs already, so that its own hooks come too late."""
        if model._parameters:
            self._note(model, args, {})
        for row in self.rows:
            if row.module is model:
                self.running.append((row, (args, {})))

    def ended(self, output: Any) -> None:
        """Note what the model gives, and that it is over; its own hook would say so too late."""
        if self.running and output is not None:
            row, note = self.running.pop()
            self.after(row, note, output)
        self.of(output)
        self.recording = False

    def before(self, row: Row, args: Any, kwargs: Any) -> tuple[Any, Arguments | None]:
        return (args, kwargs), None

    def after(self, row: Row, note: Any, output: Any) -> Any:
        """Where the model overwrites a view, autograd forgets it: a copy is handed on."""
        tell(Step(min(len(self.calls) + 1, len(self.rows)), len(self.rows)))
        tensor = first_tensor(output)
        plain = tensor is not None and not is_functorch_wrapped_tensor(tensor)
        if (
            tensor is not None
            and plain
            and self.alone
            and tensor.requires_grad
            and tensor._is_view()
        ):
            output = with_tensor(output, tensor, tensor := tensor.clone())
        if tensor is None:
            self.calls.append(RowCall(row, (len(self.calls), 0)))
        elif _is_beside(row, note, tensor):
            self.beside.add(row.name)
        elif is_functorch_wrapped_tensor(tensor):
            self.transformed.append(row)
        else:
            made = self._call(row, tensor, output)
            self.calls.append(made._replace(arguments=_arguments(note)))
        return output

    def _call(self, row: Row, tensor: Tensor, output: Any) -> RowCall:
        own = isinstance(tensor, nn.Parameter)
        main = key_of(tensor) if own else (len(self.calls), 0)
        spare, edge = _spare(output, tensor), edge_of(tensor)
        node = edge.node if edge else None
        if (
            not self.weighted
            and not row.level
            and tensor.requires_grad
            and holds_weights(row.module)
        ):
            self.weighted[len(self.calls)] = None
            weigh = partial(self._weigh, len(self.calls), tensor.detach())
            self.until_exit(tensor.register_hook(weigh))  # type: ignore[no-untyped-call]
        if tensor.numel() < _LARGE or self.ranks:
            return RowCall(row, main, edge, tensor.detach().clone(), spare=spare, node=node)
        if tensor.requires_grad and not own:
            reduce = partial(self._reduce, main)
            self.until_exit(tensor.register_hook(reduce))  # type: ignore[no-untyped-call]
        [stats] = activation_stats([tensor.detach()])
        return RowCall(row, main, stats=stats, spare=spare, node=node)

    def _note(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.called.add(module)
        if self.first is None and self.recording:
            x = first_tensor([args, kwargs])
            plain = x is not None and not is_functorch_wrapped_tensor(x)
            self.first = (module, x.clone() if x is not None and plain else None)

    def of(self, output: Any) -> Any:
        """Note what the model gives."""
        self.output, self.main = output, main_output(output)
        return output

    def with_input(self, around: Surroundings) -> Surroundings:
        """``around`` with what the first weights got."""
        module, x = self.first or (None, None)
        return around if module is None or x is None else of_input(around, module, x)

    def _weigh(self, index: int, values: Tensor, gradient: Tensor) -> None:
        self.weighted[index] = weighted_rms(values, gradient.detach())

    def _reduce(self, key: Key, gradient: Tensor) -> None:
        self.reduced[key] = norms([gradient.detach()])[0]

    def _shrink(self, key: Key, gradient: Tensor) -> Tensor:
        """What autograd hands back instead of the gradient, which is freed at once."""
        self._reduce(key, gradient)
        if gradient.is_sparse:
            return torch.zeros_like(gradient)
        return gradient.new_zeros(()).expand(gradient.shape)


def _spare(output: Any, first: Tensor) -> tuple[GradientEdge, ...]:
    """Where gradients arrive at the other tensors that a row hands out, none larger than ``first``:
    attention weights are, and nothing reads them; nor a scalar, which is a loss."""
    others = [t for t in tensors_in(output) if t is not first and t.numel() <= first.numel()]
    edges = [edge_of(t) for t in others if t.is_floating_point() and t.dim()]
    return tuple(edge for edge in edges if edge is not None)


def _arguments(arguments: Any) -> tuple[tuple[Node | None, int], ...]:
    """Of each tensor: the node that made it, and where it lies in memory."""
    seen = (t for t in tensors_in(arguments) if not is_functorch_wrapped_tensor(t))
    return tuple((t.grad_fn, t.data_ptr()) for t in islice(seen, 4) if t.layout is torch.strided)


def key_of(parameter: Tensor) -> Key:
    return -1, id(parameter)


def parameters_in(model: nn.Module) -> list[nn.Parameter]:
    """Those that are there, each once: a model's own ``parameters()`` may leave some out."""
    return list(dict.fromkeys(parameter for _, parameter in parameters_of(model)))


def _is_beside(row: Row, arguments: Any, output: Tensor) -> bool:
    if output.requires_grad or holds_weights(row.module):
        return False
    return not any(tensor.requires_grad for tensor in tensors_in(arguments))
