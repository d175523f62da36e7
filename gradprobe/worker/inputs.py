"""What a Python model is called with: given, drawn, or guessed from what its class tells."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from gradprobe.errors import InputError
from gradprobe.model.batch import load_batch
from gradprobe.model.call import load_call
from gradprobe.model.seeds import seed_all
from gradprobe.worker.blame import step
from gradprobe.worker.drawn import draw
from gradprobe.worker.exchange import Request
from gradprobe.worker.guess import Guess, guess
from gradprobe.worker.names import find, signature_of
from gradprobe.worker.process import Note


def inputs_of(model: nn.Module, request: Request, note: Note) -> Guess | tuple[Any, Tensor | None]:
    """What the model is called with, and labels where a data file has them; or what is guessed."""
    options = request.options
    if options.data is not None:
        call = load_call(options.data, options.batch_size, options.limits.memory)
        if call is not None:
            return call, None
        batch = load_batch(options.data, None, options.batch_size, options.limits.memory)
        return batch.inputs, batch.labels
    if request.function is not None:
        function = find(request.function, note)
        seed_all(options.seed)
        with step(note, f"calling {request.function}"):
            return function(), None
    if request.tensors:
        return tuple(draw(spec, i, options.seed) for i, spec in enumerate(request.tensors)), None
    signature = signature_of(model.forward)
    if signature is not None and not signature.parameters:
        return (), None
    with step(note, "guessing inputs"):
        guessed = guess(model, options.seed, options.batch_size)
    if guessed is None:
        shown = f"{type(model).__name__}.forward{signature or '(...)'}"
        hint = "--input shape=32,64/dtype=float32, --inputs package.module:function or --data FILE"
        hint += "; in a configuration's [[targets]] inputs = {shape = [32, 64]}"
        raise InputError(f"{shown} needs inputs: none are given, and no guess fits", hint=hint)
    return guessed


def moved(value: Any, model: nn.Module, request: Request) -> Any:
    """``value`` on the model's device; its numbers in the model's dtype where that is known."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        return value
    numbers = request.options.dtype is not None or request.options.data is not None

    def move(part: Any) -> Any:
        moved = part
        if isinstance(part, (Tensor, PackedSequence)):
            moved = moved.to(parameter.device)
            cast = numbers and moved.data.is_floating_point()
            moved = moved.to(parameter.dtype) if cast else moved
        return moved

    # A PackedSequence moves itself: its batch sizes stay on the CPU.
    return tree_map(move, value, is_leaf=lambda part: isinstance(part, PackedSequence))


def check_call(model: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> None:
    signature = signature_of(model.forward)
    if signature is None:
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        shown = f"{type(model).__name__}.forward{signature}"
        hint = "each --input is one argument, in order; --inputs can name them"
        raise InputError(f"{shown} does not take these inputs: {error}", hint=hint) from error
