"""A program that trains → its steps, each with the measurement of the model that it trains.

The outermost modules that the program calls are watched while they run. Just before the program's
own backward pass the same graph is asked for the gradient of every row. Nothing that the program
computes is changed: its results are, bit for bit, what they are without a watcher, but for what is
compiled, which runs as it was written at a step that is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.modules import module as modules
from torch.optim import Optimizer
from torch.optim import optimizer as optimizers

from gradprobe.errors import InputError
from gradprobe.measure.checkpoints import without_reentrant
from gradprobe.measure.live.call import Call
from gradprobe.measure.live.shared import Listeners, Shared
from gradprobe.measure.measurement import Measurement, Step
from gradprobe.measure.passes import failed
from gradprobe.measure.undisturbed import eager
from gradprobe.model.ranks import ranks_of, unwrapped
from gradprobe.model.rows import Row, find_rows
from gradprobe.model.sharded import class_of
from gradprobe.model.tensors import walk
from gradprobe.spec.options import ProbeOptions

_EAGER, _PLAIN = Shared(eager), Shared(without_reentrant)
_INIT = Listeners(Optimizer, "__init__", after=True)
_BACKWARD = Listeners(torch.autograd, "backward")
_SCALE = Listeners(torch.amp.GradScaler, "scale", after=True)
_AT_WORK: set[int] = set()  # threads that run passes of gradprobe's own


@dataclass(frozen=True)
class Seen:
    """A step, with the measurement of the last backward pass before it.

    Where there is none, ``reason`` says why.
    """

    step: Step
    measurement: Measurement | None = None
    reason: str | None = None
    args: tuple[Any, ...] = ()  # that the model was called with
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Watcher:
    """Watches a program inside ``with``, and hands ``on_step`` the steps that ``wants`` chose."""

    def __init__(
        self,
        wants: Callable[[int], bool],
        on_step: Callable[[Seen], None],
        options: ProbeOptions | None = None,
        only: nn.Module | None = None,
    ) -> None:
        """
        Args:
            wants: whether to look at a step of this number.
            on_step: gets a step before it is taken, or after it where it runs the passes itself;
                what it raises goes through the program.
            options: its rows, seed, memory and ``deep`` count.
            only: the module to watch; by default what holds most of an optimizer's parameters.
        """
        self.wants, self.on_step = wants, on_step
        self.options = options or ProbeOptions()
        self.only = unwrapped(only) if only is not None else None
        self.counts: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()  # of their steps
        self._rows: WeakKeyDictionary[nn.Module, list[Row]] = WeakKeyDictionary()
        self._calls: list[Call] = []  # since the last step
        self._backwards = 0
        self._scale: float | None = None
        self._without_rows = ""  # why a module that was called is not watched
        self._over = False  # a step was taken since the last forward pass
        self._inside: list[Call | None] = []  # the calls that run now; None: of no outermost module
        self._thread = threading.get_ident()
        self._undo, self._armed, self._until_forgotten = ExitStack(), ExitStack(), ExitStack()
        self._is_armed = False

    def __enter__(self) -> Self:
        untraced: Any = torch.compiler.disable  # a program may compile its optimizer's step
        handles = (
            optimizers.register_optimizer_step_pre_hook(untraced(self._before_step)),
            optimizers.register_optimizer_step_post_hook(untraced(self._after_step)),
        )
        for handle in handles:
            self._undo.callback(handle.remove)
        self._undo.enter_context(_INIT.with_one(self._after_init))
        self._arm()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()
        self._armed.close()
        self._forget()

    def _arm(self) -> None:
        """Watch the passes where a step that may come next is wanted, and else nothing of them."""
        wanted = any(self.wants(count + 1) for count in list(self.counts.values()) or [0])
        if not wanted:
            self._armed.close()
            self._forget()
        elif not self._is_armed:
            self._is_armed = True
            self._armed.callback(setattr, self, "_is_armed", False)
            self._armed.enter_context(_EAGER())  # what is compiled calls no hooks
            for handle in (
                modules.register_module_forward_pre_hook(self._begin),
                modules.register_module_forward_hook(self._end, with_kwargs=True, always_call=True),
            ):
                self._armed.callback(handle.remove)
            self._armed.enter_context(_BACKWARD.with_one(self._before_backward))
            self._armed.enter_context(_SCALE.with_one(self._after_scale))

    def sight(self) -> str:
        """What was seen since the last step, in words."""
        names = dict.fromkeys(class_of(call.model).__name__ for call in self._calls)
        if not names:
            return "no module was called"
        times = f"{self._backwards} time{'' if self._backwards == 1 else 's'}"
        return f"{', '.join(names)} ran, backward() was called {times}"

    # ---- the forward pass

    def _begin(self, module: nn.Module, args: Any) -> None:
        if self._elsewhere():
            return
        outermost = not any(self._inside)
        call = self._call_of(module) if outermost and torch.is_grad_enabled() else None
        if call and call.model is module:
            call.outputs.begun(module, args)
        self._inside.append(call)

    def _end(self, module: nn.Module, args: Any, *rest: Any) -> None:
        if self._elsewhere() or not self._inside:
            return
        call = self._inside.pop()
        if call:
            kwargs, output = rest if len(rest) == 2 else ({}, None)  # where the model raised
            call.ended(args, kwargs, output)

    def _elsewhere(self) -> bool:
        """Whether this is a pass of gradprobe's own, or of checkpointing, or another thread's."""
        backward = torch._C._current_graph_task_id() != -1
        return self._busy or backward or threading.get_ident() != self._thread

    def _call_of(self, module: nn.Module) -> Call | None:
        model = unwrapped(module)
        if self.only is not None and model is not self.only:
            return None
        if not any(p.requires_grad for p in model.parameters()):
            return None
        if self._over:
            self._forget(waiting=True)
        if model not in self._rows:
            try:
                self._rows[model] = find_rows(model, self.options.rows)
            except InputError as error:  # it may be meant for another of the program's modules
                self._without_rows = self._without_rows or error.message
                return None
        if not self._calls:
            self._until_forgotten.enter_context(_PLAIN())
        call = Call(model, self._rows[model], ranks_of(module))
        self._calls.append(call)
        return call

    def _forget(self, waiting: bool = False) -> None:
        """Forget what was called; ``waiting``: not what the next backward pass may come back to.

        A generator's output goes into the step of its judge first, and into its own after that.
        """
        kept = [call for call in self._calls if waiting and call.waits()]
        for call in self._calls:
            if call not in kept:
                call.forget()
        if not kept:
            self._until_forgotten.close()
        self._calls, self._backwards, self._scale, self._over = kept, 0, None, False
        self._without_rows = ""

    # ---- the backward pass

    def _before_backward(self, tensors: Any, grad_tensors: Any = None, *_: Any, **__: Any) -> None:
        root = _root(tensors, grad_tensors) if self._calls and not self._busy else None
        if root is None:
            return
        self._backwards += 1
        nodes = set(walk([root.grad_fn]))
        calls = sorted((call for call in self._calls if call.feeds(nodes)), key=Call.size)
        largest = {call.model: call for call in calls}  # the last of several as large
        with self._at_work():
            for call in largest.values():
                try:
                    call.measurement = call.measure(root, self._scale or 1.0, self.options)
                except Exception as error:
                    call.error = failed(error).message

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """What runs meanwhile is gradprobe's own, for the other watchers as well."""
        thread = threading.get_ident()
        _AT_WORK.add(thread)
        try:
            yield
        finally:
            _AT_WORK.discard(thread)

    @property
    def _busy(self) -> bool:
        return threading.get_ident() in _AT_WORK

    def _after_scale(self, scaler: torch.amp.GradScaler, *_: Any) -> None:
        self._scale = scaler.get_scale() if scaler.is_enabled() else None

    # ---- the step

    def _after_init(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        if not self._busy:
            self.counts.setdefault(optimizer, 0)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not _closure(args, kwargs):
            self._step(optimizer)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if _closure(args, kwargs):  # the step has run the forward and the backward pass
            self._step(optimizer)

    def _step(self, optimizer: Optimizer) -> None:
        if self._busy:  # a step of gradprobe's own
            return
        number = self.counts[optimizer] = self.counts.get(optimizer, 0) + 1
        self._over = True
        if self.wants(number):
            self.on_step(self._seen(optimizer, number))
        self._arm()

    def _seen(self, optimizer: Optimizer, number: int) -> Seen:
        """The step, with what was measured of the module that the optimizer trains most of."""
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}

        def share(call: Call) -> int:
            return sum(p.numel() for p in call.model.parameters() if id(p) in trained)

        holders = [call for call in self._calls if share(call)]
        measured = sorted((c for c in holders if c.measurement), key=share)
        call = measured[-1] if measured else None
        others = [class_of(c.model).__name__ for c in holders if call and c.model is not call.model]
        step = Step(
            number=number,
            optimizer=list(self.counts).index(optimizer),
            kind=type(optimizer).__name__,
            backwards=self._backwards,
            others=tuple(dict.fromkeys(others)),
            scale=self._scale,
        )
        if call is None:
            return Seen(step, reason=self._reason(holders))
        return Seen(step, call.measurement, args=call.args, kwargs=call.kwargs)

    def _reason(self, holders: list[Call]) -> str:
        """Why nothing was measured."""
        failures = [call.error for call in holders if call.error]
        if failures:
            return failures[-1]
        if not holders:
            return self._without_rows or "no module with the optimizer's parameters was called"
        if not self._backwards:
            return "backward() was not called"
        return "the loss does not follow from what the model gave"


def _closure(args: Any, kwargs: Any) -> bool:
    return (args[0] if args else kwargs.get("closure")) is not None


def _root(tensors: Any, weights: Any) -> Tensor | None:
    """What backward() starts from, as one scalar; ``None`` where nothing requires a gradient."""
    single = isinstance(tensors, (Tensor, GradientEdge))  # an edge is a tuple
    roots: list[Any] = [tensors] if single else list(tensors)
    weights = [weights] if weights is None or isinstance(weights, Tensor) else list(weights)
    weights += [None] * (len(roots) - len(weights))
    pairs = [(t, w) for t, w in zip(roots, weights, strict=True) if getattr(t, "grad_fn", None)]
    if not pairs:
        return None
    if len(pairs) == 1 and pairs[0][1] is None:
        return pairs[0][0] if pairs[0][0].numel() == 1 else None
    with torch.enable_grad():
        terms = [(t if w is None else t * w).sum() for t, w in pairs]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]
