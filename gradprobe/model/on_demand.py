"""Parts of a model whose weights are made whenever they run, and gone afterwards.

A part's own weights stay on the meta device. In the graph it is one node, whose backward makes the
weights again, the same to the bit, and runs the part again with a graph of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from gradprobe.errors import ModelError
from gradprobe.model.build import own_generator
from gradprobe.model.kept import Store
from gradprobe.model.rows import modules_of, parameters_of
from gradprobe.model.seeds import generator_states, set_generator_states

Drawn = Sequence[tuple[nn.Parameter, nn.Parameter]]  # each on the meta device, and with its numbers


class Listener:
    """Gets what is gone afterwards; a subclass notes some of it."""

    def made(self, drawn: Drawn, outputs: list[Any]) -> None:
        """The weights of a part that runs forward, and what it puts out, with its graph."""

    def behind(self, ends: list[Tensor], named: list[tuple[str, nn.Parameter]]) -> None:
        """The graph of a part, before it is run backward."""

    def arrived(self, parameter: nn.Parameter, gradient: Tensor, left: int) -> None:
        """The gradient of a parameter, which is on the meta device itself.

        Args:
            left: runs of its part that a gradient may come from still.
        """


class Part:
    """The forward of a module that has no numbers but while it runs."""

    listener: Listener | None = None
    change: Callable[[nn.Parameter, nn.Parameter], None] | None = None  # of what was drawn
    left = 0  # runs forward without one backward
    store: Callable[[], Store] = Store  # for what it reads

    def __init__(self, module: nn.Module, path: str, fill: Callable[[nn.Module], None]) -> None:
        """Take the place of the module's forward.

        Args:
            fill: gives the module's parameters their numbers, in float32 on the CPU.
        """
        self.module, self.path, self.fill = module, path, fill
        self.live = module  # has the numbers while they are there
        self.forward, self.dtype = module.forward, torch.float32
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree_flatten((args, kwargs))
        call = _Call(self, leaves, structure)
        self.left += 1
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        own = [p for _, p in parameters_of(self.module)]
        outputs = _Run.apply(call, *tensors, *own)  # type: ignore[no-untyped-call]
        return call.whole(list(outputs))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile the module has its numbers, and runs as any other."""
        with self.weights():
            self.module.forward = self.forward
            try:
                yield
            finally:
                self.module.forward = self

    @contextmanager
    def weights(self) -> Iterator[Drawn]:
        """Meanwhile the module has its numbers."""
        places = _places([self.module])
        drawn = {id(p): (p, _empty(p)) for _, _, p in places if p.is_meta}
        try:
            # What is shared with other parts has its numbers, which the part must not draw again.
            for parameters, name, parameter in places:
                parameters[name] = drawn.get(id(parameter), (None, _on_meta(parameter)))[1]
            with own_generator(), torch.no_grad():
                self.fill(self.module)
            for parameters, name, parameter in places:
                parameters[name] = drawn.get(id(parameter), (None, parameter))[1]
            for outline, fresh in drawn.values():
                fresh.data = fresh.data.to(self.dtype)
                if self.change is not None:
                    self.change(outline, fresh)
            yield list(drawn.values())
        finally:
            for parameters, name, parameter in places:
                parameters[name] = parameter


def parts_of(modules: Iterable[nn.Module]) -> list[Part]:
    """The parts among modules."""
    forwards = (module.__dict__.get("forward") for module in modules)
    return [forward for forward in forwards if isinstance(forward, Part)]


@contextmanager
def heard_by(listener: Listener, modules: Iterable[nn.Module]) -> Iterator[list[Part]]:
    """Meanwhile the parts among ``modules`` tell the listener what they do."""
    parts = parts_of(modules)
    for part in parts:
        part.listener, part.left = listener, 0
    try:
        yield parts
    finally:
        for part in parts:
            part.listener = None


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Meanwhile a module has its numbers, if it is a part."""
    with ExitStack() as stack:
        for part in parts_of([module]):
            stack.enter_context(part.held())
        yield


def settle(model: nn.Module) -> None:
    """Give every part of a model its numbers for good: the same model, whole in memory."""
    for part in parts_of(modules_of(model)):
        del part.module.__dict__["forward"]
        with part.weights() as drawn:
            numbers = {id(outline): fresh for outline, fresh in drawn}
        for parameters, name, parameter in _places([part.module]):
            parameters[name] = numbers.get(id(parameter), parameter)


_Place = tuple[dict[str, nn.Parameter | None], str, nn.Parameter]  # a module's parameters, a name


def _places(modules: Iterable[nn.Module]) -> list[_Place]:
    """Where parameters stand in modules and what is inside them."""
    inside = {module: None for outer in modules for module in modules_of(outer)}
    return [
        (module._parameters, name, parameter)
        for module in inside
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]


def _on_meta(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)


@contextmanager
def weightless() -> Iterator[None]:
    """Meanwhile parameters are made on the meta device, and buffers as they are."""
    register = nn.Module.register_parameter

    def registered(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = _on_meta(parameter)
        register(module, name, parameter)

    nn.Module.register_parameter = registered  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


Fill = Callable[[str, nn.Module], None]  # the path of a module, and the module


def take_apart(model: nn.Module, modules: Sequence[nn.Module], fill: Fill) -> list[Part]:
    """Make parts of some modules of a weightless model; what is in none of them, or in several,
    stays in memory.

    Args:
        fill: gives a module's parameters that are on the CPU their numbers, in float32.
    """
    paths = {module: path for path, module in model.named_modules()}
    owners = Counter(key for m in modules for key in {id(p) for p in m.parameters()})
    alone = {key for key, count in owners.items() if count == 1}
    resident: dict[int, nn.Parameter] = {}
    for module in modules_of(model):
        own = [place for place in _places([module]) if place[0] is module._parameters]
        new = {id(p): _empty(p) for _, _, p in own if id(p) not in alone | resident.keys()}
        for parameters, name, parameter in own:
            parameters[name] = new.get(id(parameter), parameter)
        if new:
            with own_generator(), torch.no_grad():
                fill(paths[module], module)
        resident |= new
    for parameters, name, parameter in _places([model]):
        parameters[name] = resident.get(id(parameter), parameter)
    return [Part(m, paths[m], partial(_drawn, fill, paths[m])) for m in modules if _has_meta(m)]


def _drawn(fill: Fill, path: str, module: nn.Module) -> None:
    fill(path, module)
    for parameter in module.parameters():
        if not parameter.is_meta and parameter.numel() and bool(parameter.view(-1)[-1].isnan()):
            shape = list(parameter.shape)
            raise ModelError(f"{path}: nothing draws its parameter of shape {shape}")


def _has_meta(module: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in module.parameters())


def _empty(parameter: nn.Parameter) -> nn.Parameter:
    empty = torch.empty(parameter.shape, dtype=torch.float32)
    if empty.numel():
        empty.view(-1)[-1] = torch.nan  # it stays where nothing fills the tensor
    return nn.Parameter(empty, parameter.requires_grad)


class _Inside(NamedTuple):
    """One run of a part with its own graph."""

    inputs: list[Tensor]
    outputs: list[Any]


class _Call:
    """One call of a part, that can be run once more."""

    def __init__(self, part: Part, leaves: list[Any], structure: Any) -> None:
        self.part, self.leaves, self.structure = part, leaves, structure
        self.states = generator_states()
        self.others: list[Any] = []  # what it puts out that is no tensor
        self.shape: Any = None

    def run(self, tensors: Sequence[Tensor]) -> _Inside:
        """Run the part, with a graph that begins at copies of ``tensors``."""
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in tensors]
        fresh = iter(inputs)
        leaves = [next(fresh) if isinstance(x, Tensor) else x for x in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.structure)
        with torch.enable_grad():
            outputs, self.shape = tree_flatten(self.part.forward(*args, **kwargs))
        return _Inside(inputs, outputs)

    def whole(self, tensors: list[Tensor]) -> Any:
        """What the part puts out, with ``tensors`` in their places."""
        rest = iter(tensors)
        leaves = [next(rest) if x is None else x[0] for x in self.others]
        return tree_unflatten(leaves, self.shape)


class _Run(torch.autograd.Function):
    """A part in the graph, between its inputs with its parameters and its outputs."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = sum(isinstance(x, Tensor) for x in call.leaves)
        ctx.call, ctx.count = call, count
        ctx.set_materialize_grads(False)
        store = call.part.store()
        ctx.kept = [store.keep(x) if x.requires_grad else None for x in tensors[:count]]
        ctx.save_for_backward(*(x for x in tensors[:count] if not x.requires_grad))
        with call.part.weights() as drawn:
            outputs = call.run(tensors[:count]).outputs
            if call.part.listener is not None:
                call.part.listener.made(drawn, outputs)
        call.others = [None if isinstance(x, Tensor) else (x,) for x in outputs]
        results = tuple(x.detach() for x in outputs if isinstance(x, Tensor))
        ctx.mark_non_differentiable(*(x for x in results if not x.is_floating_point()))
        return results

    @staticmethod
    def backward(ctx: Any, *arriving: Tensor | None) -> tuple[Tensor | None, ...]:
        call, part, saved = ctx.call, ctx.call.part, iter(ctx.saved_tensors)
        before = generator_states()
        part.left -= 1
        set_generator_states(call.states)
        try:
            with part.weights() as drawn:
                inside = call.run([k.get() if k else next(saved) for k in ctx.kept])
                return (None, *_gradients(part, drawn, inside, arriving))
        finally:
            set_generator_states(before)


def _gradients(
    part: Part, drawn: Drawn, inside: _Inside, arriving: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Those of the inputs and of all parameters; of the part's own an empty one on meta."""
    outputs = [x for x in inside.outputs if isinstance(x, Tensor)]
    pairs = [(y, g) for y, g in zip(outputs, arriving, strict=True) if g is not None]
    pairs = [(y, g) for y, g in pairs if y.requires_grad]
    named = parameters_of(part.live, f"{part.path}.")
    if part.listener is not None:
        part.listener.behind([y for y, _ in pairs], named)
    own = {id(fresh): outline for outline, fresh in drawn}
    wanted = [x for x in (*inside.inputs, *(p for _, p in named)) if x.requires_grad]
    with ExitStack() as hooks:
        for outline, fresh in drawn:
            if fresh.requires_grad and part.listener is not None:
                reduce = partial(_reduced, part, part.listener, outline)
                hooks.callback(fresh.register_hook(reduce).remove)  # type: ignore[no-untyped-call]
        ends, weights = [y for y, _ in pairs], [g for _, g in pairs]
        unique = list({id(x): x for x in wanted}.values())
        gradients = (
            torch.autograd.grad(ends, unique, weights, allow_unused=True)
            if ends and unique
            else [None] * len(unique)
        )
    by_tensor = dict(zip(map(id, unique), gradients, strict=True))
    return [
        *(by_tensor.get(id(x)) for x in inside.inputs),
        *_once(by_tensor, [p for _, p in named], own),
    ]


def _once(
    by_tensor: dict[int, Tensor | None], parameters: Iterable[nn.Parameter], own: dict[int, Any]
) -> Iterator[Tensor | None]:
    """The gradient of each parameter; of one that stands there twice the first time alone."""
    for parameter in parameters:
        gradient = by_tensor.pop(id(parameter), None)
        if gradient is not None and id(parameter) in own:
            gradient = torch.empty_like(own[id(parameter)])
        yield gradient


def _reduced(part: Part, listener: Listener, outline: nn.Parameter, gradient: Tensor) -> Tensor:
    """What autograd hands back instead of the gradient, which is freed at once."""
    listener.arrived(outline, gradient.detach(), part.left)
    return gradient.new_zeros(()).expand(gradient.shape)
