"""A second look at a network of which one row is in memory at a time.

A gradient is not stored: it is had again from what arrives at the row's output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from gradprobe.measure.measurement import SecondLook
from gradprobe.measure.passes import model_errors
from gradprobe.measure.second_look import (
    FirstPass,
    first_pass,
    gradients_by_name,
    likeness,
    lower_quartile,
    weights_of,
)
from gradprobe.measure.small_step import STEP, Lengths, lengths_of, moved_by
from gradprobe.measure.streamed import Replay
from gradprobe.measure.surroundings import NOTHING
from gradprobe.measure.undisturbed import undisturbed
from gradprobe.model.seeds import derive, reseed_all
from gradprobe.model.streamed import Streamed
from gradprobe.model.subject import Subject


def streamed_look(subject: Subject, network: Streamed, step: float = STEP) -> SecondLook:
    """As ``second_look``, but of the states of loops, of which nothing is said.

    Raises:
        ModelError: a forward or backward pass raised.
    """
    rows = range(len(network.rows))
    with undisturbed(network), torch.inference_mode(False), torch.enable_grad(), model_errors():
        before = _replay(subject, network)
        lengths, looks, spread, further = Lengths({}, {}), [], 0.0, NOTHING
        for index in rows:
            seen = _seen(subject, before, index)
            looks.append(seen[0].look)
            lengths.whole.update(seen[1].whole)
            lengths.falls.update(seen[1].falls)
            spread, further = seen[0].spread, seen[0].glance.further
        shares = lengths.shares(step, spread)
        after = _replay(subject, before.moved(partial(_move, before, shares)))
        alike = [a for index in rows for a in _compared(before, after, index, shares)]
    sizes = [look.normalised for look in looks if look.normalised is not None]
    return SecondLook(
        coherence=lower_quartile(alike),
        highways={name: size for look in looks for name, size in look.highways.items()},
        lost_past=max(look.lost_past for look in looks),
        normalised=min(sizes, default=None),
        further=further,
        invariant=lengths.invariant,
    )


def _replay(subject: Subject, network: Streamed) -> Replay:
    reseed_all(derive(subject.seed, "forward"))
    return Replay(network, subject.args[0], subject.projection)


def _seen(subject: Subject, replay: Replay, index: int) -> tuple[FirstPass, Lengths]:
    """What one row tells by itself, of which the last alone knows the output."""
    module, last = replay.network.made(index), index == len(replay.network.rows) - 1
    row = replay.network.rows[index]._replace(module=module)

    def loss(output: Tensor) -> Tensor:
        root = replay.roots[index](output)
        return (output * 0).sum() if root is None else root

    local = replace(
        subject,
        model=module,
        rows=(row,),
        projection=loss,
        main=subject.main if last else lambda output: None,
        own_loss=subject.own_loss and last,
    )
    weights = weights_of(module, row.name)
    seen = first_pass(local, weights, False, lambda local: replay.run(index, module)[1])
    return seen, lengths_of(weights, seen.gradients)


def _gradients(
    replay: Replay, index: int, module: nn.Module
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """The weights of a row, and their gradients."""
    weights = weights_of(module, replay.network.rows[index].name)
    root = replay.root(index, module)[1]
    return weights, {} if root is None else gradients_by_name(root, weights)


def _move(replay: Replay, shares: Mapping[str, float], index: int, module: nn.Module) -> None:
    """Move the weights of a row by their gradients."""
    weights, gradients = _gradients(replay, index, module)
    for name, gradient in gradients.items():
        if name in shares:
            weights[name].data = moved_by(weights[name].detach(), gradient, shares[name])


def _compared(before: Replay, after: Replay, index: int, names: Mapping[str, float]) -> list[float]:
    """How alike the gradients of a row's weights are."""
    both = [_gradients(r, index, r.network.made(index))[1] for r in (before, after)]
    shared = [name for name in both[0] if name in names and name in both[1]]
    return [likeness(both[0][name], both[1][name]) for name in shared]
