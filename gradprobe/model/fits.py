"""A planned network, held against the limits: whether it fits into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradprobe.errors import Place
from gradprobe.spec.network import NetworkSpec
from gradprobe.spec.options import Limits

if TYPE_CHECKING:
    from gradprobe.model.plan import Planned

_BYTES = 4  # of an element in float32


def fits(whole: Planned, limits: Limits) -> bool:
    """Whether weights, and activations with their gradients, are in memory all at once."""
    return (2 * whole.activations + whole.parameters) * _BYTES <= limits.memory


def check_whole(spec: NetworkSpec, whole: Planned, batch_size: int, limits: Limits) -> None:
    """Refuse a network that does not fit.

    Raises:
        InputError: it has too many parameters, or does not fit in memory.
    """
    what = f"{whole.parameters:,} parameters need"
    largest = max(whole.layers, key=lambda layer: layer.parameters).spec.place
    check_bytes(spec, what, whole.parameters, limits, largest)
    _check_parameters(spec, whole, limits)
    # Each output, and its gradient on the way back.
    what = f"the activations of a batch of {batch_size} need"
    widest = max(whole.layers, key=lambda layer: layer.activations).spec.place
    check_bytes(spec, what, 2 * whole.activations + whole.parameters, limits, widest)


def check_blocks(spec: NetworkSpec, whole: Planned, limits: Limits) -> None:
    """Refuse a network of which one block does not fit.

    Raises:
        InputError: it has too many parameters, or a block does not fit.
    """
    _check_parameters(spec, whole, limits)
    largest = max(whole.rows, key=_elements)
    what = f"one block of {sum(layer.parameters for layer in largest):,} parameters needs"
    check_bytes(spec, what, _elements(largest), limits, largest[0].spec.place)


def room_between(whole: Planned, limits: Limits) -> int:
    """The bytes that the largest row leaves for what stands between rows."""
    return limits.memory - max(map(_elements, whole.rows)) * _BYTES


def _elements(row: tuple[Planned, ...]) -> int:
    """Weights and activations, and the gradients of both."""
    return 2 * sum(layer.parameters + layer.activations for layer in row)


def _check_parameters(spec: NetworkSpec, whole: Planned, limits: Limits) -> None:
    if whole.parameters > limits.parameters:
        largest = max(whole.layers, key=lambda layer: layer.parameters).spec.place
        message = f"the network has {whole.parameters:,} parameters"
        raise spec.error(message, largest, f"--max-parameters is {limits.parameters:,}")


def check_bytes(
    spec: NetworkSpec, what: str, elements: int, limits: Limits, place: Place | None
) -> None:
    """Refuse what takes more memory than the limits allow, at its place in the spec.

    Raises:
        InputError: it does.
    """
    needed = elements * _BYTES
    if needed > limits.memory:
        message = f"{what} {format_bytes(needed)}"
        raise spec.error(message, place, f"--max-memory is {format_bytes(limits.memory)}")


def format_bytes(count: int) -> str:
    """``3.6 TiB``"""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.2g} TiB" if size < 100 else f"{size:,.0f} TiB"
