"""The modules of a spec's layers that torch has not, or has with another signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def _overwrites(module: nn.Module) -> bool:
    return any(getattr(layer, "inplace", False) for layer in module.modules())


class Residual(nn.Module):
    """y = skip_scale · shortcut(x) + branch_scale · F(x); the layers of F are children 0, 1, …"""

    def __init__(
        self,
        branch: Mapping[str, nn.Module],
        shortcut: nn.Module | None,
        skip_scale: float,
        branch_scale: float,
    ) -> None:
        super().__init__()
        for name, layer in branch.items():
            self.add_module(name, layer)
        self.shortcut = shortcut
        self.branch = tuple(branch.values())
        self.skip_scale = skip_scale
        self.branch_scale = branch_scale
        self.overwrites = _overwrites(self)

    def skip_of(self, x: Tensor) -> Tensor:
        """What travels along the skip."""
        if self.shortcut is None:
            skip = x
        else:
            skip = self.shortcut(x.clone() if self.overwrites else x)
        return skip if self.skip_scale == 1 else skip * self.skip_scale

    def branch_of(self, x: Tensor) -> Tensor:
        """What travels through the branch, which must not overwrite what the skip carries."""
        x = x.clone() if self.overwrites else x
        for layer in self.branch:
            x = layer(x)
        return x if self.branch_scale == 1 else x * self.branch_scale

    def forward(self, x: Tensor) -> Tensor:
        return self.skip_of(x) + self.branch_of(x)


class Concat(nn.Module):
    """The outputs of several branches of one input, joined along ``dim``."""

    def __init__(self, branches: list[nn.Module], dim: int) -> None:
        super().__init__()
        for index, branch in enumerate(branches):
            self.add_module(str(index), branch)
        self.dim = dim
        self.overwrites = _overwrites(self)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x.clone() if self.overwrites else x) for branch in self.children()]
        return torch.cat(outputs, dim=self.dim)


class _SelfAttention(nn.Module):
    """Of a sequence with itself, batch first; ``causal`` hides the positions to come."""

    def __init__(self, *, causal: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments, batch_first=True)
        self.causal = causal

    def mask_of(self, x: Tensor) -> Tensor | None:
        if not self.causal:
            return None
        length = x.shape[1]
        return torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)


class MultiheadAttention(_SelfAttention, nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        mask = self.mask_of(x)
        output: Tensor
        output, _ = super().forward(
            x, x, x, need_weights=False, attn_mask=mask, is_causal=self.causal
        )
        return output


class TransformerEncoderLayer(_SelfAttention, nn.TransformerEncoderLayer):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, src_mask=self.mask_of(x), is_causal=self.causal)


class _Sequence(nn.RNNBase):
    """A recurrent layer that takes the batch first and hands on its sequence output."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(batch_first=True, **arguments)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = super().forward(x)[0]
        return output


class RNN(_Sequence, nn.RNN):  # type: ignore[misc]
    pass


class LSTM(_Sequence, nn.LSTM):  # type: ignore[misc]
    pass


class GRU(_Sequence, nn.GRU):  # type: ignore[misc]
    pass


LAYER_CLASSES: dict[str, Callable[..., nn.Module]] = {
    kind.__name__: kind for kind in (MultiheadAttention, TransformerEncoderLayer, RNN, LSTM, GRU)
}


def layer_class(kind: str) -> Callable[..., nn.Module]:
    """The class that a layer's name stands for."""
    return LAYER_CLASSES.get(kind) or getattr(nn, kind)
