"""A change of a model that somebody else's code has built: another init, another activation."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from gradprobe.model.seeds import derive, reseed

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def change(model: nn.Module, changes: Iterable[str], seed: int) -> None:
    """Make each of ``changes`` in the model itself.

    Args:
        changes: ``init NAME``, a function of ``torch.nn.init`` for the weights of every linear and
            convolutional layer, biases zero; ``activation NAME``, a class of ``torch.nn`` in the
            place of every ``Sigmoid`` and ``Tanh``.
    """
    for index, words in enumerate(changes):
        what, name = words.split()
        reseed(derive(seed, f"change/{index}"))
        if what == "init":
            _initialise(model, name)
        else:
            _replace(model, name)


def _initialise(model: nn.Module, name: str) -> None:
    for module in model.modules():
        if isinstance(module, _WEIGHTED):
            getattr(nn.init, f"{name}_")(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _replace(model: nn.Module, name: str) -> None:
    for module in list(model.modules()):
        for key, child in list(module.named_children()):
            if isinstance(child, (nn.Sigmoid, nn.Tanh)):
                setattr(module, key, getattr(nn, name)())
